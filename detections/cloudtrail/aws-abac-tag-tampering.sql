/*
title: Tags that decide about access changed
severity: medium
attack: [T1098, T1484]
entity: [cloud_account_uid, resource]
summary: "{actor} called {event_name} on {resource} of account {cloud_account_uid}: {tags}"
triage: |
  1. Which policies look at this tag (`aws:ResourceTag`, `aws:PrincipalTag`, `aws:RequestTag`), and what do they give?
  2. Was the actor denied something on this resource shortly before, and did it work shortly after?
  3. Put the old tag back; the inventory or the code has it.
benign: Jobs that govern tags, infrastructure applied from code.
references:
  - https://docs.aws.amazon.com/IAM/latest/UserGuide/introduction_attribute-based-access-control.html
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateTags.html
*/
-- Keys that policies commonly ask for: environment, team, security and the classification of data. Tags of a new
-- instance or volume are given with it and are no change.
SELECT cloud_account_uid, resource, actor, event_source, event_name, src_endpoint_ip, tags
FROM  (SELECT *, coalesce(raw->'requestParameters'->>'tagSet', raw->'requestParameters'->>'tags',
                          raw->'requestParameters'->>'tagKeys', raw->'requestParameters'->>'Tagging',
                          CASE WHEN event_name = 'DeleteBucketTagging' THEN '"key":"environment" (all)' END) AS tags,
              coalesce(raw->'requestParameters'->'resourcesSet'->'items'->0->>'resourceId',
                       raw->'requestParameters'->>'roleArn', target_arn, target_name,
                       raw->'requestParameters'->>'resource', '(unknown)') AS resource,
              coalesce(user_identity_arn, principal, '(unknown)') AS actor
       FROM   cloudtrail
       WHERE  status = 'Success'
         AND  coalesce(user_identity_type, '') <> 'AWSService'
         AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
         AND  ((event_source = 'ec2.amazonaws.com' AND event_name IN ('CreateTags', 'DeleteTags'))
            OR (event_source = 'iam.amazonaws.com'
                AND event_name IN ('TagRole', 'UntagRole', 'TagUser', 'UntagUser', 'TagPolicy', 'UntagPolicy'))
            OR (event_source IN ('secretsmanager.amazonaws.com', 'eks.amazonaws.com', 'lambda.amazonaws.com',
                                 'kms.amazonaws.com', 'rds.amazonaws.com')
                AND event_base_name IN ('TagResource', 'UntagResource', 'AddTagsToResource', 'RemoveTagsFromResource'))
            OR (event_source = 's3.amazonaws.com' AND event_name IN ('PutBucketTagging', 'DeleteBucketTagging'))
            OR (event_source = 'sts.amazonaws.com' AND event_name = 'AssumeRole')))
WHERE  tags ~* '"(environment|env|team|security|data-?classification)"'
