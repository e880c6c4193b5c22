/*
title: Anonymous request allowed
severity: high
attack: [T1190, T1078.001]
entity: [cluster, src]
summary: "An anonymous request from {src} was allowed by {cluster}: {verb} {uri_path}"
needs_level: Metadata
triage: |
  1. Which binding allowed it (`authorization_reason`)? Remove anonymous and unauthenticated subjects from it.
  2. Is the API server reachable from this address on purpose?
  3. Everything from the address since then is the same caller: look for secrets and writes first.
benign: Clusters that publish discovery or a token issuer on purpose, beyond what is left out here.
references:
  - https://kubernetes.io/docs/reference/access-authn-authz/authentication/#anonymous-requests
*/
-- Health, version and the issuer's keys are public by default; so is `cluster-info`, which `kubeadm join` reads.
SELECT cluster, coalesce(src_endpoint_ip, '(unknown)') AS src,
       verb, coalesce(uri_path, request_uri, '(unknown)') AS uri_path, objectref_resource, objectref_namespace, objectref_name,
       http_request_user_agent, authorization_reason, response_code,
       ip_is_public(src_endpoint_ip) AS from_internet
FROM   kubernetes_calls
WHERE  (actor_user_name = 'system:anonymous' OR array_has(actor_user_groups, 'system:unauthenticated'))
  AND  (authorization_decision = 'allow' OR (authorization_decision IS NULL AND status = 'Success'))
  AND  coalesce(response_code, 200) NOT IN (401, 403)
  AND  NOT coalesce(coalesce(verb, 'get') IN ('get', 'head') AND uri_path ~ '^/(healthz|livez|readyz)(/.*)?$', false)
  AND  NOT coalesce(coalesce(verb, 'get') IN ('get', 'head') AND uri_path IN ('/version', '/version/', '/openid/v1/jwks', '/openid/v1/jwks/',
             '/.well-known/openid-configuration', '/.well-known/openid-configuration/',
             '/api/v1/namespaces/kube-public/configmaps/cluster-info'), false)
