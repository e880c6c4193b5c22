/*
title: Token used in another place than where it was issued
severity: high
attack: [T1528, T1550.001]
entity: [cluster, credential_uid]
summary: "A token of {namespace}/{service_account} of {cluster}, given to {requested_by} at {requested_from}, was used from {src_endpoint_ip}"
needs_level: Metadata
suppress: 24h
triage: |
  1. Is the address a proxy or way out of yours? Then tune it out.
  2. Otherwise the token was carried off: delete what it is bound to (`bound_name`) or the service account.
  3. What did the address do with it? Search for the token's id in `actor_user_credential_uid`.
benign: Clients behind changing NAT; CI that mints tokens in one place and uses them in another.
references:
  - https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
*/
-- Kubelets ask for their pods, which have addresses of their own: for those only the Internet is elsewhere. Ids of tokens
-- are there from Kubernetes 1.30 on.
SELECT t.cluster, t.credential_uid, t.namespace, t.service_account, t.requested_by, t.requested_from,
       coalesce(t.bound_kind || '/' || t.bound_name, 'nothing') AS bound_name,
       k.src_endpoint_ip, k.verb, k.request_uri, k.response_code, k.http_request_user_agent
FROM   kubernetes_calls k
JOIN   service_account_tokens t ON t.cluster = k.cluster AND t.credential_uid = k.actor_user_credential_uid
                               AND k.time >= t.valid_from AND k.time < t.valid_to
WHERE  k.actor_user_type = 'ServiceAccount' AND k.src_endpoint_ip IS NOT NULL
  AND  t.requested_from IS NOT NULL AND k.src_endpoint_ip <> t.requested_from
  AND  (ip_is_public(k.src_endpoint_ip) OR coalesce(t.requested_by, '') NOT LIKE 'system:node:%')
