/*
title: Network policies
key: [cluster, namespace, policy]
doc: >-
  The spec of every network policy as JSON. A patch counts where the response was recorded.
*/
SELECT cluster,
       objectref_namespace AS namespace,
       coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name') AS policy,
       coalesce(raw->'responseObject'->>'spec', raw->'requestObject'->>'spec') AS spec,
       actor_user_name AS written_by,
       verb = 'delete' AS deleted
FROM   kubernetes_calls
WHERE  objectref_resource = 'networkpolicies' AND objectref_subresource IS NULL
  AND  response_code BETWEEN 200 AND 299 AND dry_run IS NOT TRUE
  AND  (verb IN ('create', 'update', 'delete') OR (verb = 'patch' AND raw->'responseObject'->>'spec' IS NOT NULL))
