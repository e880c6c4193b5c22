/*
title: Snapshot, image or database copy shared outside the account
severity: high
attack: [T1537]
entity: [cloud_account_uid, resource]
summary: "{actor} called {event_name} on {resource} of account {cloud_account_uid}: {shared_with}"
triage: |
  1. `all` is the whole world: take the share back first, then ask.
  2. Whose account is it? One of the company is registered somewhere; a stranger's may have copied the volume already.
  3. What is on the volume or in the database: secrets, customer data? Rotate and report what was.
  4. Look for snapshots the same principal made shortly before.
benign: Publishing images, copies for a recovery account, exports for analytics.
references:
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifySnapshotAttribute.html
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyImageAttribute.html
  - https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_ModifyDBSnapshotAttribute.html
*/
-- Sharing with one's own account is none: what is left when its number is taken out must name somebody.
SELECT cloud_account_uid,
       coalesce(target_name, target_arn, raw->'requestParameters'->>'sourceArn',
                raw->'requestParameters'->>'dBClusterSnapshotIdentifier', '(unknown)') AS resource,
       coalesce(user_identity_arn, principal, '(unknown)') AS actor,
       event_name, src_endpoint_ip,
       coalesce(added, CASE WHEN raw->'requestParameters'->>'publiclyAccessible' = 'true' THEN 'reachable by anyone'
                            ELSE 'written to a bucket' END) AS shared_with
FROM  (SELECT *, coalesce(raw->'requestParameters'->'createVolumePermission'->>'add',
                          raw->'requestParameters'->'launchPermission'->>'add',
                          raw->'requestParameters'->>'valuesToAdd') AS added
       FROM   cloudtrail
       WHERE  event_source IN ('ec2.amazonaws.com', 'rds.amazonaws.com')
         AND  status = 'Success'
         AND  coalesce(user_identity_type, '') <> 'AWSService'
         AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%')
WHERE (event_name IN ('ModifySnapshotAttribute', 'ModifyImageAttribute', 'ModifyDBSnapshotAttribute',
                      'ModifyDBClusterSnapshotAttribute')
       AND replace(added, coalesce(recipient_account_id, cloud_account_uid), '') ~ '"[0-9]{12}"|"all"|"arn:')
   OR  event_name IN ('StartExportTask', 'CreateStoreImageTask', 'ExportImage', 'CreateInstanceExportTask')
   OR (event_name IN ('CreateDBInstance', 'ModifyDBInstance', 'CreateDBCluster', 'ModifyDBCluster',
                      'CreateDBInstanceReadReplica', 'RestoreDBInstanceFromDBSnapshot', 'RestoreDBInstanceFromS3',
                      'RestoreDBInstanceToPointInTime', 'RestoreDBClusterFromSnapshot')
       AND raw->'requestParameters'->>'publiclyAccessible' = 'true')
