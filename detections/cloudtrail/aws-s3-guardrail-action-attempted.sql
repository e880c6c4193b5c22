/*
title: Explicitly denied action on a bucket attempted
severity: medium
attack: [T1485, T1530]
entity: [cloud_account_uid, actor, bucket]
summary: "{actor} tried {event_name} on bucket {bucket} of account {cloud_account_uid}, which is denied explicitly"
triage: |
  1. The guardrail held. Who tried, and is it somebody new on the console or a script?
  2. What else did the same principal try in that hour, and what worked?
  3. Does the denial still stand everywhere? A bucket without it would have been lost.
benign: New people who try the console; a pipeline that takes an old environment down.
references:
  - https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
*/
-- A denial for want of permission says so in other words. The parameters of a denied call may be missing: then the
-- message names the bucket.
SELECT cloud_account_uid,
       coalesce(user_identity_arn, principal, '(unknown)') AS actor,
       coalesce(target_name, regexp_match(error_message, 'arn:aws[^:]*:s3:::([^/" ]+)')[1], '(unknown)') AS bucket,
       event_name, src_endpoint_ip, error_message
FROM   cloudtrail
WHERE  event_source = 's3.amazonaws.com'
  AND  error_code IN ('AccessDenied', 'AccessDeniedException')
  AND  error_message ILIKE '%explicit deny%'
  AND  event_name IN ('DeleteBucket', 'PutBucketAcl', 'PutBucketPolicy', 'DeleteBucketPolicy', 'PutBucketVersioning',
                      'PutBucketPublicAccessBlock', 'DeleteBucketPublicAccessBlock', 'DeleteBucketEncryption',
                      'PutBucketLifecycle', 'DeleteObjectVersion', 'PutObjectLockConfiguration')
