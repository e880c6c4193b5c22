/*
title: Tokens of service accounts
key: [cluster, credential_uid]
doc: >-
  Every token that was issued, by the id that calls made with it carry in `actor_user_credential_uid` (Kubernetes 1.30
  and later): of which service account, for which pod, at whose request.
*/
SELECT cluster,
       issued_credential_uid AS credential_uid,
       objectref_namespace AS namespace,
       objectref_name AS service_account,
       raw->'requestObject'->'spec'->'boundObjectRef'->>'kind' AS bound_kind,
       raw->'requestObject'->'spec'->'boundObjectRef'->>'name' AS bound_name,
       raw->'requestObject'->'spec'->'boundObjectRef'->>'uid' AS bound_uid,
       token_expiration_seconds AS expiration_seconds,
       actor_user_name AS requested_by,
       src_endpoint_ip AS requested_from
FROM   kubernetes_calls
WHERE  objectref_resource = 'serviceaccounts' AND objectref_subresource = 'token' AND verb = 'create'
  AND  response_code BETWEEN 200 AND 299
