/*
title: Any call that failed
severity: informational
entity: [event_uid]
summary: "{event_uid}"
*/
SELECT event_uid FROM cloudtrail WHERE status = 'Failure'
