/*
title: Shell in a container that nobody opened through the API
severity: high
attack: [T1059.004, T1190, T1611]
window: 10m
every: 1m
entity: [cluster, namespace, pod]
summary: "{rules} in {namespace}/{pod} of {cluster}, and no exec or attach there: {command} (parent {parent})"
needs_level: Metadata
triage: |
  1. Is the audit log of this cluster complete at that time? If not, look there first.
  2. What is the parent? The application itself means a hole in it; the runtime means somebody on the node or at the
     kubelet.
  3. Save the pod's processes and connections; look at the node's other pods.
benign: Entry points that open a terminal; applications that start shells for work of theirs.
references:
  - https://falco.org/docs/reference/rules/default-rules/
  - https://kubernetes.io/docs/concepts/security/rbac-good-practices/#access-to-proxy-subresource-of-nodes
*/
-- Probes and lifecycle hooks are run by the runtime without a terminal; those are no shells of anybody's.
WITH shells AS (
  SELECT cluster, k8s_ns_name AS namespace, k8s_pod_name AS pod, time, event_uid, rule, hostname, proc_cmdline, proc_pname,
         container_image_repository
  FROM   falco
  WHERE  rule IN ('Terminal shell in container', 'Run shell untrusted', 'Basic Interactive Reconnaissance')
    AND  k8s_ns_name IS NOT NULL AND k8s_pod_name IS NOT NULL
    AND  NOT (coalesce(proc_tty, 0) = 0 AND rule <> 'Terminal shell in container'
              AND coalesce(proc_pname, '') ~ '^(runc|crun|conmon|containerd-shim.*|kubelet|dockerd|crio)$')
),
sessions AS (
  SELECT cluster, objectref_namespace AS namespace, objectref_name AS pod, time, event_uid
  FROM   kubernetes
  WHERE  objectref_resource = 'pods' AND objectref_subresource IN ('exec', 'attach', 'ephemeralcontainers')
    AND  coalesce(response_code, 101) < 300
)
SELECT f.cluster, f.namespace, f.pod,
       min(f.rule) AS rules, min(f.hostname) AS node, min(f.proc_cmdline) AS command, min(f.proc_pname) AS parent,
       min(f.container_image_repository) AS image,
       min(f.time) AS first_seen,
       array_agg(DISTINCT f.event_uid) AS evidence
FROM   shells f
LEFT JOIN sessions s ON s.cluster = f.cluster AND s.namespace = f.namespace AND s.pod = f.pod
                    AND s.time BETWEEN f.time - INTERVAL '90 seconds' AND f.time + INTERVAL '90 seconds'
WHERE  s.event_uid IS NULL
GROUP  BY f.cluster, f.namespace, f.pod
