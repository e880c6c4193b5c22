/*
title: Secrets read in cluster and cloud by one actor
severity: high
attack: [T1552.007, T1555.006]
window: 40m
every: 4m
entity: [cluster, actor]
summary: "{actor} read {cluster_secrets} secrets of {cluster} and {cloud_secrets} secrets of AWS within half an hour"
needs_level: Metadata
triage: |
  1. Is it a secret store's operator, which has both on purpose? Then tune it out as a pair.
  2. Otherwise freeze the identity in both planes, and rotate what was read.
  3. Where did the identity come from: a pod, a person, a pipeline?
benign: The External Secrets Operator and storage plugins that copy secrets from AWS into the cluster.
references:
  - https://docs.aws.amazon.com/secretsmanager/latest/userguide/retrieving-secrets.html
*/
-- One actor in two planes: EKS tells the IAM identity behind a user, a role without the path of its ARN; a service account's
-- cloud calls are made with the key that its web identity was given. Either side alone would have to read twice as many. A
-- list counts as many.
WITH cluster_reads AS (
  SELECT cluster, time, event_uid, coalesce(actor_user_aws_canonical_arn, actor_user_name) AS actor,
         coalesce(objectref_namespace || '/' || objectref_name, 'list') AS secret,
         verb
  FROM   kubernetes_calls
  WHERE  objectref_resource = 'secrets' AND verb IN ('get', 'list') AND status = 'Success'
    AND  coalesce(actor_user_type, '') IN ('User', 'ServiceAccount')
    AND  actor_user_name IS NOT NULL
    AND  NOT in_lookup('control_loops', actor_user_name)
    AND  actor_user_name NOT LIKE 'system:serviceaccount:external-secrets:%'
),
keys AS (
  SELECT issued_access_key_id AS access_key_id, coalesce(web_identity_subject, actor_user_name) AS subject
  FROM   cloudtrail
  WHERE  event_name = 'AssumeRoleWithWebIdentity' AND error_code IS NULL AND issued_access_key_id IS NOT NULL
),
cloud_reads AS (
  SELECT c.time, c.event_uid, coalesce(k.subject, regexp_replace(c.principal, ':role/.*/', ':role/')) AS actor,
         coalesce(c.raw->'requestParameters'->>'secretId', c.raw->'requestParameters'->>'name', c.raw->>'requestParameters', c.event_uid) AS secret
  FROM   cloudtrail c LEFT JOIN keys k ON k.access_key_id = c.access_key_id
  WHERE  c.error_code IS NULL
    AND  (c.event_name IN ('GetSecretValue', 'BatchGetSecretValue')
       OR (c.event_name IN ('GetParameter', 'GetParameters', 'GetParametersByPath') AND c.raw->'requestParameters'->>'withDecryption' = 'true'))
)
SELECT r.cluster, r.actor,
       count(DISTINCT r.secret) AS cluster_secrets,
       count(DISTINCT c.secret) AS cloud_secrets,
       min(least(r.time, c.time)) AS first_seen,
       array_concat(array_agg(DISTINCT r.event_uid), array_agg(DISTINCT c.event_uid)) AS evidence
FROM   cluster_reads r
JOIN   cloud_reads c ON c.actor = r.actor
                    AND c.time BETWEEN r.time - INTERVAL '30 minutes' AND r.time + INTERVAL '30 minutes'
GROUP  BY r.cluster, r.actor
HAVING (count(DISTINCT r.secret) >= 5 OR bool_or(r.verb = 'list')) AND count(DISTINCT c.secret) >= 5
