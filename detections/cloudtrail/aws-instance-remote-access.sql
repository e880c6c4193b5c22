/*
title: Remote commands or logins to instances
severity: medium
attack: [T1651, T1021.004, T1021.008, T1098.004]
window: 10m
every: 1m
entity: [cloud_account_uid, principal]
summary: "{principal} reached for {targets} instances in ten minutes by {calls}"
triage: |
  1. Is the principal an operator on duty or the job that patches? Session Manager is the sanctioned way in.
  2. Which command or session was it? CloudTrail hides the command; Session Manager's own log may have it.
  3. The serial console goes around every network rule: ask at once, and switch it off for the account.
  4. Unknown: end the sessions, take the pushed keys out, treat the instances and their roles as taken.
benign: Patching and inventory by roles of their own, operators during an incident.
references:
  - https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html
  - https://docs.aws.amazon.com/ec2-instance-connect/latest/APIReference/API_SendSerialConsoleSSHPublicKey.html
*/
-- Three targets, or all that match a tag, or any use of the serial console. Documents that only look or patch do not
-- count. Instances are told by their ids, of which a command may have a list.
SELECT cloud_account_uid, principal,
       coalesce(array_length(array_distinct(flatten(array_agg(
           coalesce(json_get_array(raw, 'requestParameters', 'instanceIds'),
                    make_array(coalesce(json_get_json(raw, 'requestParameters', 'target'),
                                        json_get_json(raw, 'requestParameters', 'instanceId')))))
           FILTER (WHERE raw->>'requestParameters' ~ '"(instanceIds|target|instanceId)"')))), 0) AS targets,
       array_to_string(array_sort(array_agg(DISTINCT event_name)), ', ') AS calls,
       min(time) AS first_seen
FROM   cloudtrail
WHERE  status = 'Success'
  AND  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  ((event_source = 'ssm.amazonaws.com'
         AND (event_name IN ('StartSession', 'ResumeSession')
           OR (event_name IN ('SendCommand', 'StartAutomationExecution')
               AND coalesce(raw->'requestParameters'->>'documentName', '')
                   NOT IN ('AWS-RunPatchBaseline', 'AWS-GatherSoftwareInventory', 'AWS-UpdateSSMAgent',
                           'AWS-ApplyPatchBaseline', 'AWS-RunPatchBaselineAssociation', 'AmazonCloudWatch-ManageAgent'))))
     OR (event_source = 'ec2-instance-connect.amazonaws.com'
         AND event_name IN ('SendSSHPublicKey', 'SendSerialConsoleSSHPublicKey'))
     OR (event_source = 'ec2.amazonaws.com' AND event_name IN ('EnableSerialConsoleAccess', 'GetConsoleScreenshot')))
GROUP  BY cloud_account_uid, principal
HAVING targets >= 3
    OR bool_or(event_name IN ('SendSerialConsoleSSHPublicKey', 'EnableSerialConsoleAccess'))
    OR bool_or(event_name = 'SendCommand' AND json_length(raw, 'requestParameters', 'targets') > 0)
