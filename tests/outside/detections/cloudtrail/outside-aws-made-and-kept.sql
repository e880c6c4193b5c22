/*
title: A role is made and not deleted in the same window
severity: informational
window: 10m
every: 2m
entity: [role]
summary: "{role}"
*/
SELECT m.target_name AS role, array_agg(m.event_uid) AS evidence
FROM   cloudtrail m
LEFT   JOIN (SELECT target_name FROM cloudtrail WHERE event_name = 'DeleteRole' AND status = 'Success') d
  ON   d.target_name = m.target_name
WHERE  m.event_source = 'iam.amazonaws.com' AND m.event_name = 'CreateRole' AND m.status = 'Success'
  AND  d.target_name IS NULL
GROUP  BY m.target_name
