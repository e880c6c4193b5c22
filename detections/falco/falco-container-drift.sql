/*
title: A program that was not in the image ran
severity: high
attack: [T1105, T1059.004, T1525]
entity: [cluster, pod, program]
summary: "{rule}: {program} in {pod} of {cluster} ({proc_cmdline})"
triage: |
  1. Where did the file come from? Look for a download by the same container just before.
  2. Save the file, or the process's memory when there is none, before the pod goes.
  3. Is the image one that installs things while it runs? Then rebuild it.
benign: CI runners and development images that install packages.
references:
  - https://falco.org/docs/reference/rules/default-rules/
*/
SELECT cluster, coalesce(k8s_ns_name || '/' || k8s_pod_name, container_id) AS pod,
       coalesce(proc_exepath, proc_name, '(unknown)') AS program,
       rule, priority, hostname, proc_name, proc_cmdline, proc_pname, fd_name, container_image_repository, user_name
FROM   falco
WHERE  rule IN ('Drop and execute new binary in container',
                'Container Drift Detected (chmod)',
                'Container Drift Detected (open+create)',
                'Execution from /dev/shm',
                'Fileless execution via memfd_create',
                'Launch Package Management Process in Container',
                'Launch Ingress Remote File Copy Tools in Container',
                'Write below binary dir',
                'Modify binary dirs',
                'Update Package Repository')
  AND  container_id IS NOT NULL AND container_id NOT IN ('', 'host')
