/*
title: Warnings
severity: informational
entity: [event_uid]
summary: "{rule}"
*/
SELECT event_uid, rule FROM falco WHERE severity = 'warning'
