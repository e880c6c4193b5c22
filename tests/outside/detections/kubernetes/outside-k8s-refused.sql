/*
title: Requests that were refused
severity: informational
entity: [event_uid]
summary: "{response_code}"
*/
SELECT event_uid, response_code FROM kubernetes_calls WHERE response_code IN (401, 403)
