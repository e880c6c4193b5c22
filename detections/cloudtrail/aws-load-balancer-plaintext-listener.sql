/*
title: Listener without encryption, or with an outdated one
severity: medium
attack: [T1557, T1040]
entity: [cloud_account_uid, load_balancer]
summary: "{actor} called {event_name} on {load_balancer} of account {cloud_account_uid}: {protocol} {tls_policy}"
triage: |
  1. What is served there? Sessions and passwords in clear text can be read and changed on the way.
  2. Make the listener redirect to HTTPS, or choose a policy of TLS 1.2 and later.
  3. A listener that was HTTPS yesterday: who changed it, and where do its targets lead now?
benign: Load balancers inside a network whose traffic a mesh encrypts.
references:
  - https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateListener.html
  - https://docs.aws.amazon.com/elasticloadbalancing/latest/application/describe-ssl-policies.html
  - https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/using-https-viewers-to-cloudfront.html
*/
-- The only default action that keeps an HTTP listener harmless is to send everybody to HTTPS.
SELECT cloud_account_uid,
       coalesce(raw->'requestParameters'->>'loadBalancerArn', raw->'requestParameters'->>'listenerArn',
                raw->'requestParameters'->>'id', raw->'responseElements'->'distribution'->>'id', '(unknown)')
           AS load_balancer,
       coalesce(user_identity_arn, principal, '(unknown)') AS actor,
       event_name, src_endpoint_ip,
       coalesce(raw->'requestParameters'->>'protocol', '-') AS protocol,
       coalesce(raw->'requestParameters'->>'sslPolicy', '-') AS tls_policy
FROM   cloudtrail
WHERE  status = 'Success'
  AND  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  ((event_source = 'elasticloadbalancing.amazonaws.com'
         AND event_base_name IN ('CreateListener', 'ModifyListener')
         AND ((raw->'requestParameters'->>'protocol' = 'HTTP'
               AND NOT (coalesce(json_length(raw, 'requestParameters', 'defaultActions'), 0) = 1
                        AND coalesce(json_as_text(raw, 'requestParameters', 'defaultActions', 0, 'redirectConfig',
                                                  'protocol'), '') = 'HTTPS'))
           OR raw->'requestParameters'->>'sslPolicy'
              ~ '^ELBSecurityPolicy-(2015-|2016-08|TLS-1-[01]-|TLS13-1-[01]-|FS-2018-06|FS-1-1-)'))
     OR (event_source = 'cloudfront.amazonaws.com'
         AND event_base_name IN ('CreateDistribution', 'CreateDistributionWithTags', 'UpdateDistribution')
         AND json_get_json(raw, 'requestParameters') ~ '"viewerProtocolPolicy"\s*:\s*"allow-all"'))
