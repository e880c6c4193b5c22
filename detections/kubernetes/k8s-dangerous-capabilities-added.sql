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
-- Controllers and kubelets make pods of what was asked for elsewhere: the owner is judged, not every replica.
SELECT cluster, coalesce(objectref_namespace, '(none)') AS namespace,
       concat(objectref_resource, '/',
              coalesce(objectref_name, raw->'responseObject'->'metadata'->>'name',
                       raw->'requestObject'->'metadata'->>'generateName', '(generated)')) AS workload,
       array_to_string(pod_caps_added, ', ') AS capabilities,
       actor_user_name, src_endpoint_ip, verb,
       array_to_string(pod_images, ', ') AS images
FROM   kubernetes_calls
WHERE  array_has_any(pod_caps_added,
                     ['ALL', 'SYS_ADMIN', 'SYS_PTRACE', 'SYS_MODULE', 'SYS_RAWIO', 'SYS_BOOT', 'BPF', 'PERFMON', 'NET_ADMIN',
                      'NET_RAW', 'DAC_READ_SEARCH', 'DAC_OVERRIDE', 'MAC_ADMIN', 'MKNOD', 'SYSLOG', 'CHECKPOINT_RESTORE'])
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  coalesce(actor_user_type, '') <> 'Node'
  AND  coalesce(actor_user_name, '') NOT IN ('system:kube-controller-manager', 'system:kube-scheduler', 'system:apiserver')
  AND  NOT (objectref_resource IN ('pods', 'replicasets', 'jobs') AND object_owner_uid IS NOT NULL
            AND coalesce(actor_user_name, '') LIKE 'system:serviceaccount:kube-system:%-controller')
