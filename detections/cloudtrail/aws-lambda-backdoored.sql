/*
title: Function exposed, or changed by a person
severity: high
attack: [T1648, T1525, T1098]
entity: [cloud_account_uid, function]
summary: "{actor} called {event_name} on function {function} of account {cloud_account_uid}: {what}"
triage: |
  1. Who may call the function now, and what does its role reach? Take the statement or the address away first.
  2. Code that was not built by the pipeline: compare its hash with the last release, point the alias back.
  3. A layer of a stranger runs with the function's role and sees its secrets: remove it, rotate them.
  4. Look at what the function's role did since.
benign: Development by hand in an account made for it; public web hooks.
references:
  - https://docs.aws.amazon.com/lambda/latest/api/API_AddPermission.html
  - https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionCode.html
  - https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
*/
-- Functions go by name or by ARN; both end with the name. Permission for anybody is none where the source, its account
-- or the organization is given. People are users, root, federated users and roles of Identity Center.
SELECT cloud_account_uid, function, actor, event_name, src_endpoint_ip, what
FROM  (SELECT *,
              CASE WHEN event_base_name IN ('AddPermission', 'AddLayerVersionPermission')
                    AND raw->'requestParameters'->>'sourceArn' IS NULL
                    AND raw->'requestParameters'->>'sourceAccount' IS NULL
                    AND raw->'requestParameters'->>'principalOrgID' IS NULL
                    AND raw->'requestParameters'->>'organizationId' IS NULL
                    AND replace(raw->'requestParameters'->>'principal', owner, '') ~ '^\*$|[0-9]{12}'
                       THEN 'callable by anybody or another account'
                   WHEN event_base_name IN ('CreateFunctionUrlConfig', 'UpdateFunctionUrlConfig')
                    AND raw->'requestParameters'->>'authType' = 'NONE' THEN 'reachable by anybody'
                   WHEN event_base_name = 'UpdateFunctionConfiguration'
                    AND replace(raw->'requestParameters'->>'layers', owner, '') ~ ':lambda:[^:"]*:[0-9]{12}:layer'
                       THEN 'a layer of another account'
                   WHEN person AND event_base_name = 'UpdateFunctionCode'
                    AND coalesce(raw->'requestParameters'->>'dryRun', 'false') <> 'true' THEN 'new code by a person'
                   WHEN person AND event_base_name = 'UpdateFunctionConfiguration'
                    AND raw->>'requestParameters' ~ '"(layers|environment|handler)"' THEN 'layers, handler or environment changed by a person'
                   WHEN person AND event_base_name = 'CreateEventSourceMapping' THEN 'a new trigger by a person'
                   END AS what
       FROM  (SELECT *, coalesce(recipient_account_id, cloud_account_uid) AS owner,
                     coalesce(regexp_replace(coalesce(raw->'requestParameters'->>'functionName',
                                                      raw->'requestParameters'->>'layerName'), '^.*:(function|layer):', ''),
                              '(unknown)') AS function,
                     coalesce(user_identity_arn, principal, '(unknown)') AS actor,
                     (user_identity_type IN ('IAMUser', 'Root', 'FederatedUser')
                      OR strpos(coalesce(session_issuer_arn, user_identity_arn, ''), 'AWSReservedSSO_') > 0) AS person
              FROM   cloudtrail
              WHERE  event_source = 'lambda.amazonaws.com' AND status = 'Success'
                AND  coalesce(user_identity_type, '') <> 'AWSService'))
WHERE  what IS NOT NULL
