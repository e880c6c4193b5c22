/*
title: Protection of an image repository weakened
severity: medium
attack: [T1525, T1195.002, T1204.003]
entity: [cloud_account_uid, repository]
summary: "{actor} called {event_name} on {repository} of account {cloud_account_uid}"
triage: |
  1. A policy for anybody or an outside account: who could push? Compare digests of running images with the builds.
  2. Tags that may be moved: list pushes since, and pin what runs by digest.
  3. Scanning off, images or a profile of signatures gone: what was pushed or hidden at that time?
  4. Put the setting back; it is managed as code in most places.
benign: Sandboxes, cleaning up of old images by a job of one's own.
references:
  - https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_SetRepositoryPolicy.html
  - https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_PutImageTagMutability.html
*/
SELECT cloud_account_uid,
       coalesce(raw->'requestParameters'->>'repositoryName', raw->'requestParameters'->>'ecrRepositoryPrefix',
                raw->'requestParameters'->>'profileName', 'registry') AS repository,
       coalesce(user_identity_arn, principal, '(unknown)') AS actor, event_name, src_endpoint_ip
FROM   cloudtrail
WHERE  status = 'Success'
  AND  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  ((event_source = 'ecr.amazonaws.com'
         AND (event_name IN ('CreatePullThroughCacheRule', 'DeleteLifecyclePolicy')
           OR (event_name IN ('SetRepositoryPolicy', 'PutRegistryPolicy')
               AND array_to_string(iam_policy_findings(raw->'requestParameters'->>'policyText',
                       make_array(coalesce(recipient_account_id, cloud_account_uid)), lookup_list('own_accounts')), ' ')
                   ~ '(^| )(public|external:)')
           OR (event_name = 'PutImageTagMutability' AND raw->'requestParameters'->>'imageTagMutability' = 'MUTABLE')
           OR (event_name = 'PutImageScanningConfiguration'
               AND raw->'requestParameters'->'imageScanningConfiguration'->>'scanOnPush' = 'false')
           OR (event_name = 'PutRegistryScanningConfiguration' AND raw->'requestParameters'->>'scanType' = 'BASIC')
           OR (event_name = 'BatchDeleteImage' AND json_length(raw, 'requestParameters', 'imageIds') >= 5)
           OR (event_name = 'DeleteRepository' AND raw->'requestParameters'->>'force' = 'true')))
     OR (event_source = 'signer.amazonaws.com'
         AND event_name IN ('RevokeSignature', 'CancelSigningProfile', 'RevokeSigningProfile')))
