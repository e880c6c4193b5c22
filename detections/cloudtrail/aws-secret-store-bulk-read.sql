/*
title: Many secrets or decrypted parameters read
severity: high
attack: [T1555.006, T1552]
window: 10m
every: 1m
entity: [cloud_account_uid, principal]
summary: "{principal} read {secrets} secrets and {parameters} parameters, {batches} batches, in {regions} regions in ten minutes"
triage: |
  1. Which secrets, and whose are they? The evidence lists them by name; denied calls show what was wanted.
  2. Does the principal refresh secrets as its work (a secrets operator, a deployment)? From the usual address?
  3. Rotate what was read at its source first, then cut the principal's credentials.
  4. Look for use of what leaked: sign-ins to databases and other clouds.
benign: Operators of secrets that refresh all of theirs at once, Terraform runs that manage many.
references:
  - https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html
  - https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParametersByPath.html
*/
-- A secret has its name, or its ARN with six characters after the name. The names of a list count one by one. A filter
-- that excludes (`!`) or is missing takes all there is.
SELECT cloud_account_uid, principal,
       count(DISTINCT regexp_replace(raw->'requestParameters'->>'secretId',
                                     '^arn:[^:]*:secretsmanager:[^:]*:[^:]*:secret:(.+)-[A-Za-z0-9]{6}$', '\1')) AS secrets,
       count(*) FILTER (WHERE event_name = 'BatchGetSecretValue') AS batches,
       coalesce(array_length(array_distinct(flatten(array_agg(
           coalesce(json_get_array(raw, 'requestParameters', 'names'),
                    make_array(json_get_json(raw, 'requestParameters', 'name'))))
           FILTER (WHERE event_name IN ('GetParameter', 'GetParameters'))))), 0) AS parameters,
       count(DISTINCT cloud_region) AS regions,
       min(time) AS first_seen
FROM   cloudtrail
WHERE  NOT coalesce(service_call, false)
  AND  ((event_source = 'secretsmanager.amazonaws.com' AND event_name IN ('GetSecretValue', 'BatchGetSecretValue'))
     OR (event_source = 'ssm.amazonaws.com'
         AND event_name IN ('GetParameter', 'GetParameters', 'GetParametersByPath')
         AND raw->'requestParameters'->>'withDecryption' = 'true'))
GROUP  BY cloud_account_uid, principal
HAVING secrets >= 10 OR parameters >= 10 OR batches >= 3 OR regions >= 3
    OR bool_or(event_name = 'BatchGetSecretValue' AND status = 'Success'
               AND json_length(raw, 'requestParameters', 'secretIdList') IS NULL
               AND coalesce(raw->'requestParameters'->>'filters', '"!"') ~ '"!|^\[\]$')
    OR bool_or(event_name = 'GetParametersByPath' AND raw->'requestParameters'->>'path' = '/'
               AND raw->'requestParameters'->>'recursive' = 'true')
