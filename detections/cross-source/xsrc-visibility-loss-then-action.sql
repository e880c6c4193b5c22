/*
title: Sight lost in one plane, action in another
severity: critical
attack: [T1685, T1685.002]
window: 80m
every: 10m
entity: [subject]
summary: "{subject} took away sight ({losses}) and acted in another plane: {actions}"
needs_level: Request
triage: |
  1. Put the log or sensor back first; note from when to when it was dark.
  2. Treat everything that this identity did in the last day as suspect, in both planes.
  3. Freeze the identity: its sessions, keys and cluster access.
benign: Declared maintenance by one person in both planes. Pipelines have identities of their own.
references:
  - https://docs.aws.amazon.com/awscloudtrail/latest/userguide/best-practices-security.html
  - https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
*/
-- One identity in two planes: EKS tells the IAM role or user behind a Kubernetes user, a role without the path that its ARN
-- has at AWS (roles of Identity Center have one). Where only the cluster is shared, a removed sensor counts with runtime
-- alerts. Action before the loss, within ten minutes, is covering up.
WITH losses AS (
  SELECT 'cloud' AS plane, regexp_replace(principal, ':role/.*/', ':role/') AS subject, time, event_uid, concat(split_part(event_source, '.', 1), ':', event_name) AS what
  FROM   cloudtrail
  WHERE  principal IS NOT NULL AND coalesce(service_call, false) = false
    AND  ((event_source = 'cloudtrail.amazonaws.com'
           AND (event_name IN ('StopLogging', 'DeleteTrail', 'DeleteEventDataStore', 'StopEventDataStoreIngestion')
             OR (event_name = 'UpdateTrail'
                 AND (raw->'requestParameters'->>'isMultiRegionTrail' = 'false'
                   OR raw->'requestParameters'->>'includeGlobalServiceEvents' = 'false'
                   OR raw->'requestParameters'->>'enableLogFileValidation' = 'false'))
             OR (event_name = 'PutEventSelectors'
                 AND raw->>'requestParameters' ~ '"includeManagementEvents"\s*:\s*false|"readWriteType"\s*:\s*"(ReadOnly|WriteOnly)"|"excludeManagementEventSources"\s*:\s*\[\s*"')))
      OR (event_name IN ('DeleteFlowLogs', 'DeleteResolverQueryLogConfig', 'DisassociateResolverQueryLogConfig', 'DeleteDetector',
                         'DisassociateFromAdministratorAccount', 'DisableSecurityHub', 'StopConfigurationRecorder',
                         'DeleteConfigurationRecorder', 'DeleteDeliveryChannel', 'DisableMacie', 'DeleteLogGroup'))
      OR (event_name = 'UpdateDetector' AND raw->'requestParameters'->>'enable' = 'false')
      OR (event_name = 'UpdateClusterConfig' AND event_source = 'eks.amazonaws.com'
          AND raw->'requestParameters'->>'logging' ~ '"enabled"\s*:\s*false'))
  UNION ALL
  SELECT 'cluster' AS plane, actor_user_aws_canonical_arn AS subject, time, event_uid,
         concat_ws(' ', verb, concat_ws('/', objectref_resource, objectref_namespace, objectref_name)) AS what
  FROM   kubernetes_calls
  WHERE  actor_user_aws_canonical_arn IS NOT NULL AND status = 'Success' AND dry_run IS NOT TRUE
    AND  coalesce(actor_user_type, '') <> 'Node'
    AND  ((verb IN ('delete', 'deletecollection')
           AND objectref_resource IN ('validatingwebhookconfigurations', 'mutatingwebhookconfigurations', 'validatingadmissionpolicies',
                                      'validatingadmissionpolicybindings', 'clusterpolicies', 'constrainttemplates'))
       OR (verb IN ('delete', 'deletecollection', 'patch', 'update')
           AND objectref_resource IN ('daemonsets', 'deployments', 'statefulsets', 'namespaces')
           AND concat_ws('/', objectref_namespace, objectref_name)
               ~ '(^|[/-])(falco|tetragon|tracee|sysdig|kubearmor|fluent-?bit|fluentd|filebeat|vector|promtail|alloy|otel-collector|opentelemetry-collector|datadog|splunk|wazuh|crowdstrike|kyverno|gatekeeper|cloudwatch-agent|aws-guardduty-agent|stakeout)([-./]|$)'))
),
actions AS (
  SELECT 'cluster' AS plane, actor_user_aws_canonical_arn AS subject, time, event_uid,
         concat_ws(' ', verb, concat_ws('/', objectref_resource, objectref_subresource)) AS what
  FROM   kubernetes_calls
  WHERE  actor_user_aws_canonical_arn IS NOT NULL AND coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
    AND  coalesce(actor_user_type, '') <> 'Node'
    AND  ((objectref_resource = 'secrets' AND verb IN ('get', 'list'))
       OR (objectref_resource = 'pods' AND objectref_subresource IN ('exec', 'attach', 'ephemeralcontainers'))
       OR (objectref_resource = 'serviceaccounts' AND objectref_subresource = 'token')
       OR (objectref_resource IN ('clusterroles', 'clusterrolebindings', 'roles', 'rolebindings') AND verb IN ('create', 'update', 'patch'))
       OR pod_privileged IS TRUE OR pod_host_pid IS TRUE)
  UNION ALL
  SELECT 'cloud' AS plane, regexp_replace(principal, ':role/.*/', ':role/') AS subject, time, event_uid, concat(split_part(event_source, '.', 1), ':', event_name) AS what
  FROM   cloudtrail
  WHERE  principal IS NOT NULL AND error_code IS NULL AND coalesce(service_call, false) = false
    AND  event_name IN ('GetSecretValue', 'BatchGetSecretValue', 'CreateAccessKey', 'CreateUser', 'CreateLoginProfile', 'UpdateLoginProfile',
                        'AttachUserPolicy', 'AttachRolePolicy', 'PutUserPolicy', 'PutRolePolicy', 'UpdateAssumeRolePolicy', 'CreateAccessEntry',
                        'AssociateAccessPolicy', 'ModifySnapshotAttribute', 'ModifyImageAttribute', 'ModifyDBSnapshotAttribute',
                        'PutBucketPolicy', 'DeleteBucketPublicAccessBlock', 'DeleteBucket', 'RunInstances', 'SendCommand', 'StartSession',
                        'ScheduleKeyDeletion', 'DeleteDBInstance', 'DeleteSnapshot')
),
sensors AS (
  SELECT cluster, time, event_uid, concat_ws(' ', verb, concat_ws('/', objectref_resource, objectref_namespace, objectref_name)) AS what
  FROM   kubernetes_calls
  WHERE  status = 'Success' AND dry_run IS NOT TRUE AND objectref_subresource IS NULL
    AND  verb IN ('delete', 'deletecollection', 'patch') AND objectref_resource IN ('daemonsets', 'namespaces')
    AND  (verb <> 'patch' OR raw->'requestObject'->'spec'->'template'->>'spec' IS NOT NULL
          OR raw->>'requestObject' ~ '"path"\s*:\s*"/spec/template/spec(/|")')
    AND  concat_ws('/', objectref_namespace, objectref_name) ~ '(^|[/-])(falco|tetragon|tracee|sysdig|kubearmor|crowdstrike|aws-guardduty-agent)([-./]|$)'
    AND  coalesce(actor_user_name, '') <> 'system:kube-controller-manager'
    AND  NOT in_lookup('gitops_controllers', coalesce(actor_user_name, ''))
    AND  NOT in_lookup('control_loops', coalesce(actor_user_name, ''))
),
alerts AS (
  SELECT cluster, time, event_uid, rule AS what FROM falco
  WHERE  severity IN ('emergency', 'alert', 'critical', 'error', 'warning')
    AND  rule NOT LIKE 'Falco internal:%'
)
SELECT l.subject,
       array_to_string(array_sort(array_agg(DISTINCT l.what)), ', ') AS losses,
       array_to_string(array_sort(array_agg(DISTINCT a.what)), ', ') AS actions,
       min(least(l.time, a.time)) AS first_seen,
       array_concat(array_agg(DISTINCT l.event_uid), array_agg(DISTINCT a.event_uid)) AS evidence
FROM   losses l
JOIN   actions a ON a.subject = l.subject AND a.plane <> l.plane
                AND a.time BETWEEN l.time - INTERVAL '10 minutes' AND l.time + INTERVAL '60 minutes'
GROUP  BY l.subject
UNION ALL
SELECT concat('cluster ', s.cluster) AS subject,
       array_to_string(array_sort(array_agg(DISTINCT s.what)), ', ') AS losses,
       array_to_string(array_sort(array_agg(DISTINCT a.what)), ', ') AS actions,
       min(least(s.time, a.time)) AS first_seen,
       array_concat(array_agg(DISTINCT s.event_uid), array_agg(DISTINCT a.event_uid)) AS evidence
FROM   sensors s
JOIN   alerts a ON a.cluster = s.cluster
               AND a.time BETWEEN s.time - INTERVAL '10 minutes' AND s.time + INTERVAL '60 minutes'
GROUP  BY s.cluster
