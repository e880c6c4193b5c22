/*
title: Namespaces
key: [cluster, namespace]
doc: >-
  Every namespace with its labels as JSON. A patch says only what changes, so that its version counts where the
  response was recorded.
*/
SELECT cluster,
       coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name') AS namespace,
       coalesce(raw->'responseObject'->'metadata'->>'labels', raw->'requestObject'->'metadata'->>'labels') AS labels,
       coalesce(raw->'responseObject'->'metadata'->'labels'->>'pod-security.kubernetes.io/enforce',
                raw->'requestObject'->'metadata'->'labels'->>'pod-security.kubernetes.io/enforce') AS pod_security_enforce,
       actor_user_name AS written_by,
       verb = 'delete' AS deleted
FROM   kubernetes_calls
WHERE  objectref_resource = 'namespaces' AND objectref_subresource IS NULL
  AND  response_code BETWEEN 200 AND 299 AND dry_run IS NOT TRUE
  AND  (verb IN ('create', 'update', 'delete')
     OR (verb = 'patch' AND raw->'responseObject'->'metadata'->>'name' IS NOT NULL))
