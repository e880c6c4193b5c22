/*
title: User data of an instance replaced between stop and start
severity: high
attack: [T1059.004, T1578.005, T1037]
window: 20m
every: 2m
entity: [cloud_account_uid, instance]
summary: "{instance} of account {cloud_account_uid} was stopped, got new user data and was started, by {actors}"
triage: |
  1. What the user data says runs as root at the next start: read it (DescribeInstanceAttribute) and compare with the launch template.
  2. Which role has the instance? Treat its credentials as taken since the start; look for their use.
  3. Rebuild the instance from its image, keep a snapshot of the old volume.
  4. How did the actor come by the right to change instances?
benign: Building of images; a repair of a start script by hand.
references:
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html
  - https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html
*/
-- Stop and start name several instances in a list, the change one. CloudTrail hides the user data itself.
SELECT cloud_account_uid, instance,
       min(time) FILTER (WHERE event_name = 'StopInstances') AS stopped,
       max(time) FILTER (WHERE event_name = 'StartInstances') AS started,
       array_to_string(array_sort(array_agg(DISTINCT principal)), ', ') AS actors,
       array_agg(event_uid) AS evidence
FROM  (SELECT cloud_account_uid, time, event_uid, event_name, principal, coalesce(item->>'instanceId', item) AS instance
       FROM  (SELECT cloud_account_uid, time, event_uid, event_name, principal,
                     unnest(coalesce(json_get_array(raw, 'requestParameters', 'instancesSet', 'items'),
                                     make_array(raw->'requestParameters'->>'instanceId'))) AS item
              FROM   cloudtrail
              WHERE  event_source = 'ec2.amazonaws.com' AND status = 'Success'
                AND  (event_name IN ('StopInstances', 'StartInstances')
                   OR (event_name = 'ModifyInstanceAttribute'
                       AND (raw->'requestParameters'->>'userData' IS NOT NULL
                         OR raw->'requestParameters'->>'attribute' = 'userData')))))
GROUP  BY cloud_account_uid, instance
HAVING min(time) FILTER (WHERE event_name = 'StopInstances')
           <= max(time) FILTER (WHERE event_name = 'ModifyInstanceAttribute') + INTERVAL '2 seconds'
   AND min(time) FILTER (WHERE event_name = 'ModifyInstanceAttribute')
           <= max(time) FILTER (WHERE event_name = 'StartInstances') + INTERVAL '2 seconds'
   AND max(time) FILTER (WHERE event_name = 'StartInstances')
           - min(time) FILTER (WHERE event_name = 'StopInstances') <= INTERVAL '15 minutes'
