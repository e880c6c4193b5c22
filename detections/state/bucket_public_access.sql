/*
title: Public access blocks of buckets
key: [bucket]
doc: >-
  What each bucket blocks, `true` or `false` as text. A bucket whose block was taken away, and one that was deleted, has
  none.
*/
SELECT raw->'requestParameters'->>'bucketName' AS bucket,
       recipient_account_id AS account,
       raw->'requestParameters'->'PublicAccessBlockConfiguration'->>'BlockPublicAcls' AS block_public_acls,
       raw->'requestParameters'->'PublicAccessBlockConfiguration'->>'IgnorePublicAcls' AS ignore_public_acls,
       raw->'requestParameters'->'PublicAccessBlockConfiguration'->>'BlockPublicPolicy' AS block_public_policy,
       raw->'requestParameters'->'PublicAccessBlockConfiguration'->>'RestrictPublicBuckets' AS restrict_public_buckets,
       principal AS written_by,
       event_name <> 'PutBucketPublicAccessBlock' AS deleted
FROM   cloudtrail
WHERE  event_source = 's3.amazonaws.com' AND status = 'Success'
  AND  event_name IN ('PutBucketPublicAccessBlock', 'DeleteBucketPublicAccessBlock', 'DeleteBucket')
