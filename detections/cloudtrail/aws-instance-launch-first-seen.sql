/*
title: First instances of a principal in a region
severity: low
attack: [T1578.002, T1535]
entity: [cloud_account_uid, principal, cloud_region]
summary: "{principal} asked for instances ({instance_type}) in {cloud_region} of account {cloud_account_uid} for the first time in 30 days ({status})"
triage: |
  1. Does anything of the company run in this region? An unused one is where guests go.
  2. Was the call refused, and are there more in other regions?
  3. Stop what runs, keep a snapshot, look at where the principal's credentials come from.
benign: A move to another region; a new team.
references:
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
*/
SELECT cloud_account_uid, principal, cloud_region, event_name, src_endpoint_ip, status, error_code,
       raw->'requestParameters'->>'instanceType' AS instance_type
FROM   cloudtrail
WHERE  event_source = 'ec2.amazonaws.com' AND event_name IN ('RunInstances', 'CreateFleet', 'RequestSpotInstances')
  AND  coalesce(error_code, '') <> 'Client.DryRunOperation'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  first_seen(INTERVAL '30 days', cloud_account_uid, principal, cloud_region)
