/*
title: Ephemeral or node-debug container injected
severity: medium
attack: [T1609, T1610, T1611]
entity: [cluster, objectref_namespace, pod, actor_user_name]
summary: "{actor_user_name} injected a debug container into {objectref_namespace}/{pod} of {cluster} ({images})"
needs_level: Request
triage: |
  1. Is there an incident or a support case that this belongs to? Ask the user.
  2. Which image was injected, with which capabilities, and into whose process namespace (`target`)?
  3. A `node-debugger` pod has the whole node below /host: look at what was changed there.
benign: Incident responders and operators who debug with `kubectl debug`.
references:
  - https://kubernetes.io/docs/concepts/workloads/pods/ephemeral-containers/
  - https://kubernetes.io/docs/tasks/debug/debug-cluster/kubectl-node-debug/
*/
SELECT cluster, objectref_namespace,
       coalesce(objectref_name, raw->'responseObject'->'metadata'->>'name', '(unknown)') AS pod, actor_user_name,
       array_to_string(pod_images, ', ') AS images,
       coalesce(raw->'requestObject'->'spec'->'ephemeralContainers'->0->>'targetContainerName',
                array_to_string(pod_host_paths, ', ')) AS target,
       array_to_string(pod_caps_added, ', ') AS capabilities, coalesce(pod_privileged, false) AS privileged,
       src_endpoint_ip
FROM   kubernetes_calls
WHERE  objectref_resource = 'pods'
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  ((objectref_subresource = 'ephemeralcontainers' AND verb IN ('update', 'patch'))
     OR (objectref_subresource IS NULL AND verb = 'create'
         AND (objectref_name LIKE 'node-debugger-%'
           OR (pod_host_pid IS TRUE AND array_has(pod_host_paths, '/') AND object_owner_uid IS NULL
               AND coalesce(actor_user_type, '') <> 'Node'))))
