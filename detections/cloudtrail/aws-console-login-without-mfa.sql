/*
title: Console sign-in without a second factor
severity: high
attack: [T1078.004, T1556.006]
entity: [cloud_account_uid, login]
summary: "{login} ({actor_user_type}) of account {cloud_account_uid} signed in to the console from {src_endpoint_ip} without MFA"
triage: |
  1. If it was root, treat the account as taken until its owner says otherwise.
  2. Ask the user through another channel; compare address and browser with earlier sign-ins.
  3. List what the session did since (filter by the ARN and the time of the sign-in), writes to IAM first.
  4. If nobody knows of it: cut the sessions, reset the password, then enforce MFA by policy.
benign: Accounts whose users prove a second factor to an identity provider of their own broker.
references:
  - https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html
*/
-- Roles that come from SAML or Identity Center had their factor asked for elsewhere: the record always says No.
SELECT cloud_account_uid,
       coalesce(actor_user_name, user_identity_arn, user_identity_type, '(unknown)') AS login,
       actor_user_type, src_endpoint_ip, http_request_user_agent,
       raw->'additionalEventData'->>'LoginTo' AS login_to
FROM   cloudtrail
WHERE  event_name = 'ConsoleLogin' AND status = 'Success'
  AND  raw->'additionalEventData'->>'MFAUsed' = 'No'
  AND  (user_identity_type IN ('IAMUser', 'Root')
     OR (user_identity_type = 'AssumedRole'
         AND raw->'additionalEventData'->>'SamlProviderArn' IS NULL
         AND strpos(coalesce(user_identity_arn, ''), 'AWSReservedSSO_') = 0))
