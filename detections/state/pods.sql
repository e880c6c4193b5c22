/*
title: Pods
key: [cluster, namespace, pod]
doc: >-
  Every pod as it was last written as a whole: its spec, who made it, whom it belongs to. From the name on; pods that a
  controller names are known where the response was recorded. Deletion by collection names no pod and ends none.
*/
SELECT cluster,
       objectref_namespace AS namespace,
       coalesce(objectref_name, raw->'responseObject'->'metadata'->>'name') AS pod,
       objectref_uid AS uid,
       coalesce(pod_service_account, 'default') AS service_account,
       pod_automount_token AS automount_token,
       pod_node_name AS node,
       pod_images AS images,
       object_labels AS labels,
       object_owner_kind AS owner_kind, object_owner_name AS owner_name, object_owner_uid AS owner_uid,
       pod_privileged AS privileged, pod_host_network AS host_network, pod_host_pid AS host_pid,
       pod_host_paths AS host_paths, pod_caps_added AS caps_added,
       actor_user_name AS written_by,
       verb = 'delete' AS deleted
FROM   kubernetes_calls
WHERE  objectref_resource = 'pods'
  AND  (objectref_subresource IS NULL OR objectref_subresource = 'ephemeralcontainers')
  AND  response_code BETWEEN 200 AND 299 AND dry_run IS NOT TRUE
  AND  (verb = 'delete' OR (verb IN ('create', 'update', 'patch') AND pod_spec_whole))
