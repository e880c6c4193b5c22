/*
title: A pod's token read, then its cloud role assumed from elsewhere
severity: critical
attack: [T1528, T1552.007, T1550.001]
window: 2h
every: 10m
entity: [cluster, service_account]
summary: "The token of a pod in {namespace} of {cluster} was read ({readers}); then {service_account} assumed {role} from {addresses}"
needs_level: Request
triage: |
  1. Revoke the role's sessions (deny everything issued before now); follow what `keys` called.
  2. Is the address one of your clusters' ways out? If not, the token is out of the house.
  3. Delete the pod: its token ends with it at the API server, but AWS takes it until it expires.
benign: A new way out of the cluster (NAT) that no node has used yet.
references:
  - https://docs.aws.amazon.com/eks/latest/userguide/iam-roles-for-service-accounts.html
*/
-- Pods leave by the same addresses as the nodes they run on, and several workloads share one: an address that neither an
-- instance nor another service account has called from is not the cluster's. Time of CloudTrail has whole seconds.
WITH reads AS (
  SELECT cluster, objectref_namespace AS namespace, objectref_name AS pod, time, event_uid, actor_user_name AS reader
  FROM   kubernetes_calls
  WHERE  objectref_resource = 'pods' AND objectref_subresource = 'exec' AND coalesce(response_code, 101) < 300
    AND  array_to_string(exec_argv, ' ') ~ '/run/secrets/(kubernetes\.io|eks\.amazonaws\.com)'
  UNION ALL
  SELECT cluster, k8s_ns_name AS namespace, k8s_pod_name AS pod, time, event_uid, proc_name AS reader
  FROM   falco
  WHERE  k8s_pod_name IS NOT NULL
    AND  fd_name ~ '/run/secrets/(kubernetes\.io|eks\.amazonaws\.com)'
    AND  (proc_name IN ('cat', 'cp', 'tar', 'base64', 'head', 'tail', 'less', 'more', 'grep', 'dd', 'xxd', 'od', 'sh', 'bash', 'ash', 'dash',
                        'zsh', 'busybox', 'curl', 'wget', 'nc', 'ncat', 'socat', 'scp', 'rsync')
       OR coalesce(proc_tty, 0) <> 0)
),
identities AS (
  SELECT DISTINCT cluster, objectref_namespace AS namespace, raw->'requestObject'->'spec'->'boundObjectRef'->>'name' AS pod,
         objectref_name AS service_account
  FROM   kubernetes_calls
  WHERE  actor_user_type = 'Node' AND objectref_resource = 'serviceaccounts' AND objectref_subresource = 'token'
    AND  raw->'requestObject'->'spec'->'boundObjectRef'->>'name' IS NOT NULL
),
assumed AS (
  SELECT coalesce(web_identity_subject, actor_user_name) AS subject, time, event_uid, src_endpoint_ip, role_arn,
         issued_access_key_id, http_request_user_agent
  FROM   cloudtrail
  WHERE  event_name = 'AssumeRoleWithWebIdentity' AND error_code IS NULL
    AND  coalesce(web_identity_subject, actor_user_name) LIKE 'system:serviceaccount:%'
),
ways_out AS (
  SELECT DISTINCT src_endpoint_ip FROM cloudtrail WHERE session_name LIKE 'i-%' AND src_endpoint_ip IS NOT NULL
  UNION
  SELECT src_endpoint_ip FROM assumed WHERE src_endpoint_ip IS NOT NULL GROUP BY src_endpoint_ip HAVING count(DISTINCT subject) >= 2
),
elsewhere AS (
  SELECT s.subject, s.time, s.event_uid, s.src_endpoint_ip, s.role_arn, s.issued_access_key_id, s.http_request_user_agent
  FROM   assumed s LEFT JOIN ways_out w ON w.src_endpoint_ip = s.src_endpoint_ip
  WHERE  w.src_endpoint_ip IS NULL AND ip_is_public(s.src_endpoint_ip)
)
SELECT r.cluster, a.subject AS service_account, min(r.namespace) AS namespace,
       array_to_string(array_sort(array_agg(DISTINCT concat(r.reader, ' in ', r.pod))), ', ') AS readers,
       min(a.role_arn) AS role,
       array_to_string(array_sort(array_agg(DISTINCT a.src_endpoint_ip)), ', ') AS addresses,
       array_to_string(array_sort(array_agg(DISTINCT a.issued_access_key_id)), ', ') AS keys,
       min(a.http_request_user_agent) AS client,
       min(r.time) AS first_seen,
       array_concat(array_agg(DISTINCT r.event_uid), array_agg(DISTINCT a.event_uid)) AS evidence
FROM   reads r
LEFT JOIN identities i ON i.cluster = r.cluster AND i.namespace = r.namespace AND i.pod = r.pod
JOIN   elsewhere a ON split_part(a.subject, ':', 3) = r.namespace
                AND a.time BETWEEN r.time - INTERVAL '2 seconds' AND r.time + INTERVAL '60 minutes'
WHERE  i.service_account IS NULL OR split_part(a.subject, ':', 4) = i.service_account
GROUP  BY r.cluster, a.subject
