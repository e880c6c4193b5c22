/*
title: Backups, images or keys destroyed
severity: high
attack: [T1490, T1485]
window: 30m
every: 3m
entity: [cloud_account_uid, principal]
summary: "{principal} destroyed means of recovery in account {cloud_account_uid}, weight {weight} in half an hour: {calls}"
triage: |
  1. Keys to be deleted can be kept: cancel the deletion, enable the key. The rest is gone for good, except secrets.
  2. Is this a job of retention or the end of an environment? Ask its owner; compare with the same job of last week.
  3. What is left of each kind? Take copies to another account before asking further.
  4. Unknown: cut the principal now; deletion of the data itself comes next.
benign: Retention of snapshots and images by one's own job; environments that are taken down.
references:
  - https://docs.aws.amazon.com/kms/latest/APIReference/API_ScheduleKeyDeletion.html
  - https://docs.aws.amazon.com/aws-backup/latest/devguide/API_DeleteRecoveryPoint.html
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeregisterImage.html
*/
-- Weights say how much of a recovery each call takes. A person needs 2, a role that works by itself 6.
SELECT cloud_account_uid, principal,
       sum(loss) AS weight,
       array_to_string(array_sort(array_agg(DISTINCT event_name)), ', ') AS calls,
       min(time) AS first_seen,
       array_agg(event_uid) AS evidence
FROM  (SELECT cloud_account_uid, principal, event_name, event_uid, time,
              user_identity_type IN ('IAMUser', 'Root') OR coalesce(console_session, false)
                OR strpos(coalesce(principal, ''), 'AWSReservedSSO_') > 0 AS person,
              CASE WHEN event_source = 'kms.amazonaws.com'
                    AND event_name IN ('ScheduleKeyDeletion', 'DisableKey', 'DeleteImportedKeyMaterial') THEN 4
                   WHEN event_source = 'backup.amazonaws.com'
                    AND event_name IN ('DeleteBackupVault', 'DeleteBackupVaultLockConfiguration') THEN 4
                   WHEN event_source = 'eks.amazonaws.com' AND event_name = 'DeleteCluster' THEN 4
                   WHEN event_source = 'elasticfilesystem.amazonaws.com' AND event_name = 'DeleteFileSystem' THEN 3
                   WHEN event_source = 'rds.amazonaws.com'
                    AND event_name IN ('DeleteDBInstanceAutomatedBackup', 'DeleteDBClusterAutomatedBackup') THEN 3
                   WHEN event_source = 'rds.amazonaws.com' AND event_name IN ('DeleteDBInstance', 'DeleteDBCluster')
                    AND raw->'requestParameters'->>'skipFinalSnapshot' = 'true' THEN 3
                   WHEN event_source = 'rds.amazonaws.com'
                    AND event_name IN ('DeleteDBSnapshot', 'DeleteDBClusterSnapshot') THEN 2
                   WHEN event_source = 'backup.amazonaws.com' AND event_name = 'DeleteRecoveryPoint' THEN 2
                   WHEN event_source = 'ec2.amazonaws.com'
                    AND event_name IN ('DeregisterImage', 'DisableEbsEncryptionByDefault') THEN 2
                   WHEN event_source = 'secretsmanager.amazonaws.com' AND event_name = 'DeleteSecret'
                    AND raw->'requestParameters'->>'forceDeleteWithoutRecovery' = 'true' THEN 2
                   WHEN event_source = 'ec2.amazonaws.com' AND event_name = 'DeleteSnapshot' THEN 1 END AS loss
       FROM   cloudtrail
       WHERE  event_source IN ('kms.amazonaws.com', 'backup.amazonaws.com', 'eks.amazonaws.com', 'rds.amazonaws.com',
                               'elasticfilesystem.amazonaws.com', 'ec2.amazonaws.com', 'secretsmanager.amazonaws.com')
         AND  event_name ~ '^(Delete|Deregister|Disable|ScheduleKeyDeletion)'
         AND  status = 'Success' AND NOT coalesce(service_call, false)
         AND  coalesce(principal, '') !~ '/(AWSDataLifecycleManager|AWSServiceRoleFor|AWSBackup)')
WHERE  loss IS NOT NULL
GROUP  BY cloud_account_uid, principal
HAVING sum(loss) >= CASE WHEN bool_or(person) THEN 2 ELSE 6 END
