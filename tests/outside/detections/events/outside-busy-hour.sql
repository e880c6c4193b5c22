/*
title: A hundred events of one source within an hour
severity: informational
window: 1h
every: 30m
entity: [source]
summary: "{source} {events}"
*/
SELECT source, count(*) AS events FROM events GROUP BY source HAVING count(*) >= 100
