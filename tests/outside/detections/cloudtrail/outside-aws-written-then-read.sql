/*
title: A secret's value is written and read within five minutes
severity: informational
window: 6m
every: 1m
entity: [secret]
summary: "{secret}"
*/
SELECT r.target_name AS secret, array_concat(array_agg(w.event_uid), array_agg(r.event_uid)) AS evidence
FROM   cloudtrail w JOIN cloudtrail r
  ON   r.target_name = w.target_name AND r.time BETWEEN w.time AND w.time + INTERVAL '5 minutes'
WHERE  w.event_source = 'secretsmanager.amazonaws.com' AND w.event_name = 'PutSecretValue'
  AND  r.event_source = 'secretsmanager.amazonaws.com' AND r.event_name = 'GetSecretValue'
GROUP  BY r.target_name
