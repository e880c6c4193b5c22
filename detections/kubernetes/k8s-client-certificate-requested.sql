/*
title: Client certificate for the API requested
severity: medium
attack: [T1098.001, T1649]
entity: [cluster, csr]
summary: "{actor_user_name} asked {cluster} for a client certificate ({csr}, {signer})"
needs_level: Request
triage: |
  1. Does this identity hand out certificates to people as part of its work?
  2. Whose name is in it? `kubectl get csr <name> -o jsonpath='{.spec.request}' | base64 -d | openssl req -noout -subject`
     shows it; `O=system:masters` is the cluster.
  3. Do not approve it; if it was, see k8s-client-certificate-issued. A certificate cannot be taken back, only its rights.
benign: Tooling that gives people access with certificates.
references:
  - https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
*/
-- Kubelets have a signer of their own. The oldest API leaves the signer out; then the usages tell.
SELECT cluster, coalesce(objectref_name, raw->'responseObject'->'metadata'->>'name', '(unknown)') AS csr,
       actor_user_name, actor_user_type, src_endpoint_ip, http_request_user_agent,
       coalesce(raw->'requestObject'->'spec'->>'signerName', 'no signer') AS signer,
       raw->'requestObject'->'spec'->>'usages' AS usages,
       raw->'requestObject'->'spec'->>'expirationSeconds' AS expiration_seconds
FROM   kubernetes_calls
WHERE  objectref_resource = 'certificatesigningrequests' AND objectref_subresource IS NULL AND verb = 'create'
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  (raw->'requestObject'->'spec'->>'signerName' = 'kubernetes.io/kube-apiserver-client'
     OR (coalesce(raw->'requestObject'->'spec'->>'signerName', 'kubernetes.io/legacy-unknown') = 'kubernetes.io/legacy-unknown'
         AND raw->'requestObject'->'spec'->>'usages' ~ '"client auth"'))
  AND  coalesce(actor_user_type, '') <> 'Node'
  AND  coalesce(actor_user_name, '') NOT LIKE 'system:bootstrap:%'
  AND  coalesce(actor_user_name, '') NOT IN ('system:kube-controller-manager', 'system:apiserver', 'kubelet-bootstrap')
