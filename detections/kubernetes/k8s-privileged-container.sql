/*
title: Privileged container admitted
severity: high
attack: [T1610, T1611]
entity: [cluster, namespace, workload]
summary: "{actor_user_name} started privileged containers: {workload} in {namespace} of {cluster} ({images})"
needs_level: Request
suppress: 24h
triage: |
  1. Who asked for it, and is a node agent (network, storage, monitoring) being installed just now?
  2. Where does the image come from, and what does it run? See `images` and `commands`.
  3. Root on the node is one step away: look at runtime alerts of the pod's node since it started.
  4. If nobody knows of it, keep the pod for evidence, cordon the node and cut the actor's access.
benign: Network, storage and monitoring agents; kube-proxy. They should be few and change seldom.
references:
  - https://kubernetes.io/docs/concepts/security/pod-security-standards/
*/
-- Controllers and kubelets make pods of what was asked for elsewhere: the owner is judged, not every replica.
SELECT cluster, coalesce(objectref_namespace, '(none)') AS namespace,
       concat(objectref_resource, '/',
              coalesce(objectref_name, raw->'responseObject'->'metadata'->>'name',
                       raw->'requestObject'->'metadata'->>'generateName', '(generated)')) AS workload,
       actor_user_name, src_endpoint_ip, verb,
       array_to_string(pod_images, ', ') AS images,
       array_to_string(pod_commands, ' | ') AS commands,
       coalesce(pod_host_process, false) AS host_process,
       coalesce(pod_host_pid, false) AS host_pid,
       array_to_string(pod_host_paths, ', ') AS host_paths,
       CASE WHEN coalesce(pod_host_pid, false)
              OR coalesce(array_has(pod_host_paths, '/'), false) THEN 'the node is theirs'
            WHEN actor_user_type = 'ServiceAccount' THEN 'asked for by a workload'
            ELSE 'asked for by a person or tool' END AS weight
FROM   kubernetes_calls
WHERE  (pod_privileged IS TRUE OR pod_host_process IS TRUE)
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  coalesce(actor_user_type, '') <> 'Node'
  AND  coalesce(actor_user_name, '') NOT IN ('system:kube-controller-manager', 'system:kube-scheduler', 'system:apiserver')
  AND  NOT (objectref_resource IN ('pods', 'replicasets', 'jobs') AND object_owner_uid IS NOT NULL
            AND coalesce(actor_user_name, '') LIKE 'system:serviceaccount:kube-system:%-controller')
