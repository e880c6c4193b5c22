/*
title: Objects deleted or encrypted in bulk, or a ransom note
severity: critical
attack: [T1485, T1486, T1490]
window: 10m
every: 1m
entity: [cloud_account_uid, bucket, principal]
summary: "{principal} in bucket {bucket}: {deletions} deletions, {batches} batches of them, {encrypted} objects encrypted with a foreign key, {notes} notes in ten minutes"
triage: |
  1. Stop the writer now: deny the principal on the bucket, cut its sessions.
  2. Switch versioning on if it is not; list versions and delete markers of the last hour, restore from them.
  3. Keep the note, answer nothing. Copy what is left to another account.
  4. How did the principal come by its rights? Look for secrets read and keys made in the day before.
benign: A job that empties prefixes. Expiry by a life cycle is no call and does not show. A file `README` is a note only next to deletions.
references:
  - https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
  - https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerSideEncryptionCustomerKeys.html
  - https://docs.aws.amazon.com/AmazonS3/latest/userguide/cloudtrail-logging-s3-info.html
*/
-- Needs data events of S3. One batch removes up to 1,000 keys and lists none of them. Foreign keys are those that the
-- caller brings along, and keys of another account.
SELECT cloud_account_uid, target_name AS bucket, principal,
       count(*) FILTER (WHERE event_name IN ('DeleteObject', 'DeleteObjectVersion')) AS deletions,
       count(*) FILTER (WHERE event_name = 'DeleteObjects') AS batches,
       count(DISTINCT object_key) FILTER (
           WHERE raw->'requestParameters'->>'x-amz-server-side-encryption-customer-algorithm' IS NOT NULL
              OR regexp_match(raw->'requestParameters'->>'x-amz-server-side-encryption-aws-kms-key-id',
                              '^\[?"?arn:aws[^:]*:kms:[^:]*:([0-9]{12}):')[1]
                 <> coalesce(recipient_account_id, cloud_account_uid)) AS encrypted,
       count(*) FILTER (
           WHERE event_name = 'PutObject'
             AND object_key ~* '(^|/)[^/]*(ransom|decrypt|recover|restore|read_?me|how[-_ ]?to|your[-_ ]files|deleted)[^/]*$'
       ) AS notes
FROM   cloudtrail
WHERE  event_source = 's3.amazonaws.com' AND status = 'Success'
  AND  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  (event_name IN ('DeleteObject', 'DeleteObjectVersion', 'DeleteObjects')
     OR (event_name = 'PutObject'
         AND object_key ~* '(^|/)[^/]*(ransom|decrypt|recover|restore|read_?me|how[-_ ]?to|your[-_ ]files|deleted)[^/]*$')
     OR (event_name IN ('PutObject', 'CopyObject')
         AND (raw->'requestParameters'->>'x-amz-server-side-encryption-customer-algorithm' IS NOT NULL
           OR regexp_match(raw->'requestParameters'->>'x-amz-server-side-encryption-aws-kms-key-id',
                           '^\[?"?arn:aws[^:]*:kms:[^:]*:([0-9]{12}):')[1]
              <> coalesce(recipient_account_id, cloud_account_uid))))
GROUP  BY cloud_account_uid, target_name, principal
HAVING deletions >= 30 OR batches >= 2 OR encrypted >= 20
    OR (notes > 0 AND (batches > 0 OR deletions >= 10 OR encrypted >= 5))
