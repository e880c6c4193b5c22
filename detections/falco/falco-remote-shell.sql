/*
title: Reverse or web shell
severity: critical
attack: [T1059.004, T1505.003, T1190]
entity: [cluster, pod]
summary: "{rule} in {pod} of {cluster}: {proc_cmdline} (parent {proc_pname})"
triage: |
  1. Who is on the other side (`remote`)? Cut the pod's network, keep it running.
  2. What started the shell? A web server or database as parent is a hole in the application.
  3. What can the pod reach: its service account, the metadata service, secrets in its environment? Take them as stolen.
benign: Entry points that application servers start through a shell.
references:
  - https://falco.org/docs/reference/rules/default-rules/
*/
-- Probes and lifecycle hooks are run by the runtime without a terminal; those are no shells of anybody's.
SELECT cluster, coalesce(k8s_ns_name || '/' || k8s_pod_name, nullif(nullif(container_id, ''), 'host'), hostname, '(unknown)') AS pod,
       rule, priority, hostname, proc_name, proc_cmdline, proc_pname, array_to_string(proc_ancestors, ' < ') AS ancestors,
       coalesce(fd_sip, fd_rip, fd_name) AS remote, container_image_repository, user_name
FROM   falco
WHERE  rule IN ('Redirect STDOUT/STDIN to Network Connection in Container',
                'Netcat Remote Code Execution in Container',
                'Netcat/Socat Remote Code Execution on Host',
                'Run shell untrusted',
                'Web Server Spawned Shell',
                'Web Server Spawned Suspicious Child Process',
                'Reverse Shell from Web Server',
                'DB program spawned process',
                'Java Process Class File Download',
                'Decoding Payload in Container')
  AND  NOT (rule = 'Run shell untrusted' AND coalesce(proc_tty, 0) = 0
            AND coalesce(proc_pname, '') ~ '^(runc|crun|conmon|containerd-shim.*|kubelet|dockerd|crio)$')
