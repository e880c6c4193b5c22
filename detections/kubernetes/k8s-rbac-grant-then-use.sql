/*
title: Fresh grant used at once
severity: high
attack: [T1098.006, T1078]
window: 35m
every: 5m
entity: [cluster, binding, user]
summary: "{granted_by} made {binding} of {cluster}, and {user} used it within half an hour: {first_use}"
needs_level: Request
triage: |
  1. Who made the binding, and is it the same person or address that used it (`self_service`)?
  2. What was done with it: secrets, exec, further bindings?
  3. Delete the binding if nobody can say what it is for.
benign: Operators that start working right after they are installed.
references:
  - https://kubernetes.io/docs/reference/access-authn-authz/rbac/
*/
-- The server says which binding allowed a request, and to whom it gives it. Operators write their bindings again and again
-- with `update`, people do not.
WITH granted AS (
  SELECT cluster, time, event_uid, actor_user_name, src_endpoint_ip, rbac_subjects, rbac_role_ref_name,
         CASE WHEN objectref_resource = 'clusterrolebindings' THEN 'ClusterRoleBinding/' || objectref_name
              ELSE 'RoleBinding/' || objectref_name || '/' || objectref_namespace END AS binding
  FROM   kubernetes_calls
  WHERE  objectref_resource IN ('clusterrolebindings', 'rolebindings') AND status = 'Success' AND dry_run IS NOT TRUE
    AND  (verb IN ('create', 'patch') OR (verb = 'update' AND actor_user_type = 'User'))
),
used AS (
  SELECT cluster, time, event_uid, actor_user_name, src_endpoint_ip, authorization_binding AS binding,
         concat_ws(' ', verb, concat_ws('/', objectref_resource, objectref_subresource)) AS what,
         CASE WHEN actor_user_type = 'ServiceAccount' AND authorization_reason NOT LIKE '% to Group "%'
              THEN 'ServiceAccount/' || actor_user_name
              ELSE regexp_replace(authorization_reason, '^.* to (User|Group) "([^"]*)".*$', '\1/\2') END AS subject
  FROM   kubernetes_calls
  WHERE  authorization_decision = 'allow' AND authorization_binding IS NOT NULL AND actor_user_name IS NOT NULL
    AND  (objectref_resource IN ('secrets', 'roles', 'rolebindings', 'clusterroles', 'clusterrolebindings')
       OR (objectref_resource = 'pods' AND objectref_subresource IN ('exec', 'attach', 'ephemeralcontainers'))
       OR (objectref_resource = 'nodes' AND objectref_subresource = 'proxy')
       OR (objectref_resource = 'serviceaccounts' AND objectref_subresource = 'token'))
)
SELECT g.cluster, g.binding, u.actor_user_name AS user,
       min(g.actor_user_name) AS granted_by,
       max(g.rbac_role_ref_name) AS role,
       count(DISTINCT u.event_uid) AS uses,
       min(u.what) AS first_use,
       bool_or(g.actor_user_name = u.actor_user_name OR g.src_endpoint_ip = u.src_endpoint_ip) AS self_service,
       min(g.time) AS first_seen,
       array_concat(array_agg(DISTINCT g.event_uid), array_agg(DISTINCT u.event_uid)) AS evidence
FROM   granted g
JOIN   used u ON u.cluster = g.cluster AND u.binding = g.binding
            AND u.time BETWEEN g.time - INTERVAL '2 seconds' AND g.time + INTERVAL '30 minutes'
            AND u.event_uid <> g.event_uid
WHERE  g.rbac_subjects IS NULL OR array_has(g.rbac_subjects, u.subject)
GROUP  BY g.cluster, g.binding, u.actor_user_name
