/*
title: Default encryption of buckets
key: [bucket]
doc: >-
  How each bucket encrypts what is put into it, where that was configured: `AES256`, `aws:kms`, with which key.
*/
SELECT raw->'requestParameters'->>'bucketName' AS bucket,
       recipient_account_id AS account,
       raw->'requestParameters'->'ServerSideEncryptionConfiguration'->'Rule'
          ->'ApplyServerSideEncryptionByDefault'->>'SSEAlgorithm' AS algorithm,
       raw->'requestParameters'->'ServerSideEncryptionConfiguration'->'Rule'
          ->'ApplyServerSideEncryptionByDefault'->>'KMSMasterKeyID' AS key_id,
       principal AS written_by,
       event_name <> 'PutBucketEncryption' AS deleted
FROM   cloudtrail
WHERE  event_source = 's3.amazonaws.com' AND status = 'Success'
  AND  event_name IN ('PutBucketEncryption', 'DeleteBucketEncryption', 'DeleteBucket')
