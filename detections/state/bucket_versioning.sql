/*
title: Versioning of buckets
key: [bucket]
doc: >-
  Whether each bucket keeps what is overwritten: `Enabled` or `Suspended`, and whether deleting needs a second factor.
*/
SELECT raw->'requestParameters'->>'bucketName' AS bucket,
       recipient_account_id AS account,
       raw->'requestParameters'->'VersioningConfiguration'->>'Status' AS versioning,
       raw->'requestParameters'->'VersioningConfiguration'->>'MfaDelete' AS mfa_delete,
       principal AS written_by,
       event_name = 'DeleteBucket' AS deleted
FROM   cloudtrail
WHERE  event_source = 's3.amazonaws.com' AND status = 'Success'
  AND  event_name IN ('PutBucketVersioning', 'DeleteBucket')
