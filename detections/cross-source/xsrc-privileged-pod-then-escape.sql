/*
title: Pod that can reach the node, then signs that it did
severity: critical
attack: [T1610, T1611]
window: 80m
every: 10m
entity: [cluster, namespace, workload]
summary: "{made_by} made {workload} in {namespace} of {cluster} ({powers}); then {signals} on {nodes}"
needs_level: Request
triage: |
  1. Treat the node as compromised: collect, cordon, isolate, then drain.
  2. Who made the workload, with which image? Cut that identity's access.
  3. Look at the calls of the node's cloud role and at the other pods of the node since then.
benign: Node agents that are being installed or upgraded.
references:
  - https://kubernetes.io/docs/concepts/security/pod-security-standards/
  - https://falco.org/docs/reference/rules/default-rules/
*/
-- A controller's pods are called like their workload, with something after it.
WITH powerful AS (
  SELECT cluster, objectref_namespace AS namespace, time, event_uid, actor_user_name,
         coalesce(objectref_name, raw->'responseObject'->'metadata'->>'name',
                  rtrim(raw->'requestObject'->'metadata'->>'generateName', '-')) AS workload,
         concat_ws(', ', CASE WHEN pod_privileged IS TRUE THEN 'privileged' END,
                         CASE WHEN pod_host_pid IS TRUE THEN 'host processes' END,
                         CASE WHEN cardinality(pod_host_paths) > 0 THEN concat('paths ', array_to_string(pod_host_paths, ' ')) END,
                         CASE WHEN cardinality(pod_caps_added) > 0 THEN concat('capabilities ', array_to_string(pod_caps_added, ' ')) END) AS powers
  FROM   kubernetes_calls
  WHERE  status = 'Success' AND dry_run IS NOT TRUE
    AND  (pod_privileged IS TRUE OR pod_host_process IS TRUE OR pod_host_pid IS TRUE OR pod_host_ipc IS TRUE
       OR array_to_string(pod_host_paths, chr(10)) ~ '(?m)^(/|/(var|run|var/run|var/lib)/?|/(etc|root|home|proc|sys|dev|boot|var/log)(/.*)?|/var/lib/(kubelet|containerd|docker|etcd)(/.*)?|(/var)?/run/(docker\.sock|containerd|crio)(/.*)?)$'
       OR array_has_any(pod_caps_added, ['ALL', 'SYS_ADMIN', 'SYS_PTRACE', 'SYS_MODULE', 'SYS_RAWIO', 'BPF', 'DAC_READ_SEARCH']))
    AND  coalesce(actor_user_type, '') <> 'Node'
),
signs AS (
  SELECT cluster, k8s_ns_name AS namespace, k8s_pod_name AS pod, time, event_uid, rule, hostname, proc_cmdline
  FROM   falco
  WHERE  k8s_pod_name IS NOT NULL
    AND  (rule IN ('Detect release_agent File Container Escapes', 'Change namespace privileges via unshare',
                   'Mount Launched in Privileged Container', 'Debugfs Launched in Privileged Container',
                   'Privileged Container Device Access', 'Container Access to Host Sensitive Paths',
                   'Linux Kernel Module Injection Detected', 'Modify Container Entrypoint', 'Sudo Potential Privilege Escalation',
                   'Unprivileged Delegation of Page Faults Handling to a Userspace Process', 'PTRACE attached to process',
                   'BPF Program Not Profiled', 'Drop and execute new binary in container', 'Container Drift Detected (chmod)',
                   'Container Drift Detected (open+create)', 'Execution from /dev/shm', 'Fileless execution via memfd_create',
                   'Launch Package Management Process in Container', 'Write below binary dir', 'Modify binary dirs')
       OR (rule = 'Change thread namespace' AND proc_name IN ('nsenter', 'unshare', 'sh', 'bash', 'dash', 'ash', 'zsh', 'busybox')))
)
SELECT p.cluster, p.namespace, p.workload,
       array_to_string(array_sort(array_agg(DISTINCT p.actor_user_name)), ', ') AS made_by,
       min(p.powers) AS powers,
       array_to_string(array_sort(array_agg(DISTINCT s.rule)), ', ') AS signals,
       array_to_string(array_sort(array_agg(DISTINCT s.hostname)), ', ') AS nodes,
       min(s.proc_cmdline) AS command,
       min(p.time) AS first_seen,
       array_concat(array_agg(DISTINCT p.event_uid), array_agg(DISTINCT s.event_uid)) AS evidence
FROM   powerful p
JOIN   signs s ON s.cluster = p.cluster AND s.namespace = p.namespace
              AND (s.pod = p.workload OR starts_with(s.pod, concat(p.workload, '-')))
              AND s.time BETWEEN p.time - INTERVAL '2 seconds' AND p.time + INTERVAL '60 minutes'
GROUP  BY p.cluster, p.namespace, p.workload
