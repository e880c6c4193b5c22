/*
title: Two or more kinds of evasion by one principal
severity: critical
attack: [T1685, T1685.002, T1490]
window: 30m
every: 3m
entity: [cloud_account_uid, principal]
summary: "{principal} worked against {kinds} kinds of protection in half an hour ({done} with success): {calls}"
triage: |
  1. Cut the principal's credentials now; ask afterwards.
  2. Restore what watches first: trail, detector, log sources; note the dark interval of each.
  3. List everything the principal did in the last day, and what it made: keys, roles, functions.
  4. Look at what it did after the first of these calls by sources that it did not touch.
benign: An account that is closed down with a change request; take the principal out for that time only.
references:
  - https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
*/
-- A kind is a trail, another log, a guardrail, a second factor or the protection of buckets; each counts once, refused
-- attempts half: two kinds that were done, or one and two refused, or four refused.
SELECT cloud_account_uid, principal,
       count(DISTINCT regexp_replace(regexp_replace(event_source, '^(ec2|route53resolver|wafv2|rds|bedrock)\.', 'log.'),
           '^(guardduty|securityhub|config|macie2|access-analyzer|organizations)\.', 'guardrail.')) AS kinds,
       count(DISTINCT regexp_replace(regexp_replace(event_source, '^(ec2|route53resolver|wafv2|rds|bedrock)\.', 'log.'),
           '^(guardduty|securityhub|config|macie2|access-analyzer|organizations)\.', 'guardrail.'))
           FILTER (WHERE status = 'Success') AS done,
       array_to_string(array_sort(array_agg(DISTINCT event_name)), ', ') AS calls,
       min(time) AS first_seen
FROM   cloudtrail
WHERE  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  ((event_source = 'cloudtrail.amazonaws.com'
         AND event_name IN ('StopLogging', 'DeleteTrail', 'UpdateTrail', 'PutEventSelectors', 'DeleteEventDataStore',
                            'StopEventDataStoreIngestion'))
     OR (event_source = 'ec2.amazonaws.com' AND event_name = 'DeleteFlowLogs')
     OR (event_source = 'route53resolver.amazonaws.com'
         AND event_name IN ('DeleteResolverQueryLogConfig', 'DisassociateResolverQueryLogConfig'))
     OR (event_source = 'wafv2.amazonaws.com' AND event_name = 'DeleteLoggingConfiguration')
     OR (event_source = 'rds.amazonaws.com' AND event_name = 'StopActivityStream')
     OR (event_source = 'bedrock.amazonaws.com' AND event_name = 'DeleteModelInvocationLoggingConfiguration')
     OR (event_source = 'guardduty.amazonaws.com'
         AND event_name IN ('DeleteDetector', 'UpdateDetector', 'DisassociateMembers', 'DeleteMembers',
                            'DisassociateFromAdministratorAccount', 'DisassociateFromMasterAccount',
                            'StopMonitoringMembers'))
     OR (event_source = 'securityhub.amazonaws.com' AND event_name = 'DisableSecurityHub')
     OR (event_source = 'config.amazonaws.com'
         AND event_name IN ('StopConfigurationRecorder', 'DeleteConfigurationRecorder', 'DeleteDeliveryChannel',
                            'DeleteConfigRule'))
     OR (event_source = 'macie2.amazonaws.com' AND event_name = 'DisableMacie')
     OR (event_source = 'access-analyzer.amazonaws.com' AND event_name = 'DeleteAnalyzer')
     OR (event_source = 'organizations.amazonaws.com'
         AND event_name IN ('LeaveOrganization', 'DetachPolicy', 'DeletePolicy'))
     OR (event_source = 'iam.amazonaws.com' AND event_name IN ('DeactivateMFADevice', 'DeleteVirtualMFADevice'))
     OR (event_source = 's3.amazonaws.com'
         AND event_name IN ('DeleteBucketEncryption', 'DeleteBucketReplication', 'DeleteBucketPublicAccessBlock',
                            'DeleteAccountPublicAccessBlock')))
GROUP  BY cloud_account_uid, principal
HAVING kinds >= 2 AND kinds + done >= 4
