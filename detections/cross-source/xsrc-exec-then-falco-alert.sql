/*
title: Somebody's session in a pod, then runtime alerts there
severity: high
attack: [T1609, T1059.004]
window: 20m
every: 2m
entity: [cluster, namespace, pod]
summary: "{users} opened a session in {namespace}/{pod} of {cluster}, and {alerts} runtime alerts followed: {signals}"
needs_level: Metadata
triage: |
  1. The audit log says who, the runtime alerts say what they did: read them together.
  2. Ask the user through another channel whether this was them.
  3. Keep the pod; save its processes and files before it goes.
benign: Incident responders at work, debugging that installs tools.
references:
  - https://falco.org/docs/reference/rules/default-rules/
  - https://kubernetes.io/docs/tasks/debug/debug-application/get-shell-running-container/
*/
-- The shell that an exec opens is no news after the exec, and what a pod does all day long is no news at all.
WITH sessions AS (
  SELECT cluster, objectref_namespace AS namespace, objectref_name AS pod, time, event_uid, actor_user_name, src_endpoint_ip,
         array_to_string(exec_argv, ' ') AS command
  FROM   kubernetes_calls
  WHERE  objectref_resource = 'pods'
    AND  ((objectref_subresource IN ('exec', 'attach') AND verb IN ('create', 'get') AND coalesce(response_code, 101) < 300)
       OR (objectref_subresource = 'ephemeralcontainers' AND verb IN ('update', 'patch') AND status = 'Success'))
),
alerts AS (
  SELECT cluster, k8s_ns_name AS namespace, k8s_pod_name AS pod, time, event_uid, rule, proc_cmdline
  FROM   falco
  WHERE  k8s_pod_name IS NOT NULL
    AND  severity IN ('emergency', 'alert', 'critical', 'error', 'warning', 'notice')
    AND  rule NOT IN ('Terminal shell in container', 'Contact K8S API Server From Container', 'Unexpected outbound connection')
)
SELECT s.cluster, s.namespace, s.pod,
       array_to_string(array_sort(array_agg(DISTINCT s.actor_user_name)), ', ') AS users,
       min(s.src_endpoint_ip) AS src_endpoint_ip,
       count(DISTINCT a.event_uid) AS alerts,
       array_to_string(array_sort(array_agg(DISTINCT a.rule)), ', ') AS signals,
       min(s.command) AS command, min(a.proc_cmdline) AS proc_cmdline,
       min(s.time) AS first_seen,
       array_concat(array_agg(DISTINCT s.event_uid), array_agg(DISTINCT a.event_uid)) AS evidence
FROM   sessions s
JOIN   alerts a ON a.cluster = s.cluster AND a.namespace = s.namespace AND a.pod = s.pod
               AND a.time BETWEEN s.time - INTERVAL '5 seconds' AND s.time + INTERVAL '15 minutes'
GROUP  BY s.cluster, s.namespace, s.pod
