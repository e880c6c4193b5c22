/*
title: Security group opened to the world and closed again
severity: high
attack: [T1686.001, T1133, T1070]
window: 70m
every: 7m
entity: [cloud_account_uid, security_group]
summary: "{security_group} of account {cloud_account_uid} was open to the world from {opened} to {closed}, by {actors}"
triage: |
  1. Somebody came in or took something out in between: look at flow logs and logs of the hosts for that interval.
  2. Did the same principal start a session, push a key or change instances between the two calls?
  3. A broker of access does this all day, from the same role: list it. A person seldom closes what was opened by mistake.
benign: Brokers of access that open a port for a while; Terraform that replaces a rule.
references:
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RevokeSecurityGroupIngress.html
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AuthorizeSecurityGroupIngress.html
*/
-- Closed is a port that was opened, told by where its range begins; a rule of all protocols has no port. What is closed
-- by the id of its rule stands in the response.
SELECT cloud_account_uid, target_name AS security_group,
       min(time) FILTER (WHERE event_name LIKE 'Authorize%') AS opened,
       max(time) FILTER (WHERE event_name LIKE 'Revoke%') AS closed,
       array_to_string(array_sort(array_agg(DISTINCT principal)), ', ') AS actors
FROM   cloudtrail
WHERE  event_source = 'ec2.amazonaws.com' AND status = 'Success'
  AND  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  ((event_name = 'AuthorizeSecurityGroupIngress'
         AND raw->>'requestParameters' ~* '"cidr[a-z0-9]*"\s*:\s*"[^"/]*/0+"')
     OR event_name = 'RevokeSecurityGroupIngress')
GROUP  BY cloud_account_uid, target_name
HAVING opened <= closed + INTERVAL '2 seconds' AND closed <= opened + INTERVAL '60 minutes'
   AND array_has_any(
           flatten(array_agg(string_to_array(regexp_replace(
               array_to_string(coalesce(json_get_array(raw, 'requestParameters', 'ipPermissions', 'items'),
                                        make_array(raw->>'requestParameters')), chr(10)),
               '(?im)^.*"fromPort"\s*:\s*"?(-?[0-9]+).*$', 'port \1', 'g'), chr(10)))
               FILTER (WHERE event_name LIKE 'Authorize%')),
           flatten(array_agg(string_to_array(regexp_replace(
               array_to_string(coalesce(json_get_array(raw, 'requestParameters', 'ipPermissions', 'items'),
                                        json_get_array(raw, 'responseElements', 'revokedSecurityGroupRuleSet', 'items'),
                                        make_array(raw->>'requestParameters')), chr(10)),
               '(?im)^.*"fromPort"\s*:\s*"?(-?[0-9]+).*$', 'port \1', 'g'), chr(10)))
               FILTER (WHERE event_name LIKE 'Revoke%')))
