/*
title: Callers on the Internet
severity: informational
entity: [event_uid]
summary: "{src_endpoint_ip}"
*/
SELECT event_uid, src_endpoint_ip FROM cloudtrail WHERE ip_is_public(src_endpoint_ip)
