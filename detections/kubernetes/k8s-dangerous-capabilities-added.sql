/*
title: Dangerous Linux capability added
severity: high
attack: [T1610, T1611]
entity: [cluster, namespace, workload]
summary: "{actor_user_name} gave {workload} in {namespace} of {cluster} the capabilities {capabilities}"
needs_level: Request
suppress: 24h
triage: |
  1. Which capability, and what is it for? SYS_ADMIN, SYS_PTRACE, SYS_MODULE, BPF and DAC_READ_SEARCH each lead out of
     the container; NET_ADMIN and NET_RAW let it listen to and change its neighbours' traffic.
  2. Who asked for it, with which image?
  3. Look at runtime alerts of the pod's node since it started.
benign: Network plugins, init containers of service meshes (NET_ADMIN, NET_RAW), profilers.
references:
  - https://man7.org/linux/man-pages/man7/capabilities.7.html
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
       array_to_string(pod_caps_added, ', ') AS capabilities,
       actor_user_name, src_endpoint_ip, verb,
       array_to_string(pod_images, ', ') AS images
FROM   kubernetes_calls
WHERE  array_has_any(pod_caps_added,
                     ['ALL', 'SYS_ADMIN', 'SYS_PTRACE', 'SYS_MODULE', 'SYS_RAWIO', 'SYS_BOOT', 'BPF', 'PERFMON', 'NET_ADMIN',
                      'NET_RAW', 'DAC_READ_SEARCH', 'DAC_OVERRIDE', 'MAC_ADMIN', 'MKNOD', 'SYSLOG', 'CHECKPOINT_RESTORE'])
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  coalesce(actor_user_type, '') <> 'Node'
