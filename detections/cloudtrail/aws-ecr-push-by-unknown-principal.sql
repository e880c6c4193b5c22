/*
title: Image pushed by someone who never pushed to this repository
severity: high
attack: [T1525, T1195.002, T1204.003]
entity: [cloud_account_uid, repository, principal]
summary: "{principal} pushed {tag} to {repository} of account {cloud_account_uid} for the first time in 30 days"
triage: |
  1. Is this the pipeline under a new role? Its run of that minute has the digest.
  2. A person: which task, and why not by the pipeline? Keep a copy of the image by its digest.
  3. Which pods run this digest or tag? Hold them back at admission until it is known.
benign: An emergency release by hand, a new pipeline.
references:
  - https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_PutImage.html
*/
SELECT cloud_account_uid, principal,
       raw->'requestParameters'->>'repositoryName' AS repository,
       raw->'requestParameters'->>'imageTag' AS tag,
       raw->'responseElements'->'image'->'imageId'->>'imageDigest' AS digest,
       user_identity_arn, src_endpoint_ip
FROM   cloudtrail
WHERE  event_source = 'ecr.amazonaws.com' AND event_name = 'PutImage' AND status = 'Success'
  AND  NOT coalesce(service_call, false)
  AND  first_seen(INTERVAL '30 days', cloud_account_uid, raw->'requestParameters'->>'repositoryName', principal)
