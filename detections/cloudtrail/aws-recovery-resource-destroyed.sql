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
       sum(CASE WHEN event_name IN ('ScheduleKeyDeletion', 'DisableKey', 'DeleteImportedKeyMaterial', 'DeleteBackupVault',
                                    'DeleteBackupVaultLockConfiguration', 'DeleteCluster') THEN 4
                WHEN event_name IN ('DeleteFileSystem', 'DeleteDBInstance', 'DeleteDBCluster',
                                    'DeleteDBInstanceAutomatedBackup', 'DeleteDBClusterAutomatedBackup') THEN 3
                WHEN event_name = 'DeleteSnapshot' THEN 1
                ELSE 2 END) AS weight,
       array_to_string(array_sort(array_agg(DISTINCT event_name)), ', ') AS calls,
       min(time) AS first_seen
FROM   cloudtrail
WHERE  status = 'Success'
  AND  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  coalesce(principal, '') !~ ':role/service-role/AWS(DataLifecycleManagerDefaultRole|BackupDefaultServiceRole)'
  AND  ((event_source = 'kms.amazonaws.com'
         AND event_name IN ('ScheduleKeyDeletion', 'DisableKey', 'DeleteImportedKeyMaterial'))
     OR (event_source = 'backup.amazonaws.com'
         AND event_name IN ('DeleteBackupVault', 'DeleteBackupVaultLockConfiguration', 'DeleteRecoveryPoint'))
     OR (event_source = 'eks.amazonaws.com' AND event_name = 'DeleteCluster')
     OR (event_source = 'elasticfilesystem.amazonaws.com' AND event_name = 'DeleteFileSystem')
     OR (event_source = 'rds.amazonaws.com'
         AND (event_name IN ('DeleteDBInstanceAutomatedBackup', 'DeleteDBClusterAutomatedBackup', 'DeleteDBSnapshot',
                             'DeleteDBClusterSnapshot')
           OR (event_name IN ('DeleteDBInstance', 'DeleteDBCluster')
               AND raw->'requestParameters'->>'skipFinalSnapshot' = 'true')))
     OR (event_source = 'ec2.amazonaws.com'
         AND event_name IN ('DeregisterImage', 'DeleteSnapshot', 'DisableEbsEncryptionByDefault'))
     OR (event_source = 'secretsmanager.amazonaws.com' AND event_name = 'DeleteSecret'
         AND raw->'requestParameters'->>'forceDeleteWithoutRecovery' = 'true'))
GROUP  BY cloud_account_uid, principal
HAVING weight >= CASE WHEN bool_or(user_identity_type IN ('IAMUser', 'Root') OR coalesce(console_session, false)
                                   OR strpos(coalesce(principal, ''), 'AWSReservedSSO_') > 0) THEN 2 ELSE 6 END
