/*
title: Five failed requests to three kinds of objects
severity: informational
window: 1m
every: 10s
entity: [actor_user_name]
summary: "{actor_user_name}"
*/
SELECT actor_user_name, count(*) AS requests
FROM   kubernetes_calls
WHERE  response_code >= 400
GROUP  BY actor_user_name
HAVING count(*) >= 5 AND count(DISTINCT objectref_resource) >= 3
