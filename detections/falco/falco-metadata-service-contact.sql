/*
title: A container asks the metadata service as its image never did
severity: medium
attack: [T1552.005]
entity: [cluster, namespace, image]
summary: "{image} in {namespace} of {cluster} asked the metadata service for the first time in two weeks: {proc_cmdline} ({how})"
triage: |
  1. By hand (a terminal, a shell, curl)? Then take the node's credentials as read, and look for their use elsewhere.
  2. By the workload? Then it uses the node's role: give it one of its own.
  3. Close the way: hop limit 1, IMDSv2 only, a network policy.
benign: SDKs that look for credentials in a workload without a role of its own.
references:
  - https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
*/
-- 169.254.170.2 gives credentials to tasks of ECS, 169.254.170.23 to pods with an identity of EKS.
SELECT cluster, coalesce(k8s_ns_name, '(no namespace)') AS namespace,
       coalesce(container_image_repository, container_id) AS image,
       k8s_pod_name AS pod, hostname, rule, proc_name, proc_cmdline, proc_pname, coalesce(fd_sip, fd_rip, fd_name) AS remote,
       CASE WHEN coalesce(proc_tty, 0) <> 0 THEN 'from a terminal'
            WHEN proc_name IN ('sh', 'bash', 'ash', 'dash', 'zsh', 'busybox', 'curl', 'wget', 'nc', 'ncat', 'socat')
            THEN 'by a tool' ELSE 'by the workload' END AS how
FROM   falco
WHERE  container_id IS NOT NULL AND container_id NOT IN ('', 'host')
  AND  (rule IN ('Contact EC2 Instance Metadata Service From Container', 'Contact cloud metadata service from container')
     OR coalesce(fd_sip, '') IN ('169.254.169.254', 'fd00:ec2::254', '169.254.170.2', '169.254.170.23')
     OR coalesce(fd_rip, '') IN ('169.254.169.254', 'fd00:ec2::254', '169.254.170.2', '169.254.170.23'))
  AND  first_seen(INTERVAL '14 days', cluster, coalesce(k8s_ns_name, '(no namespace)'),
                  coalesce(container_image_repository, container_id))
