/*
title: Suspicious cloud credential used against the Kubernetes API
severity: high
attack: [T1550.001, T1078.004, T1021.007]
window: 750m
every: 30m
entity: [cluster, credential]
summary: "{credential} ({reasons}) acted in {cluster} as {users}: {actions}"
needs_level: Metadata
triage: |
  1. Why is it suspicious (`reasons`), and does its owner know of both sides?
  2. Disable the key or revoke the sessions; remove the principal's access entry while it is unclear.
  3. What was read or made in the cluster? Secrets are to be rotated.
benign: A person without a second factor at work; travellers and changing networks; a new key for automation.
references:
  - https://docs.aws.amazon.com/eks/latest/userguide/cluster-auth.html
*/
-- What makes it suspicious: a console sign-in without second factor, a long-lived key that was just made, one key from several
-- public addresses within the window. EKS tells the key and the identity behind a Kubernetes user.
WITH signed_in AS (
  SELECT user_identity_arn AS credential, time, event_uid, 'console sign-in without second factor' AS reason
  FROM   cloudtrail
  WHERE  event_name = 'ConsoleLogin' AND status = 'Success' AND user_identity_type IN ('IAMUser', 'Root')
    AND  raw->'additionalEventData'->>'MFAUsed' = 'No' AND user_identity_arn IS NOT NULL
),
made AS (
  SELECT issued_access_key_id AS credential, time, event_uid, 'key made just before' AS reason
  FROM   cloudtrail
  WHERE  event_name = 'CreateAccessKey' AND error_code IS NULL AND issued_access_key_id IS NOT NULL
),
moving AS (
  SELECT access_key_id AS credential, min(time) AS time, min(event_uid) AS event_uid, 'key used from several addresses' AS reason
  FROM   cloudtrail
  WHERE  access_key_id IS NOT NULL AND ip_is_public(src_endpoint_ip) AND coalesce(service_call, false) = false
    AND  coalesce(session_name, '') NOT LIKE 'i-%'
  GROUP  BY access_key_id HAVING count(DISTINCT src_endpoint_ip) >= 3
),
suspects AS (
  SELECT credential, time, event_uid, reason FROM signed_in
  UNION ALL SELECT credential, time, event_uid, reason FROM made
  UNION ALL SELECT credential, time, event_uid, reason FROM moving
),
acts AS (
  SELECT cluster, time, event_uid, actor_user_name, actor_user_access_key_id, actor_user_aws_arn,
         concat_ws(' ', verb, concat_ws('/', objectref_resource, objectref_subresource)) AS what
  FROM   kubernetes_calls
  WHERE  (actor_user_access_key_id IS NOT NULL OR actor_user_aws_arn IS NOT NULL)
    AND  coalesce(actor_user_type, '') <> 'Node'
    AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
    AND  (verb IN ('update', 'patch', 'delete', 'deletecollection')
       OR (verb = 'create' AND coalesce(objectref_resource, '') NOT LIKE 'self%review%')
       OR (objectref_resource = 'secrets' AND verb IN ('get', 'list', 'watch'))
       OR objectref_subresource IN ('exec', 'attach', 'portforward'))
),
joined AS (
  SELECT a.cluster, s.credential, s.reason, s.time AS suspect_time, s.event_uid AS suspect_uid, a.event_uid, a.what, a.actor_user_name
  FROM   suspects s JOIN acts a ON a.actor_user_access_key_id = s.credential
                               AND a.time BETWEEN s.time - INTERVAL '2 seconds' AND s.time + INTERVAL '12 hours'
  UNION ALL
  SELECT a.cluster, s.credential, s.reason, s.time AS suspect_time, s.event_uid AS suspect_uid, a.event_uid, a.what, a.actor_user_name
  FROM   suspects s JOIN acts a ON a.actor_user_aws_arn = s.credential
                               AND a.time BETWEEN s.time - INTERVAL '2 seconds' AND s.time + INTERVAL '12 hours'
)
SELECT cluster, credential,
       array_to_string(array_sort(array_agg(DISTINCT reason)), ', ') AS reasons,
       array_to_string(array_sort(array_agg(DISTINCT actor_user_name)), ', ') AS users,
       array_to_string(array_sort(array_agg(DISTINCT what)), ', ') AS actions,
       min(suspect_time) AS first_seen,
       array_concat(array_agg(DISTINCT suspect_uid), array_agg(DISTINCT event_uid)) AS evidence
FROM   joined
GROUP  BY cluster, credential
