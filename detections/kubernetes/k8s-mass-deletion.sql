/*
title: Burst of deletions
severity: high
attack: [T1485, T1489, T1070]
window: 5m
every: 30s
entity: [cluster, actor_user_name]
summary: "{actor_user_name} made {deletions} deletions in {namespaces} namespaces of {cluster} within five minutes"
needs_level: Metadata
triage: |
  1. Stop it: cut the identity's access before anything else.
  2. What is gone? Volumes and their claims first: with the reclaim policy `Delete` the data goes with them.
  3. Deleted `events` mean that somebody covers tracks: read what happened before from this log.
benign: Cleaners of preview environments, uninstalling by hand.
references:
  - https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reclaiming
*/
-- A namespace or a whole collection is many objects in one call; nobody has work that needs deleting events. What the
-- cluster deletes itself, after somebody deleted the owner, is not counted again.
SELECT cluster, actor_user_name,
       count(*) AS deletions,
       count(DISTINCT objectref_namespace) AS namespaces,
       count(DISTINCT objectref_resource) AS kinds,
       max(http_request_user_agent) AS client,
       min(time) AS first_seen
FROM   kubernetes_calls
WHERE  verb IN ('delete', 'deletecollection') AND objectref_subresource IS NULL
  AND  status = 'Success' AND dry_run IS NOT TRUE
  AND  objectref_resource IN ('deployments', 'statefulsets', 'daemonsets', 'services', 'persistentvolumeclaims', 'persistentvolumes',
                              'secrets', 'configmaps', 'namespaces', 'customresourcedefinitions', 'events')
  AND  NOT (objectref_resource = 'events' AND coalesce(actor_user_type, '') <> 'User')
  AND  actor_user_name NOT IN ('system:kube-controller-manager', 'system:apiserver')
  AND  NOT in_lookup('gitops_controllers', actor_user_name)
  AND  NOT in_lookup('control_loops', actor_user_name)
GROUP  BY cluster, actor_user_name
HAVING sum(CASE WHEN objectref_resource = 'events' THEN 10
                WHEN objectref_resource = 'namespaces' OR verb = 'deletecollection' THEN 5
                WHEN objectref_resource IN ('persistentvolumeclaims', 'persistentvolumes') THEN 2
                ELSE 1 END) >= 10
