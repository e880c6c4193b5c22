/*
title: Roles
key: [cluster, kind, namespace, role]
doc: >-
  The rights of every role: `kind` is `roles` or `clusterroles`, `namespace` empty for the latter.
*/
SELECT cluster,
       objectref_resource AS kind,
       coalesce(objectref_namespace, '') AS namespace,
       coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name') AS role,
       rbac_rules AS rules,
       actor_user_name AS written_by,
       verb = 'delete' AS deleted
FROM   kubernetes_calls
WHERE  objectref_resource IN ('roles', 'clusterroles') AND objectref_subresource IS NULL
  AND  response_code BETWEEN 200 AND 299 AND dry_run IS NOT TRUE
  AND  (verb = 'delete' OR (verb IN ('create', 'update', 'patch') AND rbac_rules IS NOT NULL))
