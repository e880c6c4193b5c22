/*
title: Logs of a trail are to expire soon
severity: high
attack: [T1685.002, T1485.001]
entity: [cloud_account_uid, bucket]
summary: "{actor} lets objects of bucket {bucket}, to which trail {trail} writes, expire within 30 days"
triage: |
  1. Take the rule away today: it deletes what is older within a day.
  2. Copy the logs of the last weeks to another account.
  3. Treat what the principal did in the last day as suspect.
benign: Trails of test accounts whose logs are copied elsewhere.
references:
  - https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html
*/
-- The same by a bucket's name is in `aws-log-source-disabled-or-shortened`.
SELECT e.cloud_account_uid, s.bucket, s.trail, e.event_name, e.src_endpoint_ip,
       e.principal AS actor
FROM   cloudtrail e
JOIN   log_buckets s
  ON   s.bucket = e.raw->'requestParameters'->>'bucketName'
 AND   e.time >= s.valid_from AND e.time < s.valid_to
WHERE  e.event_source = 's3.amazonaws.com' AND e.status = 'Success'
  AND  e.event_name IN ('PutBucketLifecycle', 'PutBucketLifecycleConfiguration')
  AND  e.raw->'requestParameters'->>'LifecycleConfiguration' ~ '"Status"\s*:\s*"Enabled"'
  AND  e.raw->'requestParameters'->>'LifecycleConfiguration'
       ~ '"Expiration"\s*:\s*\{[^}]*"Days"\s*:\s*"?[12]?[0-9](\.0*)?"?\s*[,}]'
