/*
title: Failed console sign-ins followed by a success, or one address trying many users
severity: high
attack: [T1110, T1110.003, T1078.004]
window: 20m
every: 2m
entity: [cloud_account_uid, subject]
summary: "{subject} in account {cloud_account_uid}: {failures} failed console sign-ins, {what}"
triage: |
  1. After a success: was it the owner, at last? Address and browser tell; a factor that was used tells more.
  2. If not, cut the sessions of that user and reset the password before looking further.
  3. One address and many users: which of them exist, and did any get in, also from other addresses of that network?
  4. Failures with the right password and a wrong factor mean that the password is known: change it.
benign: The day passwords expire; many people behind one exit; a password manager with an old entry.
references:
  - https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html
*/
-- Names that do not exist are hidden: each such failure counts as another user. Times have whole seconds, so a failure
-- of the same second may stand before or after the success.
WITH logins AS (
    SELECT cloud_account_uid, time, event_uid, status, src_endpoint_ip AS address, error_message, mfa,
           coalesce(actor_user_name, user_identity_type, '(unknown)') AS login
    FROM   cloudtrail
    WHERE  event_name = 'ConsoleLogin')
SELECT cloud_account_uid, subject, what, failures, evidence
FROM  (SELECT s.cloud_account_uid, s.login AS subject, 'then a success' AS what,
              count(DISTINCT f.event_uid) AS failures,
              array_concat(array_agg(f.event_uid), array_agg(s.event_uid)) AS evidence
       FROM   logins s JOIN logins f
         ON   f.cloud_account_uid = s.cloud_account_uid
        AND  (f.login = s.login OR f.address = s.address)
        AND   f.time BETWEEN s.time - INTERVAL '15 minutes' AND s.time + INTERVAL '2 seconds'
       WHERE  s.status = 'Success' AND f.status = 'Failure'
       GROUP  BY s.cloud_account_uid, s.login
       HAVING count(DISTINCT f.event_uid) >= 5
       UNION ALL
       SELECT cloud_account_uid, address, 'of many users from one address', count(*), array_agg(event_uid)
       FROM   logins
       WHERE  status = 'Failure'
       GROUP  BY cloud_account_uid, address
       HAVING count(DISTINCT CASE WHEN login LIKE 'HIDDEN%' THEN event_uid ELSE login END) >= 5
       UNION ALL
       SELECT cloud_account_uid, login, 'at the second factor', count(*), array_agg(event_uid)
       FROM   logins
       WHERE  status = 'Failure' AND (coalesce(mfa, false) OR coalesce(error_message, '') ~* 'mfa|multi-?factor')
       GROUP  BY cloud_account_uid, login
       HAVING count(*) >= 3)
