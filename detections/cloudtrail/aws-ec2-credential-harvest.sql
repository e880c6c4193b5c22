/*
title: User data or Windows passwords pulled from many instances
severity: high
attack: [T1552.005, T1552.001, T1555]
window: 10m
every: 1m
entity: [cloud_account_uid, principal]
summary: "{principal} asked for user data or passwords of {targets} instances in ten minutes, {denied} of {calls} calls were denied"
triage: |
  1. Denied or not, the intent is the same; which calls succeeded, and what is in that user data?
  2. Is the principal an inventory or build tool? Those ask for all instances, again and again, from one address.
  3. Take secrets out of user data; change the passwords of the Windows hosts that were asked for.
  4. Look at the principal's calls before and after, and cut its credentials when nobody knows of it.
benign: Inventories of configuration, and Terraform, which reads the user data of what it manages.
references:
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetPasswordData.html
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceAttribute.html
*/
-- A denied call may come without its parameters: then the message names the instance.
SELECT cloud_account_uid, principal,
       count(DISTINCT coalesce(raw->'requestParameters'->>'instanceId',
                               raw->'requestParameters'->'DescribeLaunchTemplateVersionsRequest'->>'LaunchTemplateId',
                               raw->'requestParameters'->'DescribeLaunchTemplateVersionsRequest'->>'LaunchTemplateName',
                               regexp_match(error_message, 'instance/(i-[0-9a-fA-F]+)')[1])) AS targets,
       count(*) AS calls,
       count(*) FILTER (WHERE status = 'Failure') AS denied,
       min(time) AS first_seen
FROM   cloudtrail
WHERE  event_source = 'ec2.amazonaws.com'
  AND  (event_name IN ('GetPasswordData', 'DescribeLaunchTemplateVersions')
     OR (event_name = 'DescribeInstanceAttribute'
         AND coalesce(raw->'requestParameters'->>'attribute', 'userData') = 'userData'))
  AND  NOT coalesce(service_call, false)
GROUP  BY cloud_account_uid, principal
HAVING targets >= 5
