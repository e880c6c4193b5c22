/*
title: Intrusion into a container, then new calls of the node's role
severity: critical
attack: [T1611, T1078.004, T1552.005]
window: 80m
every: 10m
entity: [cluster, instance]
summary: "{signals} in {pods} on {node} of {cluster}; within an hour the role of {instance} called {calls} from {addresses}"
triage: |
  1. Treat the node as compromised: cordon and isolate it, keep its disk.
  2. Revoke the role's sessions (deny everything issued before now), then see what its calls reached.
  3. Look at every pod of the node: their tokens and secrets were within reach.
benign: A rollout that begins to use the node's role, together with a false alarm of the runtime sensor.
references:
  - https://docs.aws.amazon.com/eks/latest/best-practices/identity-and-access-management.html
  - https://falco.org/docs/reference/rules/default-rules/
*/
-- Kubelets, network and storage plugins and the agents of AWS use the node's role too: what they call says nothing. Time of
-- CloudTrail has whole seconds. Which instance a node is, its kubelet's requests tell, or the node's name does.
WITH intrusions AS (
  SELECT cluster, hostname AS node, time, event_uid, rule, coalesce(k8s_ns_name || '/' || k8s_pod_name, container_id) AS pod,
         proc_cmdline
  FROM   falco
  WHERE  NOT (rule = 'Run shell untrusted' AND coalesce(proc_tty, 0) = 0
              AND coalesce(proc_pname, '') ~ '^(runc|crun|conmon|containerd-shim.*|kubelet|dockerd|crio)$')
    AND  hostname IS NOT NULL AND container_id IS NOT NULL AND container_id NOT IN ('', 'host')
    AND  (rule IN ('Detect release_agent File Container Escapes', 'Change namespace privileges via unshare',
                   'Mount Launched in Privileged Container', 'Debugfs Launched in Privileged Container',
                   'Privileged Container Device Access', 'Container Access to Host Sensitive Paths',
                   'Linux Kernel Module Injection Detected', 'Modify Container Entrypoint', 'Sudo Potential Privilege Escalation',
                   'Polkit Local Privilege Escalation Vulnerability (CVE-2021-4034)',
                   'Unprivileged Delegation of Page Faults Handling to a Userspace Process', 'PTRACE attached to process',
                   'BPF Program Not Profiled', 'Redirect STDOUT/STDIN to Network Connection in Container',
                   'Netcat Remote Code Execution in Container', 'Run shell untrusted', 'Web Server Spawned Shell',
                   'Web Server Spawned Suspicious Child Process', 'Reverse Shell from Web Server', 'DB program spawned process',
                   'Java Process Class File Download', 'Drop and execute new binary in container',
                   'Fileless execution via memfd_create')
       OR (rule = 'Change thread namespace'
           AND proc_name IN ('nsenter', 'unshare', 'sh', 'bash', 'dash', 'ash', 'zsh', 'busybox')))
),
kubelets AS (
  SELECT cluster, substr(actor_user_name, 13) AS node, max(actor_user_session_name) AS instance
  FROM   kubernetes_calls
  WHERE  actor_user_type = 'Node' AND actor_user_session_name LIKE 'i-%' AND objectref_resource IN ('serviceaccounts', 'nodes')
  GROUP  BY cluster, substr(actor_user_name, 13)
),
located AS (
  SELECT a.cluster, a.node, a.time, a.event_uid, a.rule, a.pod, a.proc_cmdline,
         coalesce(k.instance, CASE WHEN a.node ~ '^i-[0-9a-f]{8,17}(\.|$)' THEN split_part(a.node, '.', 1) END) AS instance
  FROM   intrusions a LEFT JOIN kubelets k ON k.cluster = a.cluster AND k.node = a.node
),
calls AS (
  SELECT session_name AS instance, time, event_uid, concat(split_part(event_source, '.', 1), ':', event_base_name) AS call,
         src_endpoint_ip, session_issuer_arn, error_code
  FROM   cloudtrail
  WHERE  session_name LIKE 'i-%' AND coalesce(service_call, false) = false
    AND  coalesce(event_source, '') NOT IN ('ssmmessages.amazonaws.com', 'ec2messages.amazonaws.com')
    AND  event_base_name NOT IN
         ('DescribeInstances', 'DescribeInstanceTypes', 'DescribeInstanceAttribute', 'DescribeNetworkInterfaces', 'DescribeSubnets', 'DescribeSecurityGroups',
          'DescribeVpcs', 'DescribeTags', 'DescribeVolumes', 'DescribeVolumesModifications', 'DescribeAvailabilityZones',
          'DescribeInstanceStatus', 'DescribeRouteTables', 'AssignPrivateIpAddresses', 'UnassignPrivateIpAddresses',
          'AssignIpv6Addresses', 'UnassignIpv6Addresses', 'CreateNetworkInterface', 'AttachNetworkInterface',
          'DetachNetworkInterface', 'DeleteNetworkInterface', 'ModifyNetworkInterfaceAttribute', 'CreateTags', 'AttachVolume',
          'DetachVolume', 'GetAuthorizationToken', 'BatchGetImage', 'BatchCheckLayerAvailability', 'GetDownloadUrlForLayer',
          'DescribeCluster', 'AssumeRoleForPodIdentity', 'UpdateInstanceInformation', 'ListInstanceAssociations',
          'ListAssociations', 'UpdateInstanceAssociationStatus', 'PutInventory', 'PutComplianceItems', 'GetDeployablePatchSnapshotForInstance',
          'RequestManagedInstanceRoleToken', 'DescribeAssociation', 'GetDocument', 'DescribeDocument', 'CreateLogStream',
          'CreateLogGroup', 'DescribeLogStreams', 'DescribeLogGroups', 'PutLogEvents', 'PutRetentionPolicy', 'PutMetricData',
          'GetCallerIdentity', 'DescribeAutoScalingInstances', 'DescribeAutoScalingGroups', 'CompleteLifecycleAction')
)
SELECT l.cluster, l.instance, min(l.node) AS node,
       array_to_string(array_sort(array_agg(DISTINCT l.pod)), ', ') AS pods,
       array_to_string(array_sort(array_agg(DISTINCT l.rule)), ', ') AS signals,
       min(l.proc_cmdline) AS command,
       array_to_string(array_sort(array_agg(DISTINCT c.call)), ', ') AS calls,
       array_to_string(array_sort(array_agg(DISTINCT c.src_endpoint_ip)), ', ') AS addresses,
       min(c.session_issuer_arn) AS role,
       count(DISTINCT CASE WHEN c.error_code IS NULL THEN c.event_uid END) AS succeeded,
       min(l.time) AS first_seen,
       array_concat(array_agg(DISTINCT l.event_uid), array_agg(DISTINCT c.event_uid)) AS evidence
FROM   located l
JOIN   calls c ON c.instance = l.instance
              AND c.time BETWEEN l.time - INTERVAL '2 seconds' AND l.time + INTERVAL '60 minutes'
GROUP  BY l.cluster, l.instance
