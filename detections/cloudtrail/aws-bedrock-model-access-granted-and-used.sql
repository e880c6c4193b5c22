/*
title: Access to a model switched on and used
severity: medium
attack: [T1496.004, T1526]
window: 70m
every: 7m
entity: [cloud_account_uid, principal]
summary: "{principal} of account {cloud_account_uid} asked for access to models and called one within the hour: {models}"
triage: |
  1. Is there a project that uses models, and does the principal belong to it?
  2. Whose card pays: look at the calls per hour since, and set quotas.
  3. Were the calls made with a long-term key, from an address never seen? Then the key is stolen and sold on.
  4. Take the access back; switch the logging of prompts on to see what was asked.
benign: New projects, once per principal.
references:
  - https://docs.aws.amazon.com/bedrock/latest/userguide/logging-using-cloudtrail.html
  - https://docs.aws.amazon.com/bedrock/latest/userguide/model-access.html
*/
-- Looking for what is there counts as asking when it is done three times. A refused call to a model tells as much.
SELECT cloud_account_uid, principal,
       min(time) FILTER (WHERE event_name !~ '^(Invoke|Converse)') AS asked,
       max(time) FILTER (WHERE event_name ~ '^(Invoke|Converse)') AS used,
       array_to_string(array_sort(array_agg(DISTINCT raw->'requestParameters'->>'modelId')), ', ') AS models
FROM   cloudtrail
WHERE  event_source IN ('bedrock.amazonaws.com', 'bedrock-runtime.amazonaws.com')
  AND  (event_name IN ('InvokeModel', 'InvokeModelWithResponseStream', 'Converse', 'ConverseStream',
                       'GetFoundationModelAvailability', 'ListFoundationModels')
     OR (event_name IN ('PutFoundationModelEntitlement', 'PutUseCaseForModelAccess', 'CreateFoundationModelAgreement')
         AND status = 'Success'))
GROUP  BY cloud_account_uid, principal
HAVING asked <= used + INTERVAL '2 seconds' AND used <= asked + INTERVAL '60 minutes'
   AND (bool_or(event_name ~ '^(Put|Create)')
     OR count(*) FILTER (WHERE event_name ~ '^(Get|List)') >= 3)
