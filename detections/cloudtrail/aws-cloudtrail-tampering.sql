/*
title: CloudTrail stopped, deleted or narrowed
severity: critical
attack: [T1685.002]
entity: [cloud_account_uid, trail]
summary: "{actor} called {event_name} on trail {trail} of account {cloud_account_uid} ({outcome})"
triage: |
  1. Restore logging first; note from when to when nothing was recorded.
  2. Treat everything this principal did in the last day as suspect.
  3. For the dark interval use other sources: S3 access logs, flow logs, provider findings.
benign: A landing-zone role that creates trails anew.
*/
-- Refused attempts count: they tell the intent. Their request parameters are often missing. An update that names
-- a bucket may name the old one; the event does not say.
SELECT cloud_account_uid,
       coalesce(raw->'requestParameters'->>'name', raw->'requestParameters'->>'trailName',
                raw->'requestParameters'->>'eventDataStore', '(unknown)') AS trail,
       coalesce(user_identity_arn, actor_user_name, '(unknown)') AS actor,
       event_name, src_endpoint_ip, error_code,
       CASE WHEN error_code IS NULL THEN 'done' ELSE 'refused' END AS outcome
FROM   cloudtrail
WHERE  event_source = 'cloudtrail.amazonaws.com'
  AND  (event_name IN ('StopLogging', 'DeleteTrail', 'DeleteEventDataStore', 'StopEventDataStoreIngestion')
     OR (event_name = 'UpdateTrail'
         AND (raw->'requestParameters'->>'isMultiRegionTrail' = 'false'
           OR raw->'requestParameters'->>'includeGlobalServiceEvents' = 'false'
           OR raw->'requestParameters'->>'enableLogFileValidation' = 'false'
           OR raw->'requestParameters'->>'s3BucketName' IS NOT NULL))
     OR (event_name = 'PutEventSelectors'
         AND (raw->'requestParameters'->>'eventSelectors' ~ '"includeManagementEvents"\s*:\s*false'
           OR raw->'requestParameters'->>'eventSelectors' ~ '"readWriteType"\s*:\s*"(ReadOnly|WriteOnly)"'
           OR raw->'requestParameters'->>'eventSelectors' ~ '"excludeManagementEventSources"\s*:\s*\[\s*"'
           OR (raw->'requestParameters'->>'advancedEventSelectors' IS NOT NULL
               AND raw->'requestParameters'->>'advancedEventSelectors' NOT LIKE '%Management%'))))
