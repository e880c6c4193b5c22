/*
title: One temporary key used from several networks
severity: high
attack: [T1550.001, T1078.004]
window: 15m
every: 90s
entity: [cloud_account_uid, access_key_id]
summary: "key {access_key_id} of {actor} was used from {networks} networks within a quarter of an hour: {addresses}"
triage: |
  1. Which of the networks is the one the session was opened from (the call that issued the key has its address)?
  2. What did the other one call? Reading who it is and what there is comes first with a stolen key.
  3. Is one of them an exit of the company, a VPN or a cloud shell? Then write it down as known.
  4. Else revoke the role's sessions issued before now, and find where the key leaked: a host, a log, a container.
benign: Clients with both IPv4 and IPv6, pools of exits, a laptop that changes from office to phone.
references:
  - https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
  - https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html
*/
-- A network is the first three bytes of an IPv4 address, the first three groups of an IPv6 address. Calls of services
-- and of the console, which AWS makes from its own addresses, tell nothing of where the key is.
SELECT cloud_account_uid, access_key_id,
       min(coalesce(user_identity_arn, principal)) AS actor,
       count(DISTINCT regexp_replace(src_endpoint_ip, '(\.[0-9]+|^([^:]*:[^:]*:[^:]*):.*)$', '\2')) AS networks,
       array_to_string(array_sort(array_agg(DISTINCT src_endpoint_ip)), ', ') AS addresses
FROM   cloudtrail
WHERE  access_key_id LIKE 'ASIA%'
  AND  ip_is_public(src_endpoint_ip)
  AND  NOT coalesce(service_call, false)
  AND  NOT coalesce(console_session, false)
GROUP  BY cloud_account_uid, access_key_id
HAVING networks >= 2
