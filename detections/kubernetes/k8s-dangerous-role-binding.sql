/*
title: Binding gives an over-powerful role, or gives to everybody
severity: high
attack: [T1098.006, T1078]
entity: [cluster, binding]
summary: "{actor_user_name} gave {role} to {subjects} of {cluster} with {binding}"
needs_level: Request
triage: |
  1. To whom? `system:anonymous`, `system:unauthenticated` and `system:authenticated` are everybody on the network:
     remove the binding at once.
  2. Who made it, by which tool, and is an operator being installed?
  3. What did the subjects do since? Look for secrets, exec and further bindings.
benign: Bootstrap of a cluster, operators that are installed with cluster-admin.
references:
  - https://kubernetes.io/docs/concepts/security/rbac-good-practices/
*/
-- `admin` and `edit` are everyday within one namespace, and the whole cluster by a ClusterRoleBinding. A patch may name
-- its subjects and not its role, which cannot change.
SELECT cluster,
       concat(objectref_resource, '/', coalesce(objectref_namespace || '/', ''),
              coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name', '(unknown)')) AS binding,
       actor_user_name, actor_user_type, verb, src_endpoint_ip,
       coalesce(rbac_role_ref_name, '(unchanged role)') AS role,
       coalesce(array_to_string(rbac_subjects, ', '), '(unchanged subjects)') AS subjects
FROM   kubernetes_calls
WHERE  objectref_resource IN ('clusterrolebindings', 'rolebindings') AND verb IN ('create', 'update', 'patch')
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  (rbac_role_ref_name = 'cluster-admin'
     OR (objectref_resource = 'clusterrolebindings'
         AND (rbac_role_ref_name IN ('admin', 'edit', 'system:masters', 'system:kube-controller-manager', 'system:kube-scheduler',
                                     'system:node', 'system:aggregate-to-admin')
           OR rbac_role_ref_name LIKE 'system:controller:%'
           OR rbac_role_ref_name LIKE 'system:%-controller'))
     OR array_to_string(rbac_subjects, chr(10))
        ~ '(?m)^(User/system:anonymous|Group/system:(unauthenticated|authenticated|serviceaccounts))$')
  AND  coalesce(actor_user_name, '') NOT IN ('system:apiserver', 'system:kube-controller-manager')
