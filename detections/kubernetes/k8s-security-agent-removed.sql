/*
title: Security or logging agent removed or crippled
severity: critical
attack: [T1685, T1685.002]
entity: [cluster, object]
summary: "{actor_user_name} {deed} {object} of {cluster}"
needs_level: Request
triage: |
  1. Put the agent back first; note from when to when the nodes were not watched.
  2. Who did it, from where, and is there a change that it belongs to?
  3. Whatever the same identity did before and after is suspect; for the dark interval use the audit log alone.
benign: Upgrades and moves of the agents by hand. Those through Argo CD or Flux are left out.
references:
  - https://falco.org/docs/setup/kubernetes/
*/
-- Known by name: agents are called like their product wherever they are installed. Scheduling an agent away (a node
-- selector that fits no node) is as good as deleting it; a restart changes only an annotation. An `update` carries the whole
-- object, so that without the last one nobody can tell what it changes: only scaling to nothing counts.
SELECT cluster,
       concat(objectref_resource, '/', coalesce(objectref_namespace || '/', ''), coalesce(objectref_name, '(all)')) AS object,
       actor_user_name, actor_user_type, verb, src_endpoint_ip, http_request_user_agent,
       CASE WHEN verb IN ('delete', 'deletecollection') THEN 'deleted'
            WHEN raw->'requestObject'->'spec'->>'replicas' = '0' THEN 'scaled to nothing'
            ELSE 'patched the pods of' END AS deed,
       substr(raw->>'requestObject', 1, 500) AS change
FROM   kubernetes_calls
WHERE  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  concat_ws('/', objectref_namespace, objectref_name)
       ~ '(^|[/-])(falco|tetragon|tracee|sysdig|kubearmor|fluent-?bit|fluentd|filebeat|auditbeat|elastic-agent|vector|promtail|alloy|otel-collector|opentelemetry-collector|datadog|newrelic|splunk|wazuh|crowdstrike|sentinelone|kyverno|gatekeeper|opa|istiod|linkerd|external-secrets|trivy-operator|kubescape|node-problem-detector|cloudwatch-agent|aws-guardduty-agent|stakeout)([-./]|$)'
  AND  (  (verb IN ('delete', 'deletecollection') AND objectref_subresource IS NULL
           AND objectref_resource IN ('daemonsets', 'deployments', 'statefulsets', 'namespaces', 'servicemonitors', 'networkpolicies'))
       OR (verb IN ('update', 'patch') AND objectref_resource IN ('deployments', 'statefulsets')
           AND coalesce(objectref_subresource, 'scale') = 'scale'
           AND (raw->'requestObject'->'spec'->>'replicas' = '0'
             OR raw->>'requestObject' ~ '"path"\s*:\s*"/spec/replicas"\s*,\s*"value"\s*:\s*0\b'))
       OR (verb = 'patch' AND objectref_resource IN ('daemonsets', 'deployments', 'statefulsets') AND objectref_subresource IS NULL
           AND (raw->'requestObject'->'spec'->'template'->>'spec' IS NOT NULL
             OR raw->>'requestObject' ~ '"path"\s*:\s*"/spec/template/spec(/|")'))
       OR (verb IN ('update', 'patch', 'delete') AND objectref_resource = 'configmaps'))
  AND  coalesce(actor_user_name, '') NOT IN ('system:kube-controller-manager', 'system:apiserver')
  AND  NOT in_lookup('gitops_controllers', coalesce(actor_user_name, ''))
  AND  NOT in_lookup('control_loops', coalesce(actor_user_name, ''))
  -- leader election of the agents themselves
  AND  NOT (objectref_resource = 'configmaps' AND coalesce(actor_user_type, '') = 'ServiceAccount'
            AND split_part(coalesce(actor_user_name, ''), ':', 3) = coalesce(objectref_namespace, ''))
