/*
title: Public access block of S3 removed or weakened
severity: high
attack: [T1685, T1530]
entity: [cloud_account_uid, bucket]
summary: "{actor} called {event_name} on {bucket} of account {cloud_account_uid}: off are {off}"
triage: |
  1. Of the whole account, or of a bucket with data of customers: switch it on again before asking.
  2. A policy or an access list that opens the bucket comes next; was there one since?
  3. Is the bucket a web site by intent? Then its code says so.
benign: Public web sites; a bucket that is taken down by its pipeline.
references:
  - https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
  - https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutPublicAccessBlock.html
*/
-- A flag that is missing from a new block is off. A bucket's first block may lack flags as well: what it had is not in
-- the event.
SELECT cloud_account_uid, bucket, actor, event_name, src_endpoint_ip,
       CASE WHEN event_name LIKE 'Delete%' THEN 'all'
            ELSE concat_ws(', ', CASE WHEN acls = 'false' THEN 'BlockPublicAcls' END,
                                 CASE WHEN ignored = 'false' THEN 'IgnorePublicAcls' END,
                                 CASE WHEN policy = 'false' THEN 'BlockPublicPolicy' END,
                                 CASE WHEN restricted = 'false' THEN 'RestrictPublicBuckets' END) END AS off
FROM  (SELECT *, coalesce(block->>'BlockPublicAcls', 'false') AS acls,
              coalesce(block->>'IgnorePublicAcls', 'false') AS ignored,
              coalesce(block->>'BlockPublicPolicy', 'false') AS policy,
              coalesce(block->>'RestrictPublicBuckets', 'false') AS restricted
       FROM  (SELECT *, coalesce(raw->'requestParameters'->>'PublicAccessBlockConfiguration', '{}') AS block,
                     coalesce(target_name, 'the whole account') AS bucket,
                     coalesce(user_identity_arn, principal, '(unknown)') AS actor
              FROM   cloudtrail
              WHERE  event_source = 's3.amazonaws.com' AND status = 'Success'
                AND  event_name IN ('DeleteBucketPublicAccessBlock', 'DeleteAccountPublicAccessBlock',
                                    'PutBucketPublicAccessBlock', 'PutAccountPublicAccessBlock')))
WHERE  event_name LIKE 'Delete%' OR acls = 'false' OR ignored = 'false' OR policy = 'false' OR restricted = 'false'
