/*
title: Crypto-mining
severity: critical
attack: [T1496.001]
entity: [cluster, pod]
summary: "{proc_name} mines in {pod} of {cluster}: {proc_cmdline}"
triage: |
  1. How did it get in: image, exec, or a hole in the application? Look at who made the pod.
  2. Other pods with the same image or command; other regions with new instances.
  3. Stop it only after its origin is known; miners come back by the way they came.
benign: Security research.
references:
  - https://falco.org/docs/reference/rules/default-rules/
*/
-- The process name holds 15 characters, so the path is asked as well.
SELECT cluster, coalesce(k8s_ns_name || '/' || k8s_pod_name, nullif(nullif(container_id, ''), 'host'), hostname, '(unknown)') AS pod,
       rule, priority, hostname, proc_name, proc_cmdline, coalesce(fd_sip, fd_rip, fd_name) AS remote,
       container_image_repository, user_name
FROM   falco
WHERE  rule IN ('Known Cryptominer Process Executed',
                'Detect crypto miners using the Stratum protocol',
                'Detect outbound connections to common miner pool ports')
   OR  lower(proc_cmdline) ~ 'stratum2?\+(tcp|ssl|tls)|--donate-level|\brandomx\b'
   OR  lower(coalesce(proc_exepath, proc_name)) ~ '(^|/)(xmrig|xmr-stak|minerd|cpuminer|ethminer|nbminer|t-rex|lolminer|phoenixminer|kdevtmpfsi|cgminer|bfgminer)$'
