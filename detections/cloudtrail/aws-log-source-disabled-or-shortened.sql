/*
title: A log was switched off or is kept for a shorter time
severity: high
attack: [T1685.002, T1485.001]
entity: [cloud_account_uid, resource]
summary: "{actor} called {event_name} on {resource} in account {cloud_account_uid}"
triage: |
  1. Switch the log on again; note from when to when it is dark.
  2. What is taken down along with it? With its network, cluster or bucket it is a clean-up, alone it is not.
  3. Treat what the principal did in the last day as suspect, above all in the dark interval: CloudTrail still sees it.
  4. A shortened retention deletes at once what is older: copy what is left.
benign: Environments that are taken down by their pipeline.
references:
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteFlowLogs.html
  - https://docs.aws.amazon.com/eks/latest/userguide/control-plane-logs.html
  - https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html
*/
-- Groups, streams and buckets count when their names say that they hold logs. A life cycle has one Rule or a list.
SELECT cloud_account_uid,
       coalesce(json_as_text(raw, 'requestParameters', 'DeleteFlowLogsRequest', 'FlowLogId', 'content'),
                json_as_text(raw, 'requestParameters', 'DeleteFlowLogsRequest', 'FlowLogId'),
                json_as_text(raw, 'requestParameters', 'resolverQueryLogConfigId'),
                json_as_text(raw, 'requestParameters', 'loadBalancerArn'),
                json_as_text(raw, 'requestParameters', 'loadBalancerName'),
                target_name, target_arn, '(unknown)') AS resource,
       coalesce(user_identity_arn, principal, '(unknown)') AS actor,
       event_source, event_name, src_endpoint_ip
FROM   cloudtrail
WHERE  status = 'Success'
  AND  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  ((event_source = 'ec2.amazonaws.com' AND event_name = 'DeleteFlowLogs')
     OR (event_source = 'route53resolver.amazonaws.com'
         AND event_name IN ('DeleteResolverQueryLogConfig', 'DisassociateResolverQueryLogConfig'))
     OR (event_source = 'eks.amazonaws.com' AND event_name = 'UpdateClusterConfig'
         AND json_get_json(raw, 'requestParameters', 'logging') ~ '"(audit|authenticator)"'
         AND json_get_json(raw, 'requestParameters', 'logging') ~ '"enabled"\s*:\s*"?false')
     OR (event_source = 'logs.amazonaws.com'
         AND (event_name IN ('DeleteLogGroup', 'DeleteLogStream')
           OR (event_name = 'PutRetentionPolicy'
               AND TRY_CAST(json_as_text(raw, 'requestParameters', 'retentionInDays') AS BIGINT) < 30))
         AND target_name ~* '(cloudtrail|trail|audit|flow-?logs?|/aws/eks/|waf|query-?logs?|guardduty)')
     OR (event_source = 's3.amazonaws.com' AND event_name = 'PutBucketLogging'
         AND json_get_json(raw, 'requestParameters', 'BucketLoggingStatus') !~ '"LoggingEnabled"\s*:\s*\{')
     OR (event_source = 's3.amazonaws.com'
         AND event_name IN ('PutBucketLifecycle', 'PutBucketLifecycleConfiguration')
         AND target_name ~* '(trail|audit|(^|[^a-z])(access|flow|elb|waf)?-?logs?([^a-z]|$)|logging)'
         AND json_get_json(raw, 'requestParameters', 'LifecycleConfiguration') ~ '"Status"\s*:\s*"Enabled"'
         AND json_get_json(raw, 'requestParameters', 'LifecycleConfiguration')
             ~ '"Expiration"\s*:\s*\{[^}]*"Days"\s*:\s*"?[12]?[0-9](\.0*)?"?\s*[,}]')
     OR (event_source = 'wafv2.amazonaws.com' AND event_name = 'DeleteLoggingConfiguration')
     OR (event_source = 'elasticloadbalancing.amazonaws.com' AND event_base_name = 'ModifyLoadBalancerAttributes'
         AND json_get_json(raw, 'requestParameters')
             ~ '("key"\s*:\s*"access_logs\.s3\.enabled"\s*,\s*"value"\s*:\s*"?false|"value"\s*:\s*"?false"?\s*,\s*"key"\s*:\s*"access_logs\.s3\.enabled"|"accessLog"\s*:\s*\{[^}]*"enabled"\s*:\s*"?false)')
     OR (event_source = 'rds.amazonaws.com' AND event_name = 'StopActivityStream')
     OR (event_source = 'bedrock.amazonaws.com' AND event_name = 'DeleteModelInvocationLoggingConfiguration'))
