/*
title: Issued access keys
key: [access_key_id]
doc: >-
  Who is behind an access key: the call that issued it, by whom, for which role or web identity, from where. For keys of
  sessions (`ASIA…`) and of users (`AKIA…`); calls made with a key have it in `access_key_id`.
*/
SELECT coalesce(issued_access_key_id, raw->'requestParameters'->>'accessKeyId') AS access_key_id,
       recipient_account_id AS account,
       event_name AS issued_by_call,
       principal AS issued_to,
       access_key_id AS issued_with_key,
       role_arn,
       role_session_name,
       issued_session_arn AS session_arn,
       web_identity_provider,
       web_identity_subject,
       src_endpoint_ip AS issued_from,
       raw->'responseElements'->'credentials'->>'expiration' AS expiration,
       event_name = 'DeleteAccessKey' AS deleted
FROM   cloudtrail
WHERE  status = 'Success'
  AND  (issued_access_key_id IS NOT NULL OR (event_source = 'iam.amazonaws.com' AND event_name = 'DeleteAccessKey'))
