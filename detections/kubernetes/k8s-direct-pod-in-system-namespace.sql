/*
title: Pod or service account made by hand in a system namespace
severity: high
attack: [T1036.005, T1610]
entity: [cluster, actor_user_name]
summary: "{actor_user_name} made {objectref_resource} {name} in {objectref_namespace} of {cluster}"
needs_level: Request
triage: |
  1. Is the cluster being upgraded, or an add-on installed, by this identity and now?
  2. Compare the name with the real components of the namespace: a look-alike is an attack.
  3. Look at what the pod runs, which service account it has, and what that account did since.
benign: Upgrades by hand, debug pods of the platform team.
references:
  - https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/#initial-namespaces
*/
-- Nothing ever runs in `kube-public` and `kube-node-lease`, whoever asks for it. Without the body (level Metadata) no pod has an owner: then only the makers tell controllers' pods from others.
SELECT cluster, actor_user_name, objectref_resource, objectref_namespace,
       coalesce(objectref_name, raw->'responseObject'->'metadata'->>'name',
                raw->'requestObject'->'metadata'->>'generateName', '(generated)') AS name,
       src_endpoint_ip, http_request_user_agent, array_to_string(pod_images, ', ') AS images,
       pod_service_account
FROM   kubernetes_calls
WHERE  verb = 'create' AND objectref_resource IN ('pods', 'serviceaccounts') AND objectref_subresource IS NULL
  AND  (objectref_namespace IN ('kube-system', 'kube-public', 'kube-node-lease', 'azure-arc', 'calico-system', 'istio-system',
                                'amazon-guardduty')
     OR objectref_namespace LIKE 'gke-%')
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  actor_user_name IS NOT NULL AND coalesce(actor_user_type, '') <> 'Node'
  AND  ((objectref_namespace IN ('kube-public', 'kube-node-lease') AND objectref_resource = 'pods')
     OR (object_owner_uid IS NULL
         AND actor_user_name NOT IN ('system:kube-controller-manager', 'system:kube-scheduler', 'system:apiserver', 'aksService')
         AND actor_user_name NOT LIKE 'eks:%' AND actor_user_name NOT LIKE 'system:gke-%'
         AND NOT in_lookup('control_loops', actor_user_name)))
