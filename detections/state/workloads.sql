/*
title: Workloads
key: [cluster, kind, namespace, workload]
doc: >-
  Every object that makes pods, with the spec of its pods as it was last written as a whole: `kind` is `deployments`,
  `daemonsets`, `statefulsets`, `replicasets`, `replicationcontrollers`, `jobs`, `cronjobs` or `podtemplates`.
*/
SELECT cluster,
       objectref_resource AS kind,
       objectref_namespace AS namespace,
       coalesce(objectref_name, raw->'responseObject'->'metadata'->>'name') AS workload,
       objectref_uid AS uid,
       coalesce(pod_service_account, 'default') AS service_account,
       pod_images AS images, pod_commands AS commands, pod_volumes AS volumes,
       object_labels AS labels,
       object_owner_kind AS owner_kind, object_owner_name AS owner_name,
       pod_privileged AS privileged, pod_host_network AS host_network, pod_host_pid AS host_pid,
       pod_host_paths AS host_paths, pod_caps_added AS caps_added,
       actor_user_name AS written_by,
       verb = 'delete' AS deleted
FROM   kubernetes_calls
WHERE  objectref_resource IN ('deployments', 'daemonsets', 'statefulsets', 'replicasets', 'replicationcontrollers',
                              'jobs', 'cronjobs', 'podtemplates')
  AND  objectref_subresource IS NULL
  AND  response_code BETWEEN 200 AND 299 AND dry_run IS NOT TRUE
  AND  (verb = 'delete' OR (verb IN ('create', 'update', 'patch') AND pod_spec_whole))
