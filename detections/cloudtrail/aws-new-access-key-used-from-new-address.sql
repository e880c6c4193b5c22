/*
title: New access key used from another network than its maker's
severity: high
attack: [T1098.001, T1078.004]
entity: [cloud_account_uid, access_key_id]
summary: "key {access_key_id}, made by {maker} from {made_from}, was used from {used_from}: {event_name}"
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
-- service has no place of its own. Each use within a day is a finding, all of one key one incident.
SELECT e.cloud_account_uid, e.access_key_id, s.issued_to AS maker, s.issued_from AS made_from,
       e.src_endpoint_ip AS used_from, e.event_name
FROM   cloudtrail e
JOIN   cloud_sessions s
  ON   s.access_key_id = e.access_key_id
 AND   e.time >= s.valid_from AND e.time < s.valid_to
WHERE  e.access_key_id LIKE 'AKIA%'
  AND  e.src_endpoint_ip ~ '^[0-9a-f:.]+$' AND NOT coalesce(e.service_call, false)
  AND  s.issued_by_call = 'CreateAccessKey'
  AND  e.time <= s.valid_from + INTERVAL '24 hours'
  AND  s.issued_from ~ '^[0-9a-f:.]+$'
  AND  regexp_replace(s.issued_from, '(\.[0-9]+|^([^:]*:[^:]*:[^:]*):.*)$', '\2')
       <> regexp_replace(e.src_endpoint_ip, '(\.[0-9]+|^([^:]*:[^:]*:[^:]*):.*)$', '\2')
