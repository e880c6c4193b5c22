/*
title: Costly or many instances asked for
severity: medium
attack: [T1578.002, T1496.001, T1535]
entity: [cloud_account_uid, principal, cloud_region]
summary: "{principal} asked for {wanted} in {cloud_region} of account {cloud_account_uid} ({outcome})"
triage: |
  1. Does the principal run machine learning or a fleet? In this region?
  2. Refused or over quota is no comfort: the same is tried in other regions next; were some switched on?
  3. Look at the user data and the image; stop what runs, keep a snapshot of one volume.
  4. Where did the principal's credentials come from, and what else did they do?
benign: Teams that train models, load tests, autoscaling by roles of one's own.
references:
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
  - https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html
*/
-- Families with graphics cards or accelerators: p, g, trn, inf, dl, vt with a number. Ten instances at once are many.
SELECT cloud_account_uid, principal, cloud_region, event_name, src_endpoint_ip, error_code, family, count_max,
       concat_ws(' ', count_max, 'x', coalesce(instance_type, 'instances')) AS wanted,
       CASE WHEN status = 'Success' THEN 'done' ELSE 'refused' END AS outcome
FROM  (SELECT *, regexp_match(instance_type, '^(?:ml\.)?(p|g|trn|inf|dl|vt)[0-9]')[1] AS family
       FROM  (SELECT *,
                     coalesce(json_as_text(raw, 'requestParameters', 'instanceType'),
                              json_as_text(raw, 'requestParameters', 'launchSpecification', 'instanceType'),
                              json_as_text(raw, 'requestParameters', 'resourceConfig', 'instanceType'),
                              regexp_match(json_as_text(raw, 'requestParameters', 'CreateFleetRequest'),
                                           '"InstanceType"\s*:\s*"([^"]+)"')[1]) AS instance_type,
                     coalesce(TRY_CAST(json_as_text(raw, 'requestParameters', 'instancesSet', 'items', 0, 'maxCount')
                                       AS BIGINT),
                              TRY_CAST(json_as_text(raw, 'requestParameters', 'instanceCount') AS BIGINT),
                              TRY_CAST(json_as_text(raw, 'requestParameters', 'resourceConfig', 'instanceCount')
                                       AS BIGINT),
                              TRY_CAST(json_as_text(raw, 'requestParameters', 'CreateFleetRequest',
                                       'TargetCapacitySpecification', 'TotalTargetCapacity') AS BIGINT), 1) AS count_max
              FROM   cloudtrail
              WHERE ((event_source = 'ec2.amazonaws.com'
                      AND event_name IN ('RunInstances', 'CreateFleet', 'RequestSpotInstances'))
                  OR (event_source = 'sagemaker.amazonaws.com' AND event_name = 'CreateTrainingJob'))
                AND  coalesce(error_code, '') <> 'Client.DryRunOperation'
                AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'))
WHERE  family IS NOT NULL OR count_max >= 10
