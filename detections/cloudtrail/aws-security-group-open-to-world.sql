/*
title: Network opened to the world
severity: high
attack: [T1686.001, T1133]
entity: [cloud_account_uid, resource]
summary: "{actor} called {event_name} on {resource} of account {cloud_account_uid}, anywhere may connect: {open}"
triage: |
  1. What uses the group, and was it reachable before? Databases, SSH and cluster endpoints have no business there.
  2. Take exactly this rule away; look in flow logs and logs of the hosts for what came in since.
  3. The same principal: did it start instances or connect to some just after?
benign: A public service on one of these ports, a Git server with SSH for one; a game or voice server's wide range.
references:
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AuthorizeSecurityGroupIngress.html
  - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateNetworkAclEntry.html
*/
-- A call opens one range, its parameters flat, or several in a list: one a line here, those of the world marked with @. A
-- prefix of no length is the world, however its address is written. Of the first range of the world the watched ports
-- are looked for between its ends; of the others when it begins or ends with one, or has all.
SELECT cloud_account_uid, resource, actor, event_name, src_endpoint_ip, open
FROM  (SELECT *,
              TRY_CAST(regexp_match(open, '(?i)"from(?:port)?"\s*:\s*"?(-?[0-9]+)')[1] AS BIGINT) AS low,
              TRY_CAST(regexp_match(open, '(?i)"to(?:port)?"\s*:\s*"?(-?[0-9]+)')[1] AS BIGINT) AS high
       FROM  (SELECT *, regexp_match(marked, '(?m)^@(.*)$')[1] AS open
              FROM  (SELECT *, coalesce(user_identity_arn, principal, '(unknown)') AS actor,
                            coalesce(raw->'requestParameters'->'ModifySecurityGroupRulesRequest'->>'GroupId',
                                     raw->'requestParameters'->>'networkAclId',
                                     raw->'requestParameters'->>'dBSecurityGroupName', target_name, '(unknown)') AS resource,
                            regexp_replace(
                                array_to_string(coalesce(
                                    json_get_array(raw, 'requestParameters', 'ipPermissions', 'items'),
                                    make_array(raw->>'requestParameters')), chr(10)),
                                '(?im)^(.*"(ipv6)?cidr[a-z0-9]*"\s*:\s*"[^"/]*/0+".*)$', '@\1', 'g') AS marked
                     FROM   cloudtrail
                     WHERE  event_source IN ('ec2.amazonaws.com', 'rds.amazonaws.com') AND status = 'Success'
                       AND  coalesce(user_identity_type, '') <> 'AWSService'
                       AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
                       AND  (event_name IN ('AuthorizeSecurityGroupIngress', 'ModifySecurityGroupRules',
                                            'AuthorizeDBSecurityGroupIngress')
                          OR (event_name IN ('CreateNetworkAclEntry', 'ReplaceNetworkAclEntry')
                              AND raw->'requestParameters'->>'egress' = 'false'
                              AND raw->'requestParameters'->>'ruleAction' = 'allow')))))
WHERE (event_name = 'AuthorizeDBSecurityGroupIngress' AND marked ~ '(?m)^@')
   OR  marked ~* '(?m)^@.*"(ip|acl)?protocol"\s*:\s*"?-1[^0-9]'
   OR  marked ~* '(?m)^@.*"(from|to)(port)?"\s*:\s*"?(22|2379|3306|3389|5432|6379|6443|9200|10250)[^0-9]'
   OR  marked ~* '(?m)^@.*"from(port)?"\s*:\s*"?0[^0-9].*"to(port)?"\s*:\s*"?65535[^0-9]'
   OR  22 BETWEEN low AND high OR 2379 BETWEEN low AND high OR 3306 BETWEEN low AND high
   OR  3389 BETWEEN low AND high OR 5432 BETWEEN low AND high OR 6379 BETWEEN low AND high
   OR  6443 BETWEEN low AND high OR 9200 BETWEEN low AND high OR 10250 BETWEEN low AND high
