/*
title: Calls of one user to services that date the names of their calls
severity: informational
entity: [event_uid]
summary: "{event_name}"
*/
SELECT event_uid, event_name
FROM   cloudtrail
WHERE  principal LIKE '%:user/bert-jan' AND service_call = false AND event_base_name <> event_name
