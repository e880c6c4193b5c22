/*
title: Request poses as a privileged identity
severity: high
attack: [T1134, T1078]
entity: [cluster, actor_user_name, posed_as]
summary: "{actor_user_name} of {cluster} acted as {posed_as}: {verb} {target}"
needs_level: Metadata
triage: |
  1. Does this caller pose as others by design (a portal, a GitOps controller), and as this one?
  2. What was done under the borrowed name? The events have it in `impersonated_user_name`.
  3. Take the right to impersonate away from whoever does not need it; it leaves no other trace.
benign: Portals and controllers that act for their users, administrators who test rights with `kubectl auth can-i --as`.
references:
  - https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
*/
SELECT cluster, actor_user_name,
       concat_ws(' in ', impersonated_user_name, nullif(array_to_string(impersonated_user_groups, ', '), '')) AS posed_as,
       verb, coalesce(concat_ws('/', objectref_resource, objectref_namespace, objectref_name), uri_path) AS target,
       src_endpoint_ip, http_request_user_agent
FROM   kubernetes_calls
WHERE  impersonated_user_name IS NOT NULL
  AND  coalesce(authorization_decision, 'allow') = 'allow' AND coalesce(response_code, 200) NOT IN (401, 403)
  AND  (impersonated_user_name IN ('kubernetes-admin', 'system:admin', 'cluster-admin', 'kubernetes-super-admin',
                                   'system:kube-controller-manager', 'system:kube-scheduler', 'system:apiserver')
     OR impersonated_user_name LIKE 'system:node:%'
     OR impersonated_user_name LIKE 'system:serviceaccount:kube-system:%'
     OR array_has_any(impersonated_user_groups, ['system:masters', 'system:nodes', 'system:serviceaccounts:kube-system',
                                                 'kubeadm:cluster-admins', 'cluster-admins']))
