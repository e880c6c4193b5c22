/*
title: Default encryption of a bucket weakened
severity: medium
attack: [T1685, T1486]
entity: [cloud_account_uid, bucket]
summary: "{actor} set the encryption of bucket {bucket} in account {cloud_account_uid} from {old_algorithm} to {algorithm}, key {old_key} to {key}"
triage: |
  1. Is the change in the code of the bucket? With the service's own keys everybody who may read can decrypt.
  2. What was written since has the new encryption: write it anew after setting the old one back.
  3. Another key: whose is it, and who may take it away?
benign: Infrastructure that is applied anew.
references:
  - https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketEncryption.html
*/
SELECT e.cloud_account_uid, s.bucket, s.prev_algorithm AS old_algorithm, s.algorithm, s.prev_key_id AS old_key,
       s.key_id AS key,
       e.principal AS actor, e.src_endpoint_ip
FROM   cloudtrail e
JOIN   bucket_encryption s
  ON   s.bucket = e.raw->'requestParameters'->>'bucketName'
 AND   e.time >= s.valid_from AND e.time < s.valid_to
WHERE  e.event_source = 's3.amazonaws.com' AND e.event_name = 'PutBucketEncryption' AND e.status = 'Success'
  AND  s.prev_algorithm LIKE 'aws:kms%' AND s.algorithm NOT LIKE 'aws:kms%'
