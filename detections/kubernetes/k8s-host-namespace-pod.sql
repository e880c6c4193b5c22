/*
title: Pod joins the host's process, IPC or network namespace
severity: high
attack: [T1610, T1611]
entity: [cluster, namespace, workload]
summary: "{actor_user_name} let {workload} in {namespace} of {cluster} share the node's {shares}"
needs_level: Request
suppress: 24h
triage: |
  1. Process and IPC namespaces let the pod see and signal everything on the node; who needs that here?
  2. The network namespace passes by network policies and reaches services bound to localhost.
  3. Which image is it, who asked for it, and does the pod also have host paths or capabilities?
benign: Node exporters, ingress controllers and network plugins share the network, seldom more.
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
       concat_ws(', ', CASE WHEN pod_host_pid IS TRUE THEN 'processes' END,
                       CASE WHEN pod_host_ipc IS TRUE THEN 'IPC' END,
                       CASE WHEN pod_host_network IS TRUE THEN 'network' END,
                       CASE WHEN cardinality(pod_host_ports) > 0
                            THEN concat('ports ', array_to_string(pod_host_ports, ' ')) END) AS shares,
       array_to_string(pod_images, ', ') AS images
FROM   kubernetes_calls
WHERE  (pod_host_pid IS TRUE OR pod_host_ipc IS TRUE OR pod_host_network IS TRUE
        OR coalesce(cardinality(pod_host_ports), 0) > 0)
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  coalesce(actor_user_type, '') <> 'Node'
