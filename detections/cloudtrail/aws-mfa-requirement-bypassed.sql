/*
title: Second factor removed, or sensitive change made without one
severity: high
attack: [T1556.006, T1548.005]
entity: [cloud_account_uid, actor, target]
summary: "{actor} of account {cloud_account_uid}: {event_name} on {target}, {reason}"
triage: |
  1. A factor was removed: ask its owner whether the device was lost or replaced; a new one should follow in minutes.
  2. A change without a factor: was the session opened on the console or by GetSessionToken? From where?
  3. Look at what the same principal did in the hour after; new keys and passwords of others first.
  4. Put the factor back, cut the sessions of the principal, require MFA by a policy condition.
benign: >-
  A lost or new phone; deletion of a user by a tool, which takes the device away first. Sessions of Identity Center and
  of roles are not looked at: their factor was asked for elsewhere.
references:
  - https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_mfa_configure-api-require.html
  - https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeactivateMFADevice.html
*/
-- A long-term key never has a factor and says nothing about its user; a session of a user does.
SELECT cloud_account_uid,
       coalesce(user_identity_arn, principal, '(unknown)') AS actor,
       coalesce(target_name, raw->'requestParameters'->>'serialNumber', target_arn, role_arn, '(unknown)') AS target,
       event_name, src_endpoint_ip,
       CASE WHEN event_name IN ('DeactivateMFADevice', 'DeleteVirtualMFADevice') THEN 'a factor was removed'
            ELSE 'the session had no factor' END AS reason
FROM   cloudtrail
WHERE  status = 'Success'
  AND  ((event_source = 'iam.amazonaws.com' AND event_name IN ('DeactivateMFADevice', 'DeleteVirtualMFADevice'))
     OR (user_identity_type = 'IAMUser' AND session_mfa = false AND access_key_id LIKE 'ASIA%'
         AND (NOT coalesce(service_call, false) OR invoked_by = 'signin.amazonaws.com')
         AND NOT coalesce(read_only, event_name ~ '^(Get|List|Describe|Generate|Simulate)')
         AND (event_source IN ('iam.amazonaws.com', 'organizations.amazonaws.com', 'cloudtrail.amazonaws.com')
           OR (event_source = 'kms.amazonaws.com'
               AND event_name IN ('PutKeyPolicy', 'CreateGrant', 'DisableKey', 'ScheduleKeyDeletion',
                                  'DeleteImportedKeyMaterial', 'DisableKeyRotation', 'DeleteAlias', 'UpdateAlias'))
           OR (event_source = 's3.amazonaws.com'
               AND event_name ~ '^(Put|Delete)(Bucket|AccountPublicAccessBlock)')
           OR (event_source = 'secretsmanager.amazonaws.com' AND event_name = 'DeleteSecret'))
         -- A user enrols its own factor, and sees to its own password, before it has one.
         AND event_name NOT IN ('CreateVirtualMFADevice', 'EnableMFADevice', 'ResyncMFADevice', 'ChangePassword')))
