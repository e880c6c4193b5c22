/*
title: Root user activity
severity: high
attack: [T1078.004]
entity: [cloud_account_uid]
summary: "root of account {cloud_account_uid} called {event_name} of {event_source} from {src_endpoint_ip} ({status})"
triage: |
  1. Is a task announced that only root can do (plan of support, billing, closing an account)? Ask its owner by phone.
  2. Urgent whatever the answer: new access keys, a changed password, a removed second factor, AssumeRoot.
  3. Compare the address with earlier root sessions; look at every write of root in the last day.
  4. If unknown: delete root's access keys, reset password and factor, check the contact address of the account.
benign: Tasks that AWS reserves for root, in an announced hour.
references:
  - https://docs.aws.amazon.com/IAM/latest/UserGuide/root-user-tasks.html
  - https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html
*/
-- What a service does in root's name, and reading, are left out; the console is named as a service in old records. Old records do not say whether they only read. What
-- management accounts do with AssumeRoot is root's power without root's name.
SELECT cloud_account_uid, event_name, event_source, src_endpoint_ip, http_request_user_agent, status,
       coalesce(user_identity_arn, 'root') AS actor
FROM   cloudtrail
WHERE  (user_identity_type = 'Root'
        AND coalesce(invoked_by, 'signin.amazonaws.com') = 'signin.amazonaws.com'
        AND coalesce(event_type, '') <> 'AwsServiceEvent'
        AND NOT coalesce(read_only, event_name ~ '^(Get|List|Describe|Head|Lookup|Check|View)'))
   OR  (event_source = 'sts.amazonaws.com' AND event_name = 'AssumeRoot')
