/*
title: One identity opens shells in many pods
severity: high
attack: [T1609, T1021.007]
window: 10m
every: 1m
entity: [cluster, actor_user_name]
summary: "{actor_user_name} ran commands in {pods} pods of {namespaces} namespaces of {cluster} within ten minutes"
needs_level: Metadata
triage: |
  1. Is it a person or a tool? See the user agent and the commands.
  2. Ask the user through another channel whether this was them.
  3. Which of the pods have service accounts or secrets worth stealing? Begin there.
benign: Backup and log-collection jobs, checks during an upgrade.
references:
  - https://kubernetes.io/docs/tasks/debug/debug-application/get-shell-running-container/
*/
SELECT cluster, actor_user_name,
       count(DISTINCT concat(objectref_namespace, '/', objectref_name)) AS pods,
       count(DISTINCT objectref_namespace) AS namespaces,
       count(*) AS sessions,
       max(http_request_user_agent) AS client,
       min(time) AS first_seen
FROM   kubernetes_calls
WHERE  objectref_resource = 'pods' AND objectref_subresource IN ('exec', 'attach')
  AND  verb IN ('create', 'get') AND coalesce(response_code, 101) < 300
GROUP  BY cluster, actor_user_name
HAVING count(DISTINCT concat(objectref_namespace, '/', objectref_name)) >= 5
    OR count(DISTINCT objectref_namespace) >= 3
