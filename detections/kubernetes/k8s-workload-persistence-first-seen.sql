/*
title: DaemonSet, CronJob, Job or static pod from an unusual origin
severity: medium
attack: [T1053.007, T1543.005, T1610]
entity: [cluster, maker, kind]
summary: "{maker} made {kind} {namespace}/{name} in {cluster}, as it never did in 30 days ({images})"
needs_level: Metadata
triage: |
  1. Does this identity deploy workloads that come back by themselves, and is this one announced?
  2. A static pod means that a file was put on the node itself: who had access to the node?
  3. What does it run, how often, and with which service account?
  4. Unknown: suspend it (`suspend: true`, a node selector that fits nothing) before it is deleted, and keep its spec.
benign: The first batch job of a team; new node images, which bring static pods to all nodes at once.
references:
  - https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/
  - https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/
*/
-- Kubelets may make no pods but the mirrors of static ones. Their names end with the node's, and it is the rest that is new
-- or known in the cluster.
SELECT cluster,
       CASE WHEN actor_user_type = 'Node' THEN 'a file on a node' ELSE actor_user_name END AS maker,
       CASE WHEN actor_user_type = 'Node'
            THEN 'static pod ' || replace(objectref_name, '-' || substr(actor_user_name, 13), '')
            ELSE objectref_resource END AS kind,
       objectref_namespace AS namespace, coalesce(objectref_name, '(generated)') AS name, verb,
       coalesce(array_to_string(pod_images, ', '), 'images not recorded') AS images,
       coalesce(array_to_string(pod_commands, ' | '), '') AS commands, actor_user_name, src_endpoint_ip, http_request_user_agent
FROM   kubernetes_calls
WHERE  objectref_subresource IS NULL AND dry_run IS NOT TRUE AND response_code BETWEEN 200 AND 299
  AND  actor_user_name IS NOT NULL
  AND  ((actor_user_type IN ('User', 'ServiceAccount')
         AND objectref_resource IN ('daemonsets', 'cronjobs', 'jobs') AND verb IN ('create', 'update', 'patch')
         AND NOT in_lookup('control_loops', actor_user_name)
         AND actor_user_name NOT LIKE 'eks:%'
         AND NOT in_lookup('gitops_controllers', actor_user_name))
     OR (actor_user_type = 'Node' AND objectref_resource = 'pods' AND verb = 'create'))
  AND  first_seen(INTERVAL '30 days', cluster,
                  CASE WHEN actor_user_type = 'Node' THEN 'a file on a node' ELSE actor_user_name END,
                  CASE WHEN actor_user_type = 'Node'
                       THEN 'static pod ' || replace(objectref_name, '-' || substr(actor_user_name, 13), '')
                       ELSE objectref_resource END)
