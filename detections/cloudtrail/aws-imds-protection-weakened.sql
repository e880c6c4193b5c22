/*
title: Instance metadata service opened
severity: high
attack: [T1552.005, T1578.005]
entity: [cloud_account_uid, resource]
summary: "{actor} called {event_name} on {resource} of account {cloud_account_uid}: tokens {tokens}, hop limit {hop_limit}"
triage: |
  1. Without tokens a request forged on the host reads the role's credentials; with more than one hop a container does.
  2. What role does the instance have, and does it serve requests from outside?
  3. Set `HttpTokens=required` and a hop limit of 1 again, unless pods of a cluster need the node's role (they should not).
  4. Look for use of the role's session from elsewhere since the change.
benign: Node groups whose pods still use the node's credentials and need two hops.
references:
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceMetadataOptions.html
  - https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
*/
-- CloudTrail writes the parameters of newer calls of EC2 under the request's name and in capitals, those of older ones
-- flat. `#>>` is null where a step is missing, so that each call has one of the forms.
SELECT cloud_account_uid, resource, actor, event_name, src_endpoint_ip, tokens, hop_limit, endpoint
FROM  (SELECT cloud_account_uid, event_name, src_endpoint_ip,
              coalesce(user_identity_arn, principal, '(unknown)') AS actor,
              coalesce(request->>'InstanceId', request->>'LaunchTemplateName', request->>'LaunchTemplateId',
                       target_name, raw #>> array['responseElements', 'instancesSet', 'items', '0', 'instanceId'],
                       cloud_region) AS resource,
              coalesce(options->>'HttpTokens', options->>'httpTokens') AS tokens,
              coalesce(options->>'HttpPutResponseHopLimit', options->>'httpPutResponseHopLimit') AS hop_limit,
              coalesce(options->>'HttpEndpoint', options->>'httpEndpoint') AS endpoint
       FROM  (SELECT *, coalesce(request->'LaunchTemplateData'->>'MetadataOptions',
                                 raw->'requestParameters'->>'metadataOptions', request) AS options
              FROM  (SELECT *, coalesce(raw->'requestParameters'->>concat(event_name, 'Request'),
                                        raw->>'requestParameters') AS request
                     FROM   cloudtrail
                     WHERE  event_source = 'ec2.amazonaws.com' AND status = 'Success'
                       AND  event_name IN ('ModifyInstanceMetadataOptions', 'ModifyInstanceMetadataDefaults',
                                           'RunInstances', 'CreateLaunchTemplate', 'CreateLaunchTemplateVersion')
                       AND  coalesce(user_identity_type, '') <> 'AWSService'
                       AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%')))
WHERE  tokens = 'optional'
   OR  TRY_CAST(hop_limit AS BIGINT) > 1
   OR  (event_name = 'ModifyInstanceMetadataOptions' AND endpoint = 'enabled' AND tokens IS NULL)
