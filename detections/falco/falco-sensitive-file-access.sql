/*
title: Credential file opened by a process that should not
severity: medium
attack: [T1003.008, T1552.001, T1552.007]
entity: [cluster, pod, proc_name]
summary: "{proc_name} of {pod} in {cluster} opened {file} ({class})"
triage: |
  1. Is the process the workload itself, or something that was started in it (`parent`)?
  2. Take what the file holds as read: tokens and cloud keys first.
  3. Look for their use from other addresses.
benign: Package managers, ssh servers and backup agents on hosts.
references:
  - https://falco.org/docs/reference/rules/default-rules/
*/
-- Being root is no reason to skip: in containers nearly everything is. `/etc/passwd` alone holds no secret.
SELECT cluster, coalesce(k8s_ns_name || '/' || k8s_pod_name, nullif(nullif(container_id, ''), 'host'), hostname, '(unknown)') AS pod,
       coalesce(proc_name, '(unknown)') AS proc_name, rule, priority, hostname,
       coalesce(fd_name, '(not recorded)') AS file, proc_cmdline, proc_pname AS parent, container_image_repository, user_name,
       CASE WHEN fd_name ~ 'run/secrets/(kubernetes\.io|eks\.amazonaws\.com|azure)' THEN 'service account token'
            WHEN fd_name ~ '\.aws/|\.azure/|gcloud/|\.kube/config' THEN 'cloud credentials'
            WHEN fd_name ~ '\.ssh/|id_(rsa|ed25519|ecdsa)' THEN 'ssh keys'
            WHEN fd_name ~ '/(g?shadow|sudoers)' THEN 'password hashes'
            WHEN fd_name ~ '/proc/\w+/environ' THEN 'environment'
            ELSE 'other' END AS class
FROM   falco
WHERE  rule IN ('Sensitive File Open',
                'Read sensitive file untrusted',
                'Read sensitive file trusted after startup',
                'Directory traversal monitored file read',
                'Search Private Keys or Passwords',
                'Find AWS Credentials',
                'Read environment variable from /proc files',
                'Create Symlink Over Sensitive Files',
                'Create Hardlink Over Sensitive Files',
                'Read ssh information')
  AND  coalesce(fd_name, '') <> '/etc/passwd'
