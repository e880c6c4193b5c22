/*
title: Access key or password added to somebody else
severity: high
attack: [T1098.001, T1098, T1136.003]
entity: [cloud_account_uid, target_user]
summary: "{actor} called {event_name} for user {target_user} of account {cloud_account_uid} from {src_endpoint_ip}"
triage: |
  1. Does the actor manage users? Is there a request for this credential? Ask the user it is for.
  2. A password without a forced change (`password_reset` is not true) is meant to be used by the one who set it.
  3. Follow the new credential: calls with `issued_key`, or console sign-ins of the user.
  4. Unknown: deactivate the key or delete the login profile, then look at the actor's own credentials.
benign: Help desk, onboarding and identity automation.
references:
  - https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateAccessKey.html
  - https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateLoginProfile.html
*/
-- Without a user name the call is about the caller's own credentials. For a session of a role every user is another.
SELECT cloud_account_uid,
       raw->'requestParameters'->>'userName' AS target_user,
       coalesce(user_identity_arn, principal, '(unknown)') AS actor,
       event_name, src_endpoint_ip, issued_access_key_id AS issued_key,
       raw->'requestParameters'->>'passwordResetRequired' AS password_reset
FROM   cloudtrail
WHERE  event_source = 'iam.amazonaws.com' AND status = 'Success'
  AND  (event_name IN ('CreateAccessKey', 'CreateLoginProfile', 'UpdateLoginProfile', 'UploadSSHPublicKey',
                       'CreateServiceSpecificCredential', 'ResetServiceSpecificCredential')
     OR (event_name = 'UpdateAccessKey' AND raw->'requestParameters'->>'status' = 'Active'))
  AND  NOT (coalesce(user_identity_type, '') = 'IAMUser'
            AND coalesce(actor_user_name, '') = raw->'requestParameters'->>'userName')
