/*
title: A pod is looked at or changed and deleted within a minute
severity: informational
window: 2m
every: 20s
entity: [objectref_namespace, objectref_name]
summary: "{objectref_namespace}/{objectref_name}"
*/
SELECT b.objectref_namespace, b.objectref_name, array_agg(b.event_uid) AS evidence
FROM   kubernetes_calls a JOIN kubernetes_calls b
  ON   b.objectref_namespace = a.objectref_namespace AND b.objectref_name = a.objectref_name
 AND   a.time BETWEEN b.time - INTERVAL '60 seconds' AND b.time
WHERE  a.objectref_resource = 'pods' AND a.objectref_subresource IS NULL AND a.verb IN ('get', 'patch')
  AND  b.objectref_resource = 'pods' AND b.objectref_subresource IS NULL AND b.verb = 'delete'
GROUP  BY b.objectref_namespace, b.objectref_name
