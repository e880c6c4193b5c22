/*
title: Nodes of pods
key: [cluster, namespace, pod]
doc: >-
  Where the scheduler put a pod. What the pod is, is in `pods`; this is another call, by another caller.
*/
SELECT cluster,
       objectref_namespace AS namespace,
       objectref_name AS pod,
       raw->'requestObject'->'target'->>'name' AS node,
       actor_user_name AS bound_by,
       verb = 'delete' AS deleted
FROM   kubernetes_calls
WHERE  objectref_resource = 'pods'
  AND  response_code BETWEEN 200 AND 299 AND dry_run IS NOT TRUE
  AND  ((verb = 'create' AND objectref_subresource = 'binding')
     OR (verb = 'delete' AND objectref_subresource IS NULL))
