/*
title: Secret read by a principal that never read it
severity: low
attack: [T1555.006]
entity: [cloud_account_uid, secret, principal]
summary: "{principal} read secret {secret} of account {cloud_account_uid} for the first time in 30 days, from {src_endpoint_ip}"
triage: |
  1. Is the principal a new workload or a new deployment that has this secret in its code?
  2. A person who reads a secret of production: ask which task it was for.
  3. What else did the principal read in the same hour? Many together are another alert.
  4. Unknown: rotate the secret at its source, then look at the principal's credentials.
benign: New services and replaced roles.
references:
  - https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
*/
-- A secret goes by its name, or by its ARN with six characters after the name. KMS names it in what it decrypts.
SELECT cloud_account_uid, principal,
       regexp_replace(CASE event_name WHEN 'Decrypt' THEN raw->'requestParameters'->'encryptionContext'->>'SecretARN'
                                      ELSE raw->'requestParameters'->>'secretId' END,
                      '^arn:[^:]*:secretsmanager:[^:]*:[^:]*:secret:(.+)-[A-Za-z0-9]{6}$', '\1') AS secret,
       event_name, src_endpoint_ip, user_identity_arn
FROM   cloudtrail
WHERE  status = 'Success'
  AND  ((event_source = 'secretsmanager.amazonaws.com' AND event_name = 'GetSecretValue')
     OR (event_source = 'kms.amazonaws.com' AND event_name = 'Decrypt'
         AND raw->'requestParameters'->'encryptionContext'->>'SecretARN' IS NOT NULL))
  AND  first_seen(INTERVAL '30 days', cloud_account_uid, principal,
           regexp_replace(coalesce(raw->'requestParameters'->>'secretId',
                                   raw->'requestParameters'->'encryptionContext'->>'SecretARN'),
                          '^arn:[^:]*:secretsmanager:[^:]*:[^:]*:secret:(.+)-[A-Za-z0-9]{6}$', '\1'))
