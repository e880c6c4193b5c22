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
SELECT cloud_account_uid, bucket, principal,
       count(*) FILTER (WHERE what = 'deletion') AS deletions,
       count(*) FILTER (WHERE what = 'batch') AS batches,
       count(DISTINCT object_key) FILTER (WHERE what = 'encryption') AS encrypted,
       count(*) FILTER (WHERE note) AS notes,
       array_agg(event_uid) AS evidence
FROM  (SELECT cloud_account_uid, target_name AS bucket, principal, object_key, event_uid,
              event_name = 'PutObject'
                AND object_key ~* '(^|/)[^/]*(ransom|decrypt|recover|restore|read_?me|how[-_ ]?to|your[-_ ]files|deleted)[^/]*$'
                  AS note,
              CASE WHEN event_name IN ('DeleteObject', 'DeleteObjectVersion') THEN 'deletion'
                   WHEN event_name = 'DeleteObjects' THEN 'batch'
                   WHEN raw->'requestParameters'->>'x-amz-server-side-encryption-customer-algorithm' IS NOT NULL
                     OR regexp_match(raw->'requestParameters'->>'x-amz-server-side-encryption-aws-kms-key-id',
                                     '^\[?"?arn:aws[^:]*:kms:[^:]*:([0-9]{12}):')[1]
                        <> coalesce(recipient_account_id, cloud_account_uid) THEN 'encryption' END AS what
       FROM   cloudtrail
       WHERE  event_source = 's3.amazonaws.com' AND status = 'Success'
         AND  event_name IN ('DeleteObject', 'DeleteObjectVersion', 'DeleteObjects', 'PutObject', 'CopyObject')
         AND  NOT coalesce(service_call, false))
WHERE  note OR what IS NOT NULL
GROUP  BY cloud_account_uid, bucket, principal
HAVING count(*) FILTER (WHERE what = 'deletion') >= 30
    OR count(*) FILTER (WHERE what = 'batch') >= 2
    OR count(DISTINCT object_key) FILTER (WHERE what = 'encryption') >= 20
    OR (count(*) FILTER (WHERE note) > 0
        AND (count(*) FILTER (WHERE what = 'batch') > 0
          OR count(*) FILTER (WHERE what = 'deletion') >= 10
          OR count(DISTINCT object_key) FILTER (WHERE what = 'encryption') >= 5))
