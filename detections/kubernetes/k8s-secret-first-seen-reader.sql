/*
title: Secret read by somebody who never read it
severity: low
attack: [T1552.007]
entity: [cluster, namespace, secret, actor_user_name]
summary: "{actor_user_name} read secret {namespace}/{secret} of {cluster} for the first time in 30 days, with {client}"
needs_level: Metadata
triage: |
  1. Is the reader a workload that was just deployed and has this secret in its spec?
  2. A person who reads a secret of production: ask which task it was for.
  3. What else did the reader read in the same hour? Many together are another alert.
  4. Unknown: rotate the secret at its source, then look at where the reader's credential was used.
benign: New services and renamed service accounts.
references:
  - https://kubernetes.io/docs/concepts/security/secrets-good-practices/
*/
-- Kubelets read the secrets of the pods they are given, and built-in controllers all of them. A list or watch of one named
-- secret is a read of it; Helm's own records are no credentials.
SELECT cluster, objectref_namespace AS namespace, objectref_name AS secret, actor_user_name, actor_user_type, verb,
       src_endpoint_ip, coalesce(user_agent_family, '(no user agent)') AS client, http_request_user_agent
FROM   kubernetes_calls
WHERE  objectref_resource = 'secrets' AND verb IN ('get', 'list', 'watch') AND objectref_name IS NOT NULL
  AND  response_code BETWEEN 200 AND 299
  AND  actor_user_type IN ('User', 'ServiceAccount')
  AND  objectref_name NOT LIKE 'sh.helm.release.v1.%'
  AND  actor_user_name IS NOT NULL
  AND  NOT in_lookup('control_loops', actor_user_name)
  AND  actor_user_name <> 'system:serviceaccount:external-secrets:external-secrets'
  AND  first_seen(INTERVAL '30 days', cluster, objectref_namespace, objectref_name, actor_user_name)
