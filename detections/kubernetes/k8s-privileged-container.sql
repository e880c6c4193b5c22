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
-- The static pods that kubelets report are those of files on the node: not asked for through the API.
SELECT cluster, coalesce(objectref_namespace, '(none)') AS namespace,
       -- what the pod belongs to, so that a deployment is one incident and not one for every replica
       coalesce(CASE WHEN object_owner_kind = 'ReplicaSet'
                     THEN 'deployments/' || regexp_replace(object_owner_name, '-[a-z0-9]+$', '')
                     WHEN object_owner_kind = 'Job' AND object_owner_name ~ '-[0-9]{8,}$'
                     THEN 'cronjobs/' || regexp_replace(object_owner_name, '-[0-9]+$', '')
                     ELSE lower(object_owner_kind) || 's/' || object_owner_name END,
                concat(objectref_resource, '/',
                       coalesce(objectref_name, raw->'responseObject'->'metadata'->>'name',
                                raw->'requestObject'->'metadata'->>'generateName', '(generated)'))) AS workload,
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
