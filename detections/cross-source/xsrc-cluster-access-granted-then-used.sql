/*
title: Cluster access granted in the cloud, used in the cluster
severity: critical
attack: [T1098.006, T1098.003, T1078.004]
window: 25h
every: 30m
entity: [cluster, principal]
summary: "{granted_by} let {principal} into EKS, and within a day it did {actions} in {cluster}"
needs_level: Metadata
triage: |
  1. Did the one who granted it also use it (`self_service`), or is there a role between them? See AssumeRole calls.
  2. Remove the access entry first; its sessions end with it.
  3. What was read or made? Secrets are to be rotated, bindings and workloads to be removed.
benign: Onboarding of a team. The pipeline that makes the cluster grants, but does not use what it grants to others.
references:
  - https://docs.aws.amazon.com/eks/latest/userguide/access-entries.html
*/
-- The calls have the ARN with `:` and `/` escaped where it is part of the path. The name of a cluster at AWS need not be the
-- one it has here, so the principal alone joins them; of a role EKS tells the ARN without its path.
WITH granted AS (
  SELECT regexp_replace(replace(replace(coalesce(raw->'requestParameters'->>'principalArn', target_arn), '%3A', ':'), '%2F', '/'),
                        ':role/.*/', ':role/') AS arn,
         time, event_uid, principal AS granted_by
  FROM   cloudtrail
  WHERE  event_source = 'eks.amazonaws.com' AND error_code IS NULL
    AND  (event_name IN ('CreateAccessEntry', 'AssociateAccessPolicy')
       OR (event_name = 'UpdateAccessEntry' AND raw->'requestParameters'->>'kubernetesGroups' IS NOT NULL))
),
used AS (
  SELECT cluster, actor_user_aws_canonical_arn AS arn, time, event_uid,
         concat_ws(' ', verb, concat_ws('/', objectref_resource, objectref_subresource)) AS what
  FROM   kubernetes_calls
  WHERE  actor_user_aws_canonical_arn IS NOT NULL AND coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
    AND  coalesce(actor_user_type, '') <> 'Node'
    AND  ((objectref_resource = 'secrets' AND verb IN ('get', 'list', 'watch'))
       OR (objectref_resource = 'pods' AND objectref_subresource IN ('exec', 'attach', 'ephemeralcontainers'))
       OR (objectref_resource = 'serviceaccounts' AND objectref_subresource = 'token')
       OR (objectref_resource IN ('clusterroles', 'clusterrolebindings', 'roles', 'rolebindings', 'pods', 'deployments', 'daemonsets',
                                  'statefulsets', 'jobs', 'cronjobs')
           AND objectref_subresource IS NULL AND verb IN ('create', 'update', 'patch', 'delete')))
)
SELECT u.cluster, g.arn AS principal,
       array_to_string(array_sort(array_agg(DISTINCT g.granted_by)), ', ') AS granted_by,
       array_to_string(array_sort(array_agg(DISTINCT u.what)), ', ') AS actions,
       bool_or(regexp_replace(g.granted_by, ':role/.*/', ':role/') = g.arn) AS self_service,
       count(DISTINCT u.event_uid) AS calls,
       min(g.time) AS first_seen,
       array_concat(array_agg(DISTINCT g.event_uid), array_agg(DISTINCT u.event_uid)) AS evidence
FROM   granted g
JOIN   used u ON u.arn = g.arn AND u.time BETWEEN g.time - INTERVAL '2 seconds' AND g.time + INTERVAL '24 hours'
GROUP  BY u.cluster, g.arn
