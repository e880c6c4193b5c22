/*
title: Role made or widened with rights that lead to all others
severity: high
attack: [T1098.006]
entity: [cluster, role]
summary: "{actor_user_name} wrote {role} of {cluster}: {rights}"
needs_level: Request
triage: |
  1. Which rights? `*`, bind, escalate and impersonate are the cluster; secrets, exec and tokens are its workloads.
  2. Who is bound to the role? See the bindings that name it.
  3. Is an operator being installed, or does a person widen their own role?
benign: Operators that are installed or upgraded. Applying an unchanged role again shows here too.
references:
  - https://kubernetes.io/docs/concepts/security/rbac-good-practices/#privilege-escalation-risks
*/
-- Left out on purpose: creating tokenreviews, which every metrics proxy needs and which only checks a token one already
-- has; reading nodes and volumes. Secrets by name are what RBAC is for.
SELECT cluster,
       concat(objectref_resource, '/', coalesce(objectref_namespace || '/', ''),
              coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name', '(unknown)')) AS role,
       actor_user_name, actor_user_type, verb, src_endpoint_ip,
       coalesce(substr(array_to_string(rbac_rules, ', '), 1, 1000), '(a role of the system itself)') AS rights
FROM   kubernetes_calls
WHERE  objectref_resource IN ('clusterroles', 'roles')
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  ((verb IN ('create', 'update', 'patch')
         AND array_to_string(rbac_rules, chr(10)) ~ '(?m)^(\* [^/]|\S+ (\*|\*\..*|nodes/proxy(\.\*)?|nodes/\*(\.\*)?|pods/\*(\.\*)?)$|(bind|escalate|impersonate) |(get|list|watch) secrets(\.\*)?$|(create|get) pods/(exec|attach)(\.\*)?(\[|$)|(create|update|patch) (pods/ephemeralcontainers|serviceaccounts/token)(\.\*)?(\[|$)|(create|update|patch|delete|deletecollection) (nodes|persistentvolumes)(\.\*)?(\[|$)|(approve|sign) (signers|certificatesigningrequests)|(update|patch) certificatesigningrequests/approval|(create|update|patch|delete|deletecollection) ((mutating|validating)webhookconfigurations|(mutating|validating)admissionpolic)|(update|patch|delete) configmaps(\.\*)?\[[^\]]*\baws-auth\b)')
     OR (verb IN ('update', 'patch', 'delete', 'deletecollection')
         AND objectref_name LIKE 'system:%' AND objectref_name NOT LIKE 'system:coredns%'))
  AND  coalesce(actor_user_name, '') NOT IN
       ('system:apiserver', 'system:kube-controller-manager', 'system:serviceaccount:kube-system:clusterrole-aggregation-controller')
