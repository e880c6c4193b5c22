/*
title: Sensitive path of the node mounted
severity: high
attack: [T1610, T1611]
entity: [cluster, namespace, workload]
summary: "{actor_user_name} mounted {paths} of the node into {workload} in {namespace} of {cluster}"
needs_level: Request
suppress: 24h
triage: |
  1. Which paths? The root, `/etc`, `/root` and a runtime's socket are the node itself; `/var/log` lets logs be
     replaced by links.
  2. Who asked for it, with which image, and is the mount read-only?
  3. If nobody knows of it: look for new files below the mounted paths (cron, ssh keys, manifests of static pods)
     before the node is reused.
benign: Log shippers that read `/var/log`, storage plugins below `/var/lib/kubelet`, node agents.
references:
  - https://kubernetes.io/docs/concepts/storage/volumes/#hostpath
*/
-- The server refuses `..` in these paths, but takes `//` and `/./`. A volume that claims take has the path in itself.
SELECT cluster, coalesce(objectref_namespace, '(cluster)') AS namespace,
       -- what the pod belongs to, so that a deployment is one incident and not one for every replica
       coalesce(CASE WHEN object_owner_kind = 'ReplicaSet'
                     THEN 'deployments/' || regexp_replace(object_owner_name, '-[a-z0-9]+$', '')
                     WHEN object_owner_kind = 'Job' AND object_owner_name ~ '-[0-9]{8,}$'
                     THEN 'cronjobs/' || regexp_replace(object_owner_name, '-[0-9]+$', '')
                     ELSE lower(object_owner_kind) || 's/' || object_owner_name END,
                concat(objectref_resource, '/',
                       coalesce(objectref_name, raw->'responseObject'->'metadata'->>'name',
                                raw->'requestObject'->'metadata'->>'generateName', '(generated)'))) AS workload,
       coalesce(array_to_string(pod_host_paths, ', '), raw->'requestObject'->'spec'->'hostPath'->>'path',
                raw->'requestObject'->'spec'->'local'->>'path') AS paths,
       actor_user_name, src_endpoint_ip, verb,
       array_to_string(pod_images, ', ') AS images
FROM   kubernetes_calls
WHERE  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  (pod_host_paths IS NOT NULL
        OR (objectref_resource = 'persistentvolumes' AND verb IN ('create', 'update', 'patch')))
  AND  regexp_replace(coalesce(array_to_string(pod_host_paths, chr(10)),
                               raw->'requestObject'->'spec'->'hostPath'->>'path',
                               raw->'requestObject'->'spec'->'local'->>'path', ''), '/(\.?/)+', '/', 'g')
       ~ '(?m)^(/|/var/?|/var/lib/?|(/var)?/run/?|/(etc|root|home|proc|sys|dev|boot|var/log)(/.*)?|/var/lib/(kubelet|containerd|docker|etcd|rancher|kubernetes)(/.*)?|(/var)?/run/(docker\.sock|dockershim\.sock|cri-dockerd\.sock|containerd|crio)(/.*)?)$'
  AND  coalesce(actor_user_type, '') <> 'Node'
