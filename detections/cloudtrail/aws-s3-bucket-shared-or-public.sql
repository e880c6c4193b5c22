/*
title: Bucket opened to outsiders
severity: high
attack: [T1530, T1537]
entity: [cloud_account_uid, bucket]
summary: "{actor} called {event_name} on bucket {bucket} of account {cloud_account_uid}: {opened}"
triage: |
  1. Is the bucket meant to be public (a web site) or shared (a partner)? Ask its owner, not the actor.
  2. Put the old policy or access list back and switch the public access block on.
  3. What is in it? List reads by others since the change; without data events the server's access log has them.
  4. Replication to a stranger copies all that is written from now on: look at what has gone.
benign: Web sites, buckets for partners, delivery of logs by services and vendors.
references:
  - https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
  - https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html
  - https://docs.aws.amazon.com/AmazonS3/latest/userguide/cloudtrail-logging-s3-info.html
*/
SELECT cloud_account_uid, bucket, actor, event_name, src_endpoint_ip,
       CASE event_name WHEN 'PutBucketPolicy' THEN 'its policy allows anybody or an outside account'
                       WHEN 'PutBucketReplication' THEN 'copied to another account'
                       WHEN 'PutBucketWebsite' THEN 'served as a web site'
                       WHEN 'PutBucketOwnershipControls' THEN 'access lists are back in force'
                       WHEN 'CreateAccessPoint' THEN 'an access point without block'
                       ELSE 'its access list names everybody' END AS opened
FROM  (SELECT *,
              array_to_string(iam_policy_findings(json_get_json(raw, 'requestParameters', 'bucketPolicy'),
                                                  make_array(owner), lookup_list('own_accounts'),
                                                  lookup_list('delivery_accounts')), ' ') AS found
       FROM  (SELECT *, raw->>'requestParameters' AS request,
                     coalesce(recipient_account_id, cloud_account_uid) AS owner,
                     coalesce(target_name, raw->'requestParameters'->'CreateAccessPointRequest'->>'Bucket',
                              raw->'requestParameters'->'CreateAccessPointRequest'->>'bucket', '(unknown)') AS bucket,
                     coalesce(user_identity_arn, principal, '(unknown)') AS actor
              FROM   cloudtrail
              WHERE  event_source IN ('s3.amazonaws.com', 's3express.amazonaws.com') AND status = 'Success'
                AND  coalesce(user_identity_type, '') <> 'AWSService'
                AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'))
WHERE (event_name = 'PutBucketPolicy'
       AND found ~ '(^| )(public|external:|canonical-user)')
   OR (event_name IN ('PutBucketAcl', 'PutObjectAcl', 'CreateBucket', 'PutObject')
       AND (raw->'requestParameters'->>'x-amz-acl' ~ 'public-read|authenticated-read'
         OR request ~ 'acs\.amazonaws\.com\\*/groups\\*/global\\*/(AllUsers|AuthenticatedUsers)'))
   OR (event_name = 'PutBucketReplication' AND replace(request, owner, '') ~ '"Account"\s*:\s*"?[0-9]{12}')
   OR (event_name = 'PutBucketOwnershipControls' AND request ~ '"(BucketOwnerPreferred|ObjectWriter)"')
   OR (event_name = 'CreateAccessPoint'
       AND request ~* '"(BlockPublicAcls|IgnorePublicAcls|BlockPublicPolicy|RestrictPublicBuckets)"\s*:\s*"?false')
   OR event_name = 'PutBucketWebsite'
