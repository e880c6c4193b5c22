/*
title: Long-term access key used from a new network
severity: medium
attack: [T1078.004, T1552.001]
entity: [cloud_account_uid, access_key_id, network]
summary: "key {access_key_id} of {actor} was used from {src_endpoint_ip} for the first time in 30 days ({event_name}, {http_request_user_agent})"
triage: |
  1. Whose key is it, and is the network theirs: an office, a data centre, a runner of the pipeline?
  2. What was called first? Who am I, what is there, how much mail may I send, is somebody trying a found key.
  3. Does the client name itself a scanner of secrets, or is it another one than before?
  4. Unknown: disable the key, look for where it leaked, replace it by a role.
benign: People who travel, runners of a pipeline that change their provider's network.
references:
  - https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html
*/
-- A network is the first 20 bits of an IPv4 address (its third number by sixteen), two groups of an IPv6 address.
SELECT cloud_account_uid, access_key_id,
       CASE WHEN strpos(src_endpoint_ip, ':') > 0 THEN regexp_replace(src_endpoint_ip, '^([^:]*:[^:]*:).*$', '\1')
            ELSE concat(split_part(src_endpoint_ip, '.', 1), '.', split_part(src_endpoint_ip, '.', 2), '.',
                        TRY_CAST(split_part(src_endpoint_ip, '.', 3) AS BIGINT) / 16 * 16) END AS network,
       user_identity_arn AS actor,
       event_source, event_name, src_endpoint_ip, http_request_user_agent, error_code
FROM   cloudtrail
WHERE  access_key_id LIKE 'AKIA%'
  AND  src_endpoint_ip ~ '^[0-9a-f:.]+$'
  AND  NOT coalesce(service_call, false)
  AND  first_seen(INTERVAL '30 days', access_key_id,
           CASE WHEN strpos(src_endpoint_ip, ':') > 0 THEN regexp_replace(src_endpoint_ip, '^([^:]*:[^:]*:).*$', '\1')
                ELSE concat(split_part(src_endpoint_ip, '.', 1), '.', split_part(src_endpoint_ip, '.', 2), '.',
                            TRY_CAST(split_part(src_endpoint_ip, '.', 3) AS BIGINT) / 16 * 16) END)
