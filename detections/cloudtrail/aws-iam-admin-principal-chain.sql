/*
title: Administrator built in minutes
severity: critical
attack: [T1136.003, T1098.003, T1098.001]
window: 15m
every: 90s
entity: [cloud_account_uid, target]
summary: "{target} of account {cloud_account_uid} was made an administrator within a quarter of an hour by {actors}: {calls}"
triage: |
  1. Does the pipeline that builds accounts do this, and is this its run? Otherwise nobody has to.
  2. Freeze both, the one that was built and the one who built it.
  3. What has the new one done since: keys used, console sign-ins, sessions of the role from outside?
  4. How did the builder come by the right to do it? Look at the hours before.
benign: Vending of accounts, emergency access that is set up with its rights.
references:
  - https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies.html
*/
-- It gets an administrator's rights, and it is made, or gets a key, a password or an outside principal who may assume
-- it: in any order, since all of them may bear one second. Policies as in `aws-iam-admin-policy-granted`.
SELECT cloud_account_uid,
       coalesce(raw->'requestParameters'->>'userName', raw->'requestParameters'->>'roleName') AS target,
       array_to_string(array_sort(array_agg(DISTINCT event_name)), ', ') AS calls,
       array_to_string(array_sort(array_agg(DISTINCT principal)), ', ') AS actors,
       min(time) AS first_seen
FROM   cloudtrail
WHERE  event_source = 'iam.amazonaws.com' AND status = 'Success'
  AND  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  (event_name IN ('CreateUser', 'CreateRole', 'CreateAccessKey', 'CreateLoginProfile')
     OR (event_name = 'UpdateAssumeRolePolicy'
         AND replace(regexp_replace(raw->'requestParameters'->>'policyDocument', '\s+', '', 'g'),
                     coalesce(recipient_account_id, cloud_account_uid), 'own')
             ~ '"Principal":("\*"|\{[^}]*("AWS":(\[[^\]]*)?"\*"|arn:aws[^:"]*:(iam|sts)::[0-9]{12}:|"[0-9]{12}"))')
     OR (event_name IN ('AttachUserPolicy', 'AttachRolePolicy')
         AND raw->'requestParameters'->>'policyArn'
             ~ '^arn:aws[^:]*:iam::aws:policy/(AdministratorAccess|PowerUserAccess|IAMFullAccess)$')
     OR (event_name IN ('PutUserPolicy', 'PutRolePolicy')
         AND regexp_replace(
                 array_to_string(coalesce(
                     json_get_array(regexp_replace(raw->'requestParameters'->>'policyDocument', '\s+', '', 'g'),
                                    'Statement'),
                     make_array(json_get_json(regexp_replace(raw->'requestParameters'->>'policyDocument', '\s+', '', 'g'),
                                              'Statement'))), chr(10)),
                 '(?m)^(.*"Effect":"Allow".*"Resource":(\[[^\]]*)?"\*".*|.*"Resource":(\[[^\]]*)?"\*".*"Effect":"Allow".*)$',
                 '@\1', 'g')
             ~ '(?im)^@.*("Action":(\[[^\]]*)?"(\*|\*:\*|iam:\*|iam:Put\*|iam:Attach\*)"|"NotAction":)')
     OR (event_name = 'AddUserToGroup' AND raw->'requestParameters'->>'groupName' ~* 'admin|poweruser'))
GROUP  BY cloud_account_uid, coalesce(raw->'requestParameters'->>'userName', raw->'requestParameters'->>'roleName')
HAVING bool_or(event_name ~ '^(Attach|Put|Add)') AND bool_or(event_name ~ '^(Create|Update)')
