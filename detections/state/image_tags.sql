/*
title: Tags of images
key: [account, region, repository, tag]
doc: >-
  Which digest each tag of a registry of AWS names, and who pushed it. Deletions name several images at once and end
  none.
*/
SELECT coalesce(raw->'requestParameters'->>'registryId', recipient_account_id) AS account,
       cloud_region AS region,
       raw->'requestParameters'->>'repositoryName' AS repository,
       coalesce(raw->'requestParameters'->>'imageTag',
                raw->'responseElements'->'image'->'imageId'->>'imageTag') AS tag,
       raw->'responseElements'->'image'->'imageId'->>'imageDigest' AS digest,
       principal AS pushed_by,
       user_identity_arn AS pushed_by_arn
FROM   cloudtrail
WHERE  event_source = 'ecr.amazonaws.com' AND event_name = 'PutImage' AND status = 'Success'
