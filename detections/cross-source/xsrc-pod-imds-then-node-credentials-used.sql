/*
title: Pod asked the metadata service, then the node's role was used for something new
severity: critical
attack: [T1552.005, T1078.004, T1611]
window: 80m
every: 10m
entity: [cluster, instance]
summary: "{pods} of {cluster} asked the metadata service of {node} ({instance}); then its role called {calls} from {addresses}"
needs_level: Request
triage: |
  1. Revoke the role's sessions (deny everything issued before now) before anything else; the node keeps working with
     new ones.
  2. What did the calls reach? Begin with what succeeded: secrets, buckets, roles assumed.
  3. How did the process get into the pod? See who made it and what it runs.
  4. Let pods reach the metadata service no longer: hop limit 1, IMDSv2 only, a network policy.
benign: Pods without a role of their own that use the node's on purpose, with calls beyond those of a node.
references:
  - https://docs.aws.amazon.com/eks/latest/best-practices/identity-and-access-management.html
  - https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
*/
-- Kubelets, network and storage plugins and the agents of AWS use the node's role too: what they call says nothing. Time of
-- CloudTrail has whole seconds. Which instance a node is, its kubelet's requests tell, or the node's name does.
WITH contacts AS (
  SELECT cluster, hostname AS node, time, event_uid, coalesce(k8s_ns_name || '/' || k8s_pod_name, container_id) AS pod, proc_cmdline
  FROM   falco
  WHERE  (rule IN ('Contact EC2 Instance Metadata Service From Container', 'Contact cloud metadata service from container')
       OR fd_sip IN ('169.254.169.254', 'fd00:ec2::254') OR fd_rip IN ('169.254.169.254', 'fd00:ec2::254'))
    AND  container_id IS NOT NULL AND container_id NOT IN ('', 'host') AND hostname IS NOT NULL
    AND  coalesce(container_image_repository, '') !~ '/(amazon-k8s-cni|aws-ebs-csi-driver|aws-efs-csi-driver|aws-node-termination-handler|eks-pod-identity-agent)$'
),
kubelets AS (
  SELECT cluster, substr(actor_user_name, 13) AS node, max(actor_user_session_name) AS instance
  FROM   kubernetes_calls
  WHERE  actor_user_type = 'Node' AND actor_user_session_name LIKE 'i-%' AND objectref_resource IN ('serviceaccounts', 'nodes')
  GROUP  BY cluster, substr(actor_user_name, 13)
),
placed AS (
  SELECT objectref_namespace AS namespace, cluster, substr(actor_user_name, 13) AS node,
         raw->'requestObject'->'spec'->'boundObjectRef'->>'name' AS pod
  FROM   kubernetes_calls
  WHERE  actor_user_type = 'Node' AND objectref_resource = 'serviceaccounts' AND objectref_subresource = 'token'
    AND  raw->'requestObject'->'spec'->'boundObjectRef'->>'name' IS NOT NULL
),
execs AS (
  SELECT x.cluster, p.node, x.time, x.event_uid, concat(x.objectref_namespace, '/', x.objectref_name) AS pod,
         array_to_string(x.exec_argv, ' ') AS proc_cmdline
  FROM   kubernetes_calls x
  JOIN  (SELECT DISTINCT cluster, namespace, pod, node FROM placed) p
    ON   p.cluster = x.cluster AND p.namespace = x.objectref_namespace AND p.pod = x.objectref_name
  WHERE  x.objectref_resource = 'pods' AND x.objectref_subresource = 'exec' AND coalesce(x.response_code, 101) < 300
    AND  array_to_string(x.exec_argv, ' ') ~ '169\.254\.169\.254|fd00:ec2::254|2852039166|0xa9fea9fe'
),
asked AS (
  SELECT cluster, node, time, event_uid, pod, proc_cmdline FROM contacts
  UNION ALL
  SELECT cluster, node, time, event_uid, pod, proc_cmdline FROM execs
),
located AS (
  SELECT a.cluster, a.node, a.time, a.event_uid, a.pod, a.proc_cmdline,
         coalesce(k.instance, CASE WHEN a.node ~ '^i-[0-9a-f]{8,17}(\.|$)' THEN split_part(a.node, '.', 1) END) AS instance
  FROM   asked a LEFT JOIN kubelets k ON k.cluster = a.cluster AND k.node = a.node
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
