/*
title: Several runtime signals in one pod, or one across many
severity: high
attack: [T1059, T1610, T1021]
window: 10m
every: 1m
entity: [cluster, subject]
summary: "{subject} of {cluster}: {signals} ({alerts} alerts in {pods} pods within ten minutes)"
triage: |
  1. One pod with several signals: read them in order of time; they are the steps of one intrusion.
  2. One signal in many pods: do they share an image version that was just rolled out? If not, something spreads.
  3. What do the pods have in common: service account, node, network?
benign: A new image version that trips the same rule everywhere.
references:
  - https://falco.org/docs/concepts/rules/
*/
-- Probes are run by the runtime without a terminal. The two rules that count ordinary connections would make every busy pod a finding.
WITH alerts AS (
  SELECT cluster, time, event_uid, rule, k8s_ns_name,
         concat(k8s_ns_name, '/', k8s_pod_name) AS pod,
         CASE WHEN rule IN ('Detect release_agent File Container Escapes', 'Change namespace privileges via unshare',
                            'Mount Launched in Privileged Container', 'Debugfs Launched in Privileged Container',
                            'Privileged Container Device Access', 'Container Access to Host Sensitive Paths',
                            'Linux Kernel Module Injection Detected', 'PTRACE attached to process') THEN 'escape'
              WHEN rule IN ('Redirect STDOUT/STDIN to Network Connection in Container', 'Netcat Remote Code Execution in Container',
                            'Run shell untrusted', 'Web Server Spawned Shell', 'Reverse Shell from Web Server',
                            'DB program spawned process') THEN 'remote shell'
              WHEN rule IN ('Drop and execute new binary in container', 'Container Drift Detected (chmod)',
                            'Container Drift Detected (open+create)', 'Execution from /dev/shm',
                            'Fileless execution via memfd_create', 'Launch Package Management Process in Container') THEN 'drift'
              WHEN rule IN ('Read sensitive file untrusted', 'Search Private Keys or Passwords', 'Find AWS Credentials',
                            'Sensitive File Open', 'Read environment variable from /proc files') THEN 'credentials'
              WHEN rule IN ('Contact EC2 Instance Metadata Service From Container',
                            'Contact cloud metadata service from container') THEN 'metadata service'
              WHEN rule IN ('Known Cryptominer Process Executed', 'Detect crypto miners using the Stratum protocol',
                            'Detect outbound connections to common miner pool ports') THEN 'mining' END AS class
  FROM   falco
  WHERE  k8s_pod_name IS NOT NULL
    AND  severity IN ('emergency', 'alert', 'critical', 'error', 'warning', 'notice')
    AND  rule NOT IN ('Unexpected outbound connection', 'Contact K8S API Server From Container')
    AND  NOT (rule = 'Run shell untrusted' AND coalesce(proc_tty, 0) = 0
              AND coalesce(proc_pname, '') ~ '^(runc|crun|conmon|containerd-shim.*|kubelet|dockerd|crio)$')
)
SELECT cluster, pod AS subject, count(*) AS alerts, 1 AS pods,
       array_to_string(array_sort(array_agg(DISTINCT rule)), ', ') AS signals,
       min(time) AS first_seen, array_agg(event_uid) AS evidence
FROM   alerts
GROUP  BY cluster, pod
HAVING count(DISTINCT rule) >= 3 OR count(DISTINCT class) >= 2
UNION ALL
SELECT cluster, rule AS subject, count(*) AS alerts, count(DISTINCT pod) AS pods,
       concat('in ', count(DISTINCT k8s_ns_name), ' namespaces') AS signals,
       min(time) AS first_seen, array_agg(event_uid) AS evidence
FROM   alerts
GROUP  BY cluster, rule
HAVING count(DISTINCT pod) >= 5 AND count(DISTINCT k8s_ns_name) >= 2
