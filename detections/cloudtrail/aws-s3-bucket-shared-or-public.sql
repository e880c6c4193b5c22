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
