/*
title: Isolation removed, then new traffic from the namespace
severity: high
attack: [T1686, T1041, T1021]
window: 80m
every: 10m
entity: [cluster, namespace]
summary: "{removed_by} took away {policies} in {namespace} of {cluster}; then {signals} from {pods}"
needs_level: Request
triage: |
  1. Put the policy back; then read what left the namespace meanwhile.
  2. Who removed it, by which tool? A GitOps controller would have put another in its place.
  3. Which process of which pod made the connections, and where to?
benign: A planned change of policies.
references:
  - https://kubernetes.io/docs/concepts/services-networking/network-policies/
*/
-- Opened: an empty rule, or the whole Internet as peer.
WITH removed AS (
  SELECT cluster, objectref_namespace AS namespace, time, event_uid, actor_user_name, coalesce(objectref_name, '(all)') AS policy
  FROM   kubernetes_calls
  WHERE  objectref_resource IN ('networkpolicies', 'ciliumnetworkpolicies') AND objectref_namespace IS NOT NULL
    AND  objectref_subresource IS NULL AND status = 'Success' AND dry_run IS NOT TRUE
    AND  (verb IN ('delete', 'deletecollection')
       OR (verb IN ('update', 'patch')
           AND raw->>'requestObject' ~ '"(ingress|egress)"\s*:\s*\[\s*\{\s*\}|"cidr"\s*:\s*"(0\.0\.0\.0|::)/0"'))
    AND  coalesce(actor_user_name, '') <> 'system:kube-controller-manager'
    AND  NOT in_lookup('gitops_controllers', coalesce(actor_user_name, ''))
    AND  NOT in_lookup('control_loops', coalesce(actor_user_name, ''))
),
traffic AS (
  SELECT cluster, k8s_ns_name AS namespace, k8s_pod_name AS pod, time, event_uid, rule, coalesce(fd_sip, fd_rip, fd_name) AS remote
  FROM   falco
  WHERE  k8s_ns_name IS NOT NULL
    AND  (rule IN ('Unexpected outbound connection', 'Unexpected outbound connection destination',
                   'Network Connection outside Local Subnet', 'Unexpected UDP Traffic', 'System procs network activity',
                   'Disallowed SSH Connection Non Standard Port', 'Contact K8S API Server From Container',
                   'Contact EC2 Instance Metadata Service From Container', 'Contact cloud metadata service from container',
                   'Launch Suspicious Network Tool in Container', 'Detect outbound connections to common miner pool ports',
                   'Redirect STDOUT/STDIN to Network Connection in Container'))
)
SELECT r.cluster, r.namespace,
       array_to_string(array_sort(array_agg(DISTINCT r.actor_user_name)), ', ') AS removed_by,
       array_to_string(array_sort(array_agg(DISTINCT r.policy)), ', ') AS policies,
       array_to_string(array_sort(array_agg(DISTINCT t.rule)), ', ') AS signals,
       array_to_string(array_sort(array_agg(DISTINCT t.pod)), ', ') AS pods,
       count(DISTINCT t.remote) AS remotes,
       min(r.time) AS first_seen,
       array_concat(array_agg(DISTINCT r.event_uid), array_agg(DISTINCT t.event_uid)) AS evidence
FROM   removed r
JOIN   traffic t ON t.cluster = r.cluster AND t.namespace = r.namespace
                AND t.time BETWEEN r.time - INTERVAL '2 seconds' AND r.time + INTERVAL '60 minutes'
GROUP  BY r.cluster, r.namespace
