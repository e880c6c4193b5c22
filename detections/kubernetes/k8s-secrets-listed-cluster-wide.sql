/*
title: All secrets of the cluster or of a system namespace listed
severity: high
attack: [T1552.007, T1613]
entity: [cluster, actor_user_name]
summary: "{actor_user_name} listed the secrets of {scope} in {cluster} with {client}"
needs_level: Metadata
suppress: 24h
triage: |
  1. A list returns the contents: every secret in its scope is to be taken as read.
  2. Is the caller a controller that watches secrets, with its own client, from inside the cluster?
  3. If not: cut its access, then rotate, beginning with tokens and cloud keys.
benign: Controllers that keep all secrets (ingress, certificates, secret stores, monitoring). Tune them out by name.
references:
  - https://kubernetes.io/docs/concepts/security/secrets-good-practices/
*/
-- A list or watch of one named secret is a read of it. Built-in controllers watch everything by design.
SELECT cluster, actor_user_name, coalesce(objectref_namespace, 'all namespaces') AS scope, verb,
       src_endpoint_ip, ip_is_public(src_endpoint_ip) AS from_internet,
       coalesce(user_agent_family, '(no user agent)') AS client, http_request_user_agent, request_uri
FROM   kubernetes_calls
WHERE  objectref_resource = 'secrets' AND verb IN ('list', 'watch')
  AND  coalesce(response_code, 200) < 300
  AND  (objectref_namespace IS NULL OR objectref_namespace IN ('kube-system', 'kube-public', 'istio-system'))
  AND  objectref_name IS NULL
  AND  coalesce(request_uri, '') NOT LIKE '%fieldSelector=metadata.name%'
  AND  actor_user_name IS NOT NULL AND coalesce(actor_user_type, '') <> 'Node'
  AND  actor_user_name NOT IN ('system:kube-controller-manager', 'system:apiserver', 'system:kube-scheduler')
  AND  NOT in_lookup('control_loops', actor_user_name)
