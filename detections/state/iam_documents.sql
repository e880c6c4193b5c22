/*
title: Policy documents
key: [account, kind, owner, document]
doc: >-
  The last text of policies that say who may do what: `kind` is `role`, `user`, `group`, `managed`, `bucket` or `key`;
  `owner` the role, user or group, the managed policy's ARN or name, the bucket or the key; `document` the policy's
  name, `trust` for who may assume a role. A new version of a managed policy counts when it is made the default.
*/
SELECT recipient_account_id AS account,
       CASE WHEN event_name LIKE '%RolePolicy' OR event_name IN ('CreateRole', 'DeleteRole') THEN 'role'
            WHEN event_name LIKE '%UserPolicy' THEN 'user'
            WHEN event_name LIKE '%GroupPolicy' THEN 'group'
            WHEN event_name LIKE '%BucketPolicy' THEN 'bucket'
            WHEN event_name = 'PutKeyPolicy' THEN 'key'
            ELSE 'managed' END AS kind,
       coalesce(raw->'requestParameters'->>'roleName', raw->'requestParameters'->>'userName',
                raw->'requestParameters'->>'groupName', raw->'requestParameters'->>'bucketName',
                raw->'requestParameters'->>'keyId', raw->'requestParameters'->>'policyArn',
                raw->'responseElements'->'policy'->>'arn', raw->'requestParameters'->>'policyName') AS owner,
       CASE WHEN event_name IN ('CreateRole', 'UpdateAssumeRolePolicy', 'DeleteRole') THEN 'trust'
            WHEN event_name LIKE '%RolePolicy' OR event_name LIKE '%UserPolicy' OR event_name LIKE '%GroupPolicy'
              THEN raw->'requestParameters'->>'policyName'
            ELSE 'policy' END AS document,
       coalesce(raw->'requestParameters'->>'assumeRolePolicyDocument', raw->'requestParameters'->>'policyDocument',
                raw->'requestParameters'->>'bucketPolicy', raw->'requestParameters'->>'policy') AS text,
       principal AS written_by,
       event_name IN ('DeleteRole', 'DeleteRolePolicy', 'DeleteUserPolicy', 'DeleteGroupPolicy', 'DeletePolicy',
                      'DeleteBucketPolicy') AS deleted
FROM   cloudtrail
WHERE  status = 'Success'
  AND  ((event_source = 'iam.amazonaws.com'
         AND (event_name IN ('CreateRole', 'UpdateAssumeRolePolicy', 'DeleteRole', 'PutRolePolicy', 'DeleteRolePolicy',
                             'PutUserPolicy', 'DeleteUserPolicy', 'PutGroupPolicy', 'DeleteGroupPolicy', 'CreatePolicy',
                             'DeletePolicy')
           OR (event_name = 'CreatePolicyVersion' AND raw->'requestParameters'->>'setAsDefault' = 'true')))
     OR (event_source = 's3.amazonaws.com' AND event_name IN ('PutBucketPolicy', 'DeleteBucketPolicy'))
     OR (event_source = 'kms.amazonaws.com' AND event_name = 'PutKeyPolicy'))
