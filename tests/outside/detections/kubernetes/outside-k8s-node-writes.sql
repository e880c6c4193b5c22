/*
title: What nodes write
severity: informational
entity: [event_uid]
summary: "{verb}"
*/
SELECT event_uid, verb
FROM   kubernetes
WHERE  actor_user_name LIKE 'system:node:%' AND verb IN ('create', 'update', 'patch') AND objectref_subresource IS NULL
