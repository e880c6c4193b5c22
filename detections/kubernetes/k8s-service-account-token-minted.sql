/*
title: Token minted for a service account by hand
severity: high
attack: [T1528, T1550.001, T1098.001]
entity: [cluster, namespace, service_account]
summary: "{actor_user_name} minted a token of {namespace}/{service_account} in {cluster} ({lasts})"
needs_level: Request
triage: |
  1. Who asked, and do they mint tokens as part of their work?
  2. What may this service account do? A token is all of it, for as long as it lasts.
  3. Follow the token: `issued_credential_uid` here is `actor_user_credential_uid` of the requests it makes (Kubernetes
     1.30 and later).
  4. To end a bound token, delete the object it is bound to or the service account; a Secret's token ends with the Secret.
benign: CI that mints short tokens, secret stores and storage plugins that do so for their pods.
references:
  - https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
  - https://kubernetes.io/docs/concepts/configuration/secret/#serviceaccount-token-secrets
*/
-- Kubelets ask for the tokens of their pods, the controller manager for those of its own controllers. A Secret of the
-- token type never ends; its type is only in the body.
SELECT cluster, coalesce(objectref_namespace, '(none)') AS namespace,
       coalesce(raw->'requestObject'->'metadata'->'annotations'->>'kubernetes.io/service-account.name',
                objectref_name, '(unknown)') AS service_account,
       actor_user_name, actor_user_type, src_endpoint_ip, http_request_user_agent, issued_credential_uid,
       CASE WHEN objectref_resource = 'secrets' THEN 'never ends'
            WHEN token_expiration_seconds IS NULL THEN 'lifetime not recorded'
            ELSE concat(token_expiration_seconds, ' seconds') END AS lasts,
       coalesce(token_expiration_seconds > 86400, objectref_resource = 'secrets') AS long_lived
FROM   kubernetes_calls
WHERE  verb = 'create' AND coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  ((objectref_resource = 'serviceaccounts' AND objectref_subresource = 'token')
     OR (objectref_resource = 'secrets' AND raw->'requestObject'->>'type' = 'kubernetes.io/service-account-token'))
  AND  coalesce(actor_user_type, '') <> 'Node'
  AND  NOT (coalesce(objectref_namespace, '') = 'kube-system'
            AND (coalesce(actor_user_name, '') IN ('system:kube-controller-manager', 'system:apiserver')
              OR coalesce(actor_user_name, '') LIKE 'system:serviceaccount:kube-system:%'))
