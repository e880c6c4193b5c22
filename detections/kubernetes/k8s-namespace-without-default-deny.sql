/*
title: Namespace lives without a default-deny policy
severity: low
attack: [T1210, T1021]
window: 3h
every: 15m
entity: [cluster, namespace]
summary: "Pods run in {namespace} of {cluster}, made by {created_by}, and nothing denies their traffic"
needs_level: Request
triage: |
  1. Is the namespace to be exempt (system, short-lived preview)? Then tune it out with an expiry.
  2. Otherwise add a NetworkPolicy with an empty pod selector, both policy types and no rules, and allow what is needed.
benign: Preview namespaces, clusters that enforce policies cluster-wide.
references:
  - https://kubernetes.io/docs/concepts/services-networking/network-policies/#default-policies
*/
-- Judged by its first sign of life a quarter of an hour after its creation: a pod that is made, or a kubelet that renews the
-- token of one. Ingress and egress may be denied by two policies; policies of other makers are taken at their word.
WITH made AS (
  SELECT cluster, objectref_name AS namespace, time, event_uid, actor_user_name
  FROM   kubernetes_calls
  WHERE  objectref_resource = 'namespaces' AND objectref_subresource IS NULL AND verb = 'create'
    AND  status = 'Success' AND dry_run IS NOT TRUE
    AND  objectref_name NOT LIKE 'kube-%' AND objectref_name NOT LIKE 'openshift%' AND objectref_name <> 'default'
),
alive AS (
  SELECT cluster, objectref_namespace AS namespace, time, event_uid
  FROM   kubernetes_calls
  WHERE  verb = 'create' AND status = 'Success' AND dry_run IS NOT TRUE
    AND  ((objectref_resource = 'pods' AND objectref_subresource IS NULL)
       OR (objectref_resource = 'serviceaccounts' AND objectref_subresource = 'token' AND actor_user_type = 'Node'))
),
policies AS (
  SELECT cluster, objectref_namespace AS namespace,
         CASE WHEN raw->>'requestObject' IS NULL OR objectref_resource <> 'networkpolicies' THEN true
              ELSE coalesce(raw->'requestObject'->'spec'->>'policyTypes', '["Ingress"]') LIKE '%"Ingress"%'
                   AND coalesce(raw->'requestObject'->'spec'->>'ingress', '[]') = '[]' END AS ingress,
         CASE WHEN raw->>'requestObject' IS NULL OR objectref_resource <> 'networkpolicies' THEN true
              ELSE coalesce(raw->'requestObject'->'spec'->>'policyTypes', '') LIKE '%"Egress"%'
                   AND coalesce(raw->'requestObject'->'spec'->>'egress', '[]') = '[]' END AS egress
  FROM   kubernetes_calls
  WHERE  objectref_resource IN ('networkpolicies', 'ciliumnetworkpolicies') AND verb IN ('create', 'update', 'patch')
    AND  status = 'Success' AND dry_run IS NOT TRUE
    AND  (raw->>'requestObject' IS NULL OR objectref_resource <> 'networkpolicies'
       OR coalesce(raw->'requestObject'->'spec'->>'podSelector', '{}') = '{}')
),
denied AS (
  SELECT cluster, namespace FROM policies GROUP BY cluster, namespace HAVING bool_or(ingress) AND bool_or(egress)
)
SELECT m.cluster, m.namespace, min(m.actor_user_name) AS created_by,
       min(m.time) AS first_seen,
       array_concat(array_agg(DISTINCT m.event_uid), array_agg(DISTINCT l.event_uid)) AS evidence
FROM   made m
JOIN   alive l ON l.cluster = m.cluster AND l.namespace = m.namespace AND l.time >= m.time + INTERVAL '15 minutes'
LEFT JOIN denied d ON d.cluster = m.cluster AND d.namespace = m.namespace
WHERE  d.namespace IS NULL
GROUP  BY m.cluster, m.namespace
