/*
title: Remote session to a node, then runtime alerts there
severity: high
attack: [T1651, T1021.004, T1059.004]
window: 50m
every: 10m
entity: [cluster, instance]
summary: "{opened_by} opened {calls} to {instance} ({node} of {cluster}); then {signals}"
triage: |
  1. CloudTrail hides what a command did: the runtime alerts are the only sight of it. Read them in order.
  2. Ask the person behind the session through another channel.
  3. History or logs cleared, keys added, jobs scheduled: treat the node as compromised, keep its disk.
benign: Patching, planned maintenance on the node.
references:
  - https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager.html
*/
WITH sessions AS (
  SELECT time, event_uid, event_name, principal, src_endpoint_ip, raw->>'requestParameters' AS parameters
  FROM   cloudtrail
  WHERE  event_name IN ('StartSession', 'SendCommand', 'SendSSHPublicKey', 'SendSerialConsoleSSHPublicKey')
    AND  error_code IS NULL
    AND  coalesce(raw->'requestParameters'->>'documentName', '') NOT IN ('AWS-RunPatchBaseline', 'AWS-GatherSoftwareInventory', 'AWS-UpdateSSMAgent')
),
alerts AS (
  SELECT cluster, hostname AS node, time, event_uid, rule, proc_cmdline
  FROM   falco
  WHERE  hostname IS NOT NULL AND coalesce(container_id, 'host') IN ('', 'host')
    AND  (severity IN ('emergency', 'alert', 'critical', 'error', 'warning')
       OR rule IN ('Clear Log Activities', 'Delete or rename shell history', 'Set Setuid or Setgid bit', 'Schedule Cron Jobs',
                   'Adding ssh keys to authorized_keys', 'User mgmt binaries'))
    AND  rule NOT LIKE 'Falco internal:%'
),
kubelets AS (
  SELECT cluster, substr(actor_user_name, 13) AS node, max(actor_user_session_name) AS instance
  FROM   kubernetes_calls
  WHERE  actor_user_type = 'Node' AND actor_user_session_name LIKE 'i-%' AND objectref_resource IN ('serviceaccounts', 'nodes')
  GROUP  BY cluster, substr(actor_user_name, 13)
),
located AS (
  SELECT a.cluster, a.node, a.time, a.event_uid, a.rule, a.proc_cmdline,
         coalesce(k.instance, CASE WHEN a.node ~ '^i-[0-9a-f]{8,17}(\.|$)' THEN split_part(a.node, '.', 1) END) AS instance
  FROM   alerts a LEFT JOIN kubelets k ON k.cluster = a.cluster AND k.node = a.node
)
SELECT l.cluster, l.instance, min(l.node) AS node,
       array_to_string(array_sort(array_agg(DISTINCT s.principal)), ', ') AS opened_by,
       array_to_string(array_sort(array_agg(DISTINCT s.event_name)), ', ') AS calls,
       array_to_string(array_sort(array_agg(DISTINCT l.rule)), ', ') AS signals,
       min(l.proc_cmdline) AS command, min(s.src_endpoint_ip) AS src_endpoint_ip,
       min(s.time) AS first_seen,
       array_concat(array_agg(DISTINCT s.event_uid), array_agg(DISTINCT l.event_uid)) AS evidence
FROM   located l
JOIN   sessions s ON s.parameters LIKE concat('%', l.instance, '%')
                 AND l.time BETWEEN s.time - INTERVAL '2 seconds' AND s.time + INTERVAL '30 minutes'
GROUP  BY l.cluster, l.instance
