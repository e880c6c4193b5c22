/*
title: Buckets that trails write to
key: [bucket]
doc: >-
  Which trail writes to a bucket, and who said so. A bucket is forgotten when it is deleted; a trail that goes leaves
  its bucket with the logs.
*/
SELECT coalesce(raw->'requestParameters'->>'s3BucketName', raw->'requestParameters'->>'bucketName') AS bucket,
       recipient_account_id AS account,
       raw->'requestParameters'->>'name' AS trail,
       principal AS written_by,
       event_name = 'DeleteBucket' AS deleted
FROM   cloudtrail
WHERE  status = 'Success'
  AND  ((event_source = 'cloudtrail.amazonaws.com' AND event_name IN ('CreateTrail', 'UpdateTrail')
         AND raw->'requestParameters'->>'s3BucketName' IS NOT NULL)
     OR (event_source = 's3.amazonaws.com' AND event_name = 'DeleteBucket'))
