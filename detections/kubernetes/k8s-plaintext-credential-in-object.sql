/*
title: Credential written into a ConfigMap
severity: medium
attack: [T1552.001, T1552.007]
entity: [cluster, objectref_namespace, object]
summary: "{actor_user_name} wrote {classes} into {object} in {objectref_namespace} of {cluster}"
needs_level: Request
suppress: 24h
triage: |
  1. Everybody who may read ConfigMaps can read it, and so can whoever reads this log: rotate it at its source.
  2. Move it into a Secret or a secret store.
  3. Who read the ConfigMap since?
benign: Sample values and public certificates.
references:
  - https://kubernetes.io/docs/concepts/configuration/configmap/
*/
-- The finding says which kind, never what. A line break within a JSON text is `\n`, so that no word begins there.
SELECT cluster, objectref_namespace,
       concat(objectref_resource, '/', coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name', '(unknown)')) AS object,
       actor_user_name, verb, src_endpoint_ip,
       concat_ws(', ',
         CASE WHEN raw->>'requestObject' ~ '(?i)aws_(access_key_id|secret_access_key|session_token)|aws-(access-key|s3-access-key)-id|(AKIA|ASIA)[0-9A-Z]{16}\b' THEN 'AWS keys' END,
         CASE WHEN raw->>'requestObject' ~ '-----BEGIN ([A-Z]+ )*PRIVATE KEY' THEN 'a private key' END,
         CASE WHEN raw->>'requestObject' ~ '(gh[pousr]_[0-9A-Za-z]{30,}|glpat-[0-9A-Za-z_-]{20,}|xox[abprs]-[0-9A-Za-z-]{10,})' THEN 'a token' END,
         CASE WHEN raw->>'requestObject' ~ 'eyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}' THEN 'a JWT' END,
         CASE WHEN raw->>'requestObject' ~ '(?i)(\\[nrt]|[^a-z0-9_/\\])(password|passwd|passphrase|pwd)(\\?")?\s*[=:]\s*(\\?")?[^\s"\\${<]{8,}' THEN 'a password' END) AS classes
FROM   kubernetes_calls
WHERE  objectref_resource = 'configmaps' AND verb IN ('create', 'update', 'patch')
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  (raw->>'requestObject' ~ '(?i)aws_(access_key_id|secret_access_key|session_token)|aws-(access-key|s3-access-key)-id|(AKIA|ASIA)[0-9A-Z]{16}\b'
     OR raw->>'requestObject' ~ '-----BEGIN ([A-Z]+ )*PRIVATE KEY'
     OR raw->>'requestObject' ~ '(gh[pousr]_[0-9A-Za-z]{30,}|glpat-[0-9A-Za-z_-]{20,}|xox[abprs]-[0-9A-Za-z-]{10,})'
     OR raw->>'requestObject' ~ 'eyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}'
     OR raw->>'requestObject' ~ '(?i)(\\[nrt]|[^a-z0-9_/\\])(password|passwd|passphrase|pwd)(\\?")?\s*[=:]\s*(\\?")?[^\s"\\${<]{8,}')
