/*
title: Container slipped into a workload that runs
severity: medium
attack: [T1525, T1610, T1543.005]
entity: [cluster, kind, namespace, workload]
summary: "{actor_user_name} added {added} to {kind}/{workload} in {namespace} of {cluster}"
needs_level: Request
triage: |
  1. Does the actor own the workload, and is there a change that this belongs to?
  2. What does the new image do? It shares the network, the volumes and the service account of the others.
  3. Roll back to the version before; keep a pod with the new container for evidence.
benign: Sidecars (proxies, log shippers) that a team adds by hand. Injectors change pods, not workloads.
references:
  - https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
*/
-- All that was there stays, and something is new: an upgrade replaces, so that it takes something away. A second container
-- of an image that is there already does not show. The request meets the version that it makes.
SELECT w.cluster, w.kind, w.namespace, w.workload, k.actor_user_name, k.verb, k.src_endpoint_ip,
       array_to_string(array_except(w.images, w.prev_images), ', ') AS added,
       array_to_string(w.prev_images, ', ') AS before,
       coalesce(w.privileged, false) AS privileged, w.prev_written_by AS written_before_by
FROM   kubernetes_calls k
JOIN   workloads w ON w.cluster = k.cluster AND w.kind = k.objectref_resource AND w.namespace = k.objectref_namespace
                  AND w.workload = k.objectref_name
                  AND k.time >= w.valid_from AND k.time < w.valid_to
WHERE  k.objectref_resource IN ('deployments', 'daemonsets', 'statefulsets', 'cronjobs') AND k.objectref_subresource IS NULL
  AND  k.verb IN ('update', 'patch') AND k.response_code BETWEEN 200 AND 299 AND k.dry_run IS NOT TRUE
  AND  k.object_owner_uid IS NULL
  AND  NOT in_lookup('gitops_controllers', coalesce(k.actor_user_name, ''))
  AND  NOT in_lookup('control_loops', coalesce(k.actor_user_name, ''))
  AND  w.prev_images IS NOT NULL
  AND  array_to_string(array_except(w.images, w.prev_images), ',') <> ''
  AND  array_to_string(array_except(w.prev_images, w.images), ',') = ''
