/*
title: New access key used from another network than its maker's
severity: high
attack: [T1098.001, T1078.004]
window: 26h
every: 2h
entity: [cloud_account_uid, access_key_id]
summary: "key {access_key_id}, made by {maker} from {made_from}, was used from {used_from}: {calls}"
triage: |
  1. Was the key made for a server? Then its network is known, and the user it belongs to is no person.
  2. How long after its making was it used? Minutes mean that somebody waited for it.
  3. Read the first calls with it: who am I, what may I, what is there, is somebody trying out.
  4. Unknown: deactivate the key, and look at how its maker came by the right to make it.
benign: Keys for servers and pipelines outside, made at a desk; list their networks.
references:
  - https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateAccessKey.html
*/
-- A network is the first three bytes of an IPv4 address, the first three groups of an IPv6 address. A key made by a
-- service has no place of its own.
SELECT a.cloud_account_uid, a.issued_access_key_id AS access_key_id,
       min(coalesce(a.user_identity_arn, a.principal)) AS maker,
       min(a.src_endpoint_ip) AS made_from,
       array_to_string(array_sort(array_agg(DISTINCT b.src_endpoint_ip)), ', ') AS used_from,
       array_to_string(array_sort(array_agg(DISTINCT b.event_name)), ', ') AS calls,
       min(b.time) AS first_used,
       array_concat(array_agg(DISTINCT a.event_uid), array_agg(DISTINCT b.event_uid)) AS evidence
FROM   cloudtrail a JOIN cloudtrail b
  ON   b.access_key_id = a.issued_access_key_id
 AND   b.time BETWEEN a.time - INTERVAL '2 seconds' AND a.time + INTERVAL '24 hours'
WHERE  a.event_name = 'CreateAccessKey' AND a.status = 'Success'
  AND  a.src_endpoint_ip ~ '^[0-9a-f:.]+$' AND NOT coalesce(a.service_call, false)
  AND  b.src_endpoint_ip ~ '^[0-9a-f:.]+$' AND NOT coalesce(b.service_call, false)
  AND  regexp_replace(a.src_endpoint_ip, '(\.[0-9]+|^([^:]*:[^:]*:[^:]*):.*)$', '\2')
       <> regexp_replace(b.src_endpoint_ip, '(\.[0-9]+|^([^:]*:[^:]*:[^:]*):.*)$', '\2')
GROUP  BY a.cloud_account_uid, a.issued_access_key_id
