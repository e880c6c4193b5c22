/*
title: Role bindings
key: [cluster, kind, namespace, binding]
doc: >-
  What every binding gives to whom: `kind` is `rolebindings` or `clusterrolebindings`, `namespace` empty for the latter.
*/
SELECT cluster,
       objectref_resource AS kind,
       coalesce(objectref_namespace, '') AS namespace,
       coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name') AS binding,
       rbac_role_ref_kind AS role_kind,
       rbac_role_ref_name AS role,
       rbac_subjects AS subjects,
       actor_user_name AS written_by,
       verb = 'delete' AS deleted
FROM   kubernetes_calls
WHERE  objectref_resource IN ('rolebindings', 'clusterrolebindings') AND objectref_subresource IS NULL
  AND  response_code BETWEEN 200 AND 299 AND dry_run IS NOT TRUE
  AND  (verb = 'delete' OR (verb IN ('create', 'update', 'patch') AND rbac_subjects IS NOT NULL))
