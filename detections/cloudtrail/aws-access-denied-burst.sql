/*
title: Burst of denied AWS calls
severity: medium
attack: [T1580, T1078.004, T1110]
window: 10m
every: 1m
entity: [cloud_account_uid, principal]
summary: "{principal} was denied {calls} calls to {operations} different operations in ten minutes"
triage: |
  1. Is somebody setting up a deployment, or is a key trying out what it may do?
  2. Which calls succeeded between the denied ones?
  3. If the key is not where it belongs, disable it before asking further.
benign: Deployments under construction, scanners that probe permissions.
*/
SELECT cloud_account_uid,
       coalesce(user_identity_arn, actor_user_name) AS principal,
       count(*) AS calls,
       count(DISTINCT event_name) AS operations,
       min(time) AS first_seen
FROM   cloudtrail
WHERE  error_code LIKE '%AccessDenied%' OR error_code LIKE '%UnauthorizedOperation%'
GROUP  BY cloud_account_uid, coalesce(user_identity_arn, actor_user_name)
HAVING count(*) >= 10 AND count(DISTINCT event_name) >= 5
