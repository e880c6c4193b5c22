/*
title: Pod probes its neighbours and the API at once
severity: high
attack: [T1046, T1021, T1210, T1613]
window: 10m
every: 1m
entity: [cluster, namespace, pod]
summary: "{namespace}/{pod} of {cluster} reached {peers} addresses inside and was denied {denied} calls of the API"
needs_level: Metadata
triage: |
  1. Which process made the connections? Keep the pod, cut its network.
  2. Which calls of its service account were not denied?
  3. Did a neighbour answer? Look at runtime alerts of the pods behind those addresses.
benign: Service discovery and monitoring that lacks a right.
references:
  - https://kubernetes.io/docs/concepts/services-networking/network-policies/
*/
-- The pod of a token is in the audit log from Kubernetes 1.22 on for bound tokens. The stock rule for connections leaves
-- private addresses out; the one shipped with Stakeout does not.
WITH connections AS (
  SELECT cluster, k8s_ns_name AS namespace, k8s_pod_name AS pod, time, event_uid, coalesce(fd_sip, fd_rip) AS remote, rule
  FROM   falco
  WHERE  k8s_pod_name IS NOT NULL
    AND  ((coalesce(fd_sip, fd_rip) IS NOT NULL AND NOT ip_is_public(coalesce(fd_sip, fd_rip)))
       OR rule = 'Launch Suspicious Network Tool in Container')
),
denials AS (
  SELECT cluster, split_part(actor_user_name, ':', 3) AS namespace, actor_user_pod_name AS pod, time, event_uid, actor_user_name
  FROM   kubernetes_calls
  WHERE  actor_user_type = 'ServiceAccount' AND actor_user_pod_name IS NOT NULL AND response_code IN (401, 403)
),
probing AS (
  SELECT cluster, namespace, pod, count(*) AS denied, min(actor_user_name) AS actor_user_name, min(time) AS first, max(time) AS last,
         array_agg(event_uid) AS uids
  FROM   denials GROUP BY cluster, namespace, pod HAVING count(*) >= 5
),
reaching AS (
  SELECT cluster, namespace, pod, count(DISTINCT remote) AS peers, bool_or(rule = 'Launch Suspicious Network Tool in Container') AS tool,
         min(time) AS first, max(time) AS last, array_agg(event_uid) AS uids
  FROM   connections GROUP BY cluster, namespace, pod
  HAVING count(DISTINCT remote) >= 5 OR bool_or(rule = 'Launch Suspicious Network Tool in Container')
)
SELECT p.cluster, p.namespace, p.pod, p.actor_user_name, r.peers, r.tool, p.denied,
       least(p.first, r.first) AS first_seen,
       array_concat(p.uids, r.uids) AS evidence
FROM   probing p
JOIN   reaching r ON r.cluster = p.cluster AND r.namespace = p.namespace AND r.pod = p.pod
