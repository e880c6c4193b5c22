/*
title: Encryption, versions, lock or copies of a bucket weakened
severity: medium
attack: [T1685, T1490, T1486]
entity: [cloud_account_uid, bucket]
summary: "{actor} called {event_name} on bucket {bucket} of account {cloud_account_uid}: {lost}"
triage: |
  1. What is in the bucket? Backups, logs and the state of infrastructure make this urgent.
  2. Is it part of a change in code? A person who does this by hand prepares something.
  3. Set it back; look for deletions and for objects written with a foreign key since.
  4. A key of another account: whoever owns it can lock the data away.
benign: Infrastructure that is applied anew and flips values; a bucket that is taken down.
references:
  - https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketVersioning.html
  - https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketEncryption.html
  - https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
*/
-- What a bucket had before is not in the event: a new encryption counts when its key is of another account.
SELECT cloud_account_uid, bucket, actor, event_name, src_endpoint_ip, lost
FROM  (SELECT cloud_account_uid, target_name AS bucket, coalesce(user_identity_arn, principal, '(unknown)') AS actor,
              event_name, src_endpoint_ip,
              CASE WHEN event_name = 'DeleteBucketEncryption' THEN 'its default encryption is gone'
                   WHEN event_name = 'PutBucketEncryption'
                    AND regexp_match(raw->'requestParameters'->>'ServerSideEncryptionConfiguration',
                                     'arn:aws[^:]*:kms:[^:]*:([0-9]{12}):')[1]
                        <> coalesce(recipient_account_id, cloud_account_uid) THEN 'its key is of another account'
                   WHEN event_name = 'PutBucketVersioning'
                    AND raw->'requestParameters'->'VersioningConfiguration'->>'MfaDelete' = 'Disabled'
                       THEN 'deletion needs no second factor'
                   WHEN event_name = 'PutBucketVersioning'
                    AND raw->'requestParameters'->'VersioningConfiguration'->>'Status' = 'Suspended'
                       THEN 'no new versions'
                   WHEN event_name = 'DeleteBucketReplication' THEN 'no copies any more'
                   WHEN event_name IN ('PutObjectLockConfiguration', 'PutBucketObjectLockConfiguration')
                    AND raw->'requestParameters'->'ObjectLockConfiguration'->>'Rule' IS NULL THEN 'no lock by default'
                   END AS lost
       FROM   cloudtrail
       WHERE  event_source = 's3.amazonaws.com' AND status = 'Success')
WHERE  lost IS NOT NULL
