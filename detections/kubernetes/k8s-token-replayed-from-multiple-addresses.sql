/*
title: One service account token used from several addresses
severity: high
attack: [T1550.001, T1528]
window: 15m
every: 90s
entity: [cluster, token]
summary: "{actor_user_name} of {cluster} called from {addresses} addresses with one token ({token}): {from_addresses}"
needs_level: Metadata
triage: |
  1. Which address is the pod's own (`actor_user_pod_name`), and what is the other?
  2. If the other is no node or proxy of yours, the token was carried off: delete the pod, which ends its token.
  3. What did the other address do? Look at its requests by token and by address.
benign: Proxies and NAT with several addresses between the pods and the API server; pods with two network stacks.
references:
  - https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
*/
-- The address is the last of the list, the one that the server saw itself: the others are the caller's own words. A pod may
-- have one address of each family.
SELECT cluster, coalesce(actor_user_credential_uid, 'pod ' || actor_user_pod_uid) AS token,
       max(actor_user_name) AS actor_user_name,
       max(actor_user_pod_name) AS actor_user_pod_name,
       count(DISTINCT array_element(source_ips, -1)) AS addresses,
       concat(min(array_element(source_ips, -1)), ', ', max(array_element(source_ips, -1))) AS from_addresses,
       count(DISTINCT user_agent_family) AS clients,
       min(time) AS first_seen
FROM   kubernetes_calls
WHERE  actor_user_type = 'ServiceAccount'
  AND  coalesce(actor_user_credential_uid, actor_user_pod_uid) IS NOT NULL
  AND  cardinality(source_ips) > 0
GROUP  BY cluster, coalesce(actor_user_credential_uid, 'pod ' || actor_user_pod_uid)
HAVING count(DISTINCT CASE WHEN array_element(source_ips, -1) NOT LIKE '%:%' THEN array_element(source_ips, -1) END) >= 2
    OR count(DISTINCT CASE WHEN array_element(source_ips, -1) LIKE '%:%' THEN array_element(source_ips, -1) END) >= 2
