/*
title: Rights of an administrator granted
severity: high
attack: [T1098.003, T1484]
entity: [cloud_account_uid, target]
summary: "{actor} called {event_name} on {target} of account {cloud_account_uid}: {granted}"
triage: |
  1. Does the target belong to an administrator or to the pipeline that builds accounts? Is there a request?
  2. Is the target new, or did it get a key or a password in the same quarter of an hour?
  3. Did the actor grant the rights to itself? Then look at how it came by the right to grant.
  4. Unknown: detach the policy or put the old version back, then list what the target did since.
benign: Building of accounts by their pipeline, emergency roles.
references:
  - https://docs.aws.amazon.com/IAM/latest/APIReference/API_AttachUserPolicy.html
  - https://docs.aws.amazon.com/aws-managed-policy/latest/reference/AdministratorAccess.html
*/
SELECT cloud_account_uid, target, actor, event_name, src_endpoint_ip,
       CASE WHEN managed IS NOT NULL THEN managed
            WHEN event_name LIKE 'Delete%' THEN 'its boundary is gone'
            WHEN event_name = 'AddUserToGroup' THEN concat('member of ', raw->'requestParameters'->>'groupName')
            ELSE found END AS granted
FROM  (SELECT *,
              coalesce(raw->'requestParameters'->>'userName', raw->'requestParameters'->>'roleName',
                       raw->'requestParameters'->>'groupName', raw->'requestParameters'->>'policyArn',
                       '(unknown)') AS target,
              coalesce(user_identity_arn, principal, '(unknown)') AS actor,
              CASE WHEN event_name LIKE 'Attach%'
                   THEN regexp_match(raw->'requestParameters'->>'policyArn',
                            '^arn:aws[^:]*:iam::aws:policy/(AdministratorAccess|PowerUserAccess|IAMFullAccess)$')[1]
                   END AS managed,
              array_to_string(iam_policy_findings(raw->'requestParameters'->>'policyDocument'), ' ') AS found
       FROM   cloudtrail
       WHERE  event_source = 'iam.amazonaws.com' AND status = 'Success'
         AND  coalesce(user_identity_type, '') <> 'AWSService'
         AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%')
WHERE (event_name IN ('AttachUserPolicy', 'AttachRolePolicy', 'AttachGroupPolicy') AND managed IS NOT NULL)
   OR ((event_name IN ('PutUserPolicy', 'PutRolePolicy', 'PutGroupPolicy')
        OR (event_name = 'CreatePolicyVersion' AND raw->'requestParameters'->>'setAsDefault' = 'true'))
       AND found ~ '(^| )(star-admin|star-not-action|star-resource:iam|star-resource:sts|pass-role|assume-any|iam-write)( |$)')
   OR (event_name = 'AddUserToGroup' AND raw->'requestParameters'->>'groupName' ~* 'admin|poweruser')
   OR  event_name IN ('DeleteUserPermissionsBoundary', 'DeleteRolePermissionsBoundary')
