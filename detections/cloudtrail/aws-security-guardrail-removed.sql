/*
title: Security service or guardrail of the organization removed
severity: high
attack: [T1685, T1484]
entity: [cloud_account_uid, event_source, actor]
summary: "{actor} called {event_name} of {event_source} in account {cloud_account_uid} ({outcome})"
triage: |
  1. Switch the service on again, or attach the policy again; findings of the gap are lost.
  2. Is the actor the role that manages security for the whole organization, and is there a change request?
  3. An account that leaves its organization is out of every policy at once: call its owner, also when it was refused.
  4. Look at what the principal did right after, while nothing watched.
benign: The central security account that moves or re-creates a service.
references:
  - https://docs.aws.amazon.com/guardduty/latest/APIReference/API_UpdateDetector.html
  - https://docs.aws.amazon.com/organizations/latest/APIReference/API_LeaveOrganization.html
  - https://docs.aws.amazon.com/config/latest/APIReference/API_StopConfigurationRecorder.html
*/
-- A guardrail's new filters are not always in the record: what is not seen counts as weaker. An address list of GuardDuty that is active is one of trusted addresses: what they do is not told any more.
SELECT cloud_account_uid, event_source,
       coalesce(user_identity_arn, principal, '(unknown)') AS actor,
       event_name, src_endpoint_ip, error_code,
       coalesce(raw->'requestParameters'->>'policyId', target_name, target_arn) AS target,
       CASE WHEN status = 'Success' THEN 'done' ELSE 'refused' END AS outcome
FROM   cloudtrail
WHERE  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  (event_source = 'organizations.amazonaws.com' AND event_name = 'LeaveOrganization'
     OR (status = 'Success'
       AND ((event_source = 'guardduty.amazonaws.com'
             AND (event_name IN ('DeleteDetector', 'DisassociateFromAdministratorAccount',
                                 'DisassociateFromMasterAccount', 'DisassociateMembers', 'DeleteMembers',
                                 'StopMonitoringMembers', 'DeletePublishingDestination')
               OR (event_name = 'UpdateDetector' AND raw->'requestParameters'->>'enable' = 'false')
               OR (event_name IN ('CreateFilter', 'UpdateFilter')
                   AND raw->'requestParameters'->>'action' = 'ARCHIVE')
               OR (event_name IN ('CreateIPSet', 'UpdateIPSet') AND raw->'requestParameters'->>'activate' = 'true')))
         OR (event_source = 'securityhub.amazonaws.com'
             AND (event_name IN ('DisableSecurityHub', 'DisassociateFromAdministratorAccount', 'DeleteMembers')
               OR (event_name = 'BatchUpdateFindings'
                   AND json_get_json(raw, 'requestParameters') ~ '"SUPPRESSED"'
                   AND coalesce(json_length(raw, 'requestParameters', 'FindingIdentifiers'),
                                json_length(raw, 'requestParameters', 'findingIdentifiers')) >= 5)))
         OR (event_source = 'config.amazonaws.com'
             AND event_name IN ('StopConfigurationRecorder', 'DeleteConfigurationRecorder', 'DeleteDeliveryChannel',
                                'DeleteConfigRule', 'DeleteOrganizationConfigRule'))
         OR (event_source = 'macie2.amazonaws.com' AND event_name = 'DisableMacie')
         OR (event_source = 'inspector2.amazonaws.com' AND event_name = 'Disable')
         OR (event_source = 'detective.amazonaws.com' AND event_name = 'DeleteGraph')
         OR (event_source = 'access-analyzer.amazonaws.com' AND event_name = 'DeleteAnalyzer')
         OR (event_source = 'organizations.amazonaws.com'
             AND event_name IN ('DetachPolicy', 'DeletePolicy', 'DisablePolicyType'))
         OR (event_source = 'bedrock.amazonaws.com'
             AND (event_name = 'DeleteGuardrail'
               OR (event_name = 'UpdateGuardrail'
                   AND (json_get_json(raw, 'requestParameters') ~ '"(input|output)Strength"\s*:\s*"(NONE|LOW)"'
                     OR json_get_json(raw, 'requestParameters') !~ '"(input|output)Strength"'))))
         OR (event_source = 'events.amazonaws.com'
             AND event_name IN ('DisableRule', 'DeleteRule', 'RemoveTargets')
             AND coalesce(raw->'requestParameters'->>'name', raw->'requestParameters'->>'rule')
                 ~* '(stakeout|guardduty|security-?hub|cloudtrail|security)'))))
