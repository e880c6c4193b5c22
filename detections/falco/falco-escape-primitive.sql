/*
title: Container escape primitive
severity: critical
attack: [T1611, T1068]
entity: [cluster, node, pod]
summary: "{rule} in {pod} on node {node} of {cluster}: {proc_cmdline}"
triage: |
  1. Treat the node as compromised: collect, cordon, isolate, then drain.
  2. Was the pod allowed what it used (privileged, host paths, capabilities)? Who created it?
  3. Look at the calls of the node's cloud role since the pod started.
benign: Node agents that enter namespaces of the host on purpose.
*/
-- Entering a namespace is everyday work of runtimes; by a shell or a namespace tool it is not.
SELECT cluster,
       coalesce(hostname, '(unknown)') AS node,
       coalesce(k8s_ns_name || '/' || k8s_pod_name, container_id) AS pod,
       rule, priority, proc_name, proc_cmdline, container_image_repository
FROM   falco
WHERE  container_id IS NOT NULL AND container_id NOT IN ('', 'host')
  AND  (rule IN ('Detect release_agent File Container Escapes',
                 'Change namespace privileges via unshare',
                 'Mount Launched in Privileged Container',
                 'Debugfs Launched in Privileged Container',
                 'Privileged Container Device Access',
                 'Container Access to Host Sensitive Paths',
                 'Linux Kernel Module Injection Detected',
                 'Modify Container Entrypoint',
                 'Sudo Potential Privilege Escalation',
                 'Polkit Local Privilege Escalation Vulnerability (CVE-2021-4034)',
                 'Unprivileged Delegation of Page Faults Handling to a Userspace Process',
                 'PTRACE attached to process',
                 'BPF Program Not Profiled')
     OR (rule = 'Change thread namespace'
         AND proc_name IN ('nsenter', 'unshare', 'sh', 'bash', 'dash', 'ash', 'zsh', 'busybox')))
