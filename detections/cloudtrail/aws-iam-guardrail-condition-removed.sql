/*
title: Policy or trust lost a protective condition
severity: high
attack: [T1484, T1098.003, T1556.006]
entity: [cloud_account_uid, kind, owner, document]
summary: "{actor} called {event_name}: {kind} {owner}, {document}, lost {lost}"
triage: |
  1. Read both versions side by side; put the old one back unless the change is in code and reviewed.
  2. Who can do now what the condition kept them from? List such calls since the change.
  3. The same principal: which other documents did it change today?
benign: A condition that is moved to another statement or replaced by a stricter one under another key.
references:
  - https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
*/
-- The key of the state, from the call's own parameters, so that each call meets the version that it wrote. A key that is nowhere in
-- the new text is lost; so is a statement that denies when there are fewer of them.
SELECT e.cloud_account_uid, s.kind, s.owner, s.document, e.event_name, e.src_endpoint_ip,
       e.principal AS actor,
       array_to_string(iam_policy_losses(s.prev_text, s.text), ', ') AS lost
FROM   cloudtrail e
JOIN   iam_documents s
  ON   s.account = e.recipient_account_id
 AND   s.kind = CASE WHEN e.event_name LIKE '%RolePolicy' OR e.event_name = 'CreateRole' THEN 'role'
                     WHEN e.event_name LIKE '%UserPolicy' THEN 'user'
                     WHEN e.event_name LIKE '%GroupPolicy' THEN 'group'
                     WHEN e.event_name LIKE '%BucketPolicy' THEN 'bucket'
                     WHEN e.event_name = 'PutKeyPolicy' THEN 'key'
                     ELSE 'managed' END
 AND   s.owner = CASE WHEN e.event_name LIKE '%RolePolicy' THEN e.raw->'requestParameters'->>'roleName'
                      WHEN e.event_name LIKE '%UserPolicy' THEN e.raw->'requestParameters'->>'userName'
                      WHEN e.event_name LIKE '%GroupPolicy' THEN e.raw->'requestParameters'->>'groupName'
                      WHEN e.event_name LIKE '%BucketPolicy' THEN e.raw->'requestParameters'->>'bucketName'
                      WHEN e.event_name = 'PutKeyPolicy' THEN e.raw->'requestParameters'->>'keyId'
                      ELSE e.raw->'requestParameters'->>'policyArn' END
 AND   s.document = CASE WHEN e.event_name IN ('CreateRole', 'UpdateAssumeRolePolicy') THEN 'trust'
                         WHEN e.event_name LIKE '%RolePolicy' OR e.event_name LIKE '%UserPolicy'
                           OR e.event_name LIKE '%GroupPolicy' THEN e.raw->'requestParameters'->>'policyName'
                         ELSE 'policy' END
 AND   e.time >= s.valid_from AND e.time < s.valid_to
WHERE  e.status = 'Success'
  AND  ((e.event_source = 'iam.amazonaws.com'
         AND e.event_name IN ('UpdateAssumeRolePolicy', 'PutRolePolicy', 'PutUserPolicy', 'PutGroupPolicy',
                              'CreatePolicyVersion'))
     OR (e.event_source = 's3.amazonaws.com' AND e.event_name = 'PutBucketPolicy')
     OR (e.event_source = 'kms.amazonaws.com' AND e.event_name = 'PutKeyPolicy'))
  AND  array_length(iam_policy_losses(s.prev_text, s.text)) > 0
