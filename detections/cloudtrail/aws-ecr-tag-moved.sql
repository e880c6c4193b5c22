/*
title: A tag names another image now
severity: medium
attack: [T1525, T1195.002]
entity: [cloud_account_uid, repository, tag]
summary: "{actor} moved tag {tag} of {repository} in account {cloud_account_uid} from {old_digest} to {digest}"
triage: |
  1. Tags like `latest` move by intent; one of a release never does. Which is it?
  2. Compare the digest with what the pipeline built at that minute.
  3. Which pods were started by this tag since? They run the new image.
benign: Moving tags of branches and environments.
references:
  - https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-tag-mutability.html
*/
SELECT e.cloud_account_uid, s.repository, s.tag, s.prev_digest AS old_digest, s.digest, s.prev_pushed_by AS old_pushed_by,
       e.principal AS actor, e.src_endpoint_ip
FROM   cloudtrail e
JOIN   image_tags s
  ON   s.account = CASE WHEN e.raw->'requestParameters'->>'registryId' IS NOT NULL
                        THEN e.raw->'requestParameters'->>'registryId' ELSE e.recipient_account_id END
 AND   s.region = e.cloud_region
 AND   s.repository = e.raw->'requestParameters'->>'repositoryName'
 AND   s.tag = CASE WHEN e.raw->'requestParameters'->>'imageTag' IS NOT NULL
                    THEN e.raw->'requestParameters'->>'imageTag'
                    ELSE e.raw->'responseElements'->'image'->'imageId'->>'imageTag' END
 AND   e.time >= s.valid_from AND e.time < s.valid_to
WHERE  e.event_source = 'ecr.amazonaws.com' AND e.event_name = 'PutImage' AND e.status = 'Success'
  AND  s.prev_digest <> s.digest
  AND  s.tag NOT IN ('latest', 'main', 'master', 'dev', 'staging', 'edge', 'nightly')
