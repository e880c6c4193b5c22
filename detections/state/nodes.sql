/*
title: Nodes
key: [cluster, node]
doc: >-
  Every node with its place in the cloud and its addresses, from its registration and its heartbeats, as far as their
  bodies are recorded. `addresses` is the list as JSON, `instance_id` the last part of the provider's id.
*/
SELECT cluster,
       coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name') AS node,
       coalesce(raw->'responseObject'->'spec'->>'providerID', raw->'requestObject'->'spec'->>'providerID')
         AS provider_id,
       regexp_replace(
         coalesce(raw->'responseObject'->'spec'->>'providerID', raw->'requestObject'->'spec'->>'providerID'),
         '^.*/', '') AS instance_id,
       coalesce(raw->'responseObject'->'status'->>'addresses', raw->'requestObject'->'status'->>'addresses')
         AS addresses,
       coalesce(raw->'responseObject'->'metadata'->>'labels', raw->'requestObject'->'metadata'->>'labels') AS labels,
       actor_user_name AS written_by,
       verb = 'delete' AS deleted
FROM   kubernetes_calls
WHERE  objectref_resource = 'nodes'
  AND  (objectref_subresource IS NULL OR objectref_subresource = 'status')
  AND  response_code BETWEEN 200 AND 299 AND dry_run IS NOT TRUE
  AND  ((verb = 'delete' AND objectref_subresource IS NULL)
     OR (verb IN ('create', 'update', 'patch')
         AND coalesce(raw->'responseObject'->'spec'->>'providerID', raw->'requestObject'->'spec'->>'providerID')
             IS NOT NULL))
