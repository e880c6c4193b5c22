/*
title: Many secrets read by one identity
severity: high
attack: [T1552.007]
window: 5m
every: 30s
entity: [cluster, actor_user_name]
summary: "{actor_user_name} read {secrets} secrets in {namespaces} namespaces of {cluster} in five minutes"
needs_level: Metadata
triage: |
  1. Which secrets were read, and who owns them? The evidence lists them by name.
  2. Does this identity read secrets as part of its work? A person seldom reads ten.
  3. Rotate what was read at its source, then cut the identity's access.
benign: Controllers and operators that read all their secrets after a restart.
*/
SELECT cluster, actor_user_name,
       count(DISTINCT concat(objectref_namespace, '/', objectref_name)) AS secrets,
       count(DISTINCT objectref_namespace) AS namespaces,
       min(time) AS first_seen
FROM   kubernetes_calls
WHERE  verb = 'get' AND objectref_resource = 'secrets' AND objectref_name IS NOT NULL
  AND  status = 'Success'
  AND  actor_user_name NOT LIKE 'system:node:%'
GROUP  BY cluster, actor_user_name
HAVING count(DISTINCT concat(objectref_namespace, '/', objectref_name)) >= 10
    OR count(DISTINCT objectref_namespace) >= 3
