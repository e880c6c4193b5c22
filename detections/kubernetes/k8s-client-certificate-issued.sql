/*
title: Client certificate for the API requested and approved
severity: high
attack: [T1098.001, T1649]
window: 66m
every: 6m
entity: [cluster, csr]
summary: "{requested_by} asked {cluster} for client certificate {csr}, and {approved_by} approved it"
needs_level: Request
triage: |
  1. The same person or address on both sides (`self_approved`)? Then nobody checked.
  2. Whose name is in it? `kubectl get csr <name> -o jsonpath='{.spec.request}' | base64 -d | openssl req -noout -subject`
     shows it.
  3. It cannot be taken back: take away the rights of its name and groups, and for `system:masters` change the
     cluster's CA.
benign: Tooling that gives people access with certificates.
references:
  - https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
*/
WITH requested AS (
  SELECT cluster, objectref_name AS csr, time, event_uid, actor_user_name, src_endpoint_ip
  FROM   kubernetes_calls
  WHERE  objectref_resource = 'certificatesigningrequests' AND objectref_subresource IS NULL AND verb = 'create'
    AND  status = 'Success' AND dry_run IS NOT TRUE AND objectref_name IS NOT NULL
    AND  (raw->'requestObject'->'spec'->>'signerName' = 'kubernetes.io/kube-apiserver-client'
       OR (coalesce(raw->'requestObject'->'spec'->>'signerName', 'kubernetes.io/legacy-unknown') = 'kubernetes.io/legacy-unknown'
           AND raw->'requestObject'->'spec'->>'usages' ~ '"client auth"'))
    AND  coalesce(actor_user_type, '') <> 'Node'
    AND  coalesce(actor_user_name, '') NOT LIKE 'system:bootstrap:%'
),
approved AS (
  SELECT cluster, objectref_name AS csr, time, event_uid, actor_user_name, src_endpoint_ip
  FROM   kubernetes_calls
  WHERE  objectref_resource = 'certificatesigningrequests' AND objectref_subresource = 'approval'
    AND  verb IN ('update', 'patch') AND status = 'Success' AND dry_run IS NOT TRUE
    AND  coalesce(raw->>'requestObject', '"Approved"') ~ '"Approved"'
    AND  coalesce(actor_user_name, '') NOT IN ('system:kube-controller-manager', 'system:serviceaccount:kube-system:certificate-controller')
)
SELECT r.cluster, r.csr,
       min(r.actor_user_name) AS requested_by,
       min(a.actor_user_name) AS approved_by,
       bool_or(r.actor_user_name = a.actor_user_name OR r.src_endpoint_ip = a.src_endpoint_ip) AS self_approved,
       min(r.time) AS first_seen,
       array_concat(array_agg(DISTINCT r.event_uid), array_agg(DISTINCT a.event_uid)) AS evidence
FROM   requested r
JOIN   approved a ON a.cluster = r.cluster AND a.csr = r.csr
                 AND a.time BETWEEN r.time - INTERVAL '2 seconds' AND r.time + INTERVAL '60 minutes'
GROUP  BY r.cluster, r.csr
