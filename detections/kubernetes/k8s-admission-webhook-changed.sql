/*
title: Admission control changed
severity: high
attack: [T1546, T1685, T1557]
entity: [cluster, object]
summary: "{actor_user_name} did {verb} on {object} of {cluster}"
needs_level: Metadata
triage: |
  1. Deleted, or `failurePolicy: Ignore`? Then what it refused is let in now: look at what was made since.
  2. Does a new one see secrets or tokens, or call an address outside the cluster? Then it is a tap.
  3. Is an operator being installed by this identity and now?
benign: Installing and upgrading operators; certificate managers that renew a webhook's CA bundle are left out.
references:
  - https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
*/
-- A patch of nothing but CA bundles is a renewal, whoever makes it.
SELECT cluster,
       concat(objectref_resource, '/', coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name', '(all)')) AS object,
       actor_user_name, actor_user_type, verb, src_endpoint_ip, http_request_user_agent,
       coalesce(raw->>'requestObject' ~ '"url"\s*:\s*"https?://', false) AS calls_url,
       coalesce(raw->>'requestObject' ~ '"failurePolicy"\s*:\s*"Ignore"', false) AS ignores_failure,
       coalesce(raw->>'requestObject' ~ '"resources"\s*:\s*\[[^\]]*"(\*|\*/\*|secrets|serviceaccounts/token)"', false) AS sees_secrets
FROM   kubernetes_calls
WHERE  objectref_resource IN ('mutatingwebhookconfigurations', 'validatingwebhookconfigurations', 'validatingadmissionpolicies',
                              'validatingadmissionpolicybindings', 'mutatingadmissionpolicies', 'mutatingadmissionpolicybindings')
  AND  objectref_subresource IS NULL
  AND  verb IN ('create', 'update', 'patch', 'delete', 'deletecollection')
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  coalesce(actor_user_name, '') NOT IN ('system:apiserver', 'system:kube-controller-manager')
  AND  coalesce(actor_user_name, '') NOT LIKE 'eks:%'
  AND  NOT (verb = 'patch'
            AND regexp_count(coalesce(raw->>'requestObject', ''), '"path"\s*:') > 0
            AND regexp_count(coalesce(raw->>'requestObject', ''), '"path"\s*:') =
                regexp_count(coalesce(raw->>'requestObject', ''), '"path"\s*:\s*"/webhooks/\d+/clientConfig/caBundle"'))
  AND  NOT (verb IN ('update', 'patch')
            AND coalesce(actor_user_name, '') = 'system:serviceaccount:cert-manager:cert-manager-cainjector')
