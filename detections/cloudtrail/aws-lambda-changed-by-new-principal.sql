/*
title: Function changed by a role that never changed it
severity: medium
attack: [T1525, T1648]
entity: [cloud_account_uid, function, principal]
summary: "{principal} called {event_name} on function {function} of account {cloud_account_uid} for the first time in 30 days"
triage: |
  1. Is this the pipeline under a new role? Its run has the hash of the code.
  2. Compare the code's hash with the last release; point the alias back if it is not known.
  3. Look at what the function's role did since.
benign: New pipelines, renamed roles.
references:
  - https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionCode.html
*/
-- What people change is told at once by `aws-lambda-backdoored`.
SELECT cloud_account_uid, principal, event_name, src_endpoint_ip,
       regexp_replace(raw->'requestParameters'->>'functionName', '^.*:function:', '') AS function
FROM   cloudtrail
WHERE  event_source = 'lambda.amazonaws.com' AND status = 'Success'
  AND  coalesce(raw->'requestParameters'->>'dryRun', 'false') <> 'true'
  AND  (event_base_name IN ('UpdateFunctionCode', 'CreateEventSourceMapping')
     OR (event_base_name = 'UpdateFunctionConfiguration'
         AND raw->>'requestParameters' ~ '"(layers|environment|handler)"'))
  AND  first_seen(INTERVAL '30 days', cloud_account_uid, principal,
           regexp_replace(raw->'requestParameters'->>'functionName', '^.*:function:', ''))
