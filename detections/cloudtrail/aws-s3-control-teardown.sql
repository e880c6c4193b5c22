/*
title: Several protections of one bucket removed together
severity: critical
attack: [T1490, T1685, T1486]
window: 1h
every: 6m
entity: [cloud_account_uid, bucket]
summary: "{controls} protections of bucket {bucket} in account {cloud_account_uid} were weakened within an hour by {actors}: {calls}"
triage: |
  1. Stop the writer: deny the principal on the bucket, cut its sessions. Deletion or encryption comes next.
  2. Switch versioning, the public access block and the bucket's encryption on again, from the last known settings.
  3. Was the bucket emptied and deleted by its pipeline? Then the pipeline's run says so.
  4. List object versions and delete markers since; copy what is left of logs and backups elsewhere.
benign: A bucket that is taken down with its environment; DeleteBucket follows within minutes.
references:
  - https://docs.aws.amazon.com/AmazonS3/latest/userguide/cloudtrail-logging-s3-info.html
  - https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
*/
-- What would not weaken (versions switched on, a log switched on) is sorted out in the WHERE, so that the call's name is
-- the protection; deletion with a second factor and versions share one.
SELECT cloud_account_uid, target_name AS bucket,
       count(DISTINCT CASE WHEN event_name LIKE '%PublicAccessBlock' THEN 'public access block'
                           WHEN raw->'requestParameters'->'VersioningConfiguration'->>'MfaDelete' = 'Disabled'
                               THEN 'deletion with a factor'
                           ELSE event_name END) AS controls,
       array_to_string(array_sort(array_agg(DISTINCT event_name)), ', ') AS calls,
       array_to_string(array_sort(array_agg(DISTINCT principal)), ', ') AS actors
FROM   cloudtrail
WHERE  event_source = 's3.amazonaws.com' AND status = 'Success'
  AND  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  (event_name IN ('DeleteBucketPublicAccessBlock', 'DeleteBucketEncryption', 'DeleteBucketReplication',
                       'DeleteBucketPolicy')
     OR (event_name = 'PutBucketPublicAccessBlock'
         AND raw->'requestParameters'->>'PublicAccessBlockConfiguration' ~ ':\s*"?false')
     OR (event_name = 'PutBucketVersioning'
         AND (raw->'requestParameters'->'VersioningConfiguration'->>'Status' = 'Suspended'
           OR raw->'requestParameters'->'VersioningConfiguration'->>'MfaDelete' = 'Disabled'))
     OR (event_name = 'PutBucketLogging'
         AND raw->'requestParameters'->>'BucketLoggingStatus' !~ '"LoggingEnabled"\s*:\s*\{')
     OR (event_name = 'PutObjectLockConfiguration'
         AND raw->'requestParameters'->'ObjectLockConfiguration'->>'Rule' IS NULL))
GROUP  BY cloud_account_uid, target_name
HAVING controls >= 2
