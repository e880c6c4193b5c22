/*
title: Shell on a node without an access session
severity: high
attack: [T1021.004, T1059.004, T1078]
window: 510m
every: 30m
entity: [cluster, node]
summary: "{rules} on node {node} ({instance}) of {cluster}: {command}, and no session was opened to it in eight hours"
triage: |
  1. Is there another way in that is sanctioned (a bastion, a console of the provider)? Check its log.
  2. Who is logged in, from where, since when? Look at the node itself, or at its disk.
  3. Treat the node as compromised until that is known: cordon it, keep it.
benign: Logins through a bastion that this log does not have.
references:
  - https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager.html
  - https://falco.org/docs/reference/rules/default-rules/
*/
-- Which instance a node is, its kubelet's requests tell on EKS, or the node's name does. Where neither is known there is no
-- saying that a session is absent.
WITH shells AS (
  SELECT cluster, hostname AS node, time, event_uid, rule, proc_cmdline, user_name
  FROM   falco
  WHERE  rule IN ('System user interactive', 'Launch Suspicious Network Tool on Host', 'User mgmt binaries',
                  'Netcat/Socat Remote Code Execution on Host')
    AND  coalesce(container_id, 'host') IN ('', 'host') AND coalesce(proc_tty, 0) <> 0
    AND  hostname IS NOT NULL
),
kubelets AS (
  SELECT cluster, substr(actor_user_name, 13) AS node, max(actor_user_session_name) AS instance
  FROM   kubernetes_calls
  WHERE  actor_user_type = 'Node' AND actor_user_session_name LIKE 'i-%' AND objectref_resource IN ('serviceaccounts', 'nodes')
  GROUP  BY cluster, substr(actor_user_name, 13)
),
located AS (
  SELECT s.cluster, s.node, s.time, s.event_uid, s.rule, s.proc_cmdline, s.user_name,
         coalesce(k.instance, CASE WHEN s.node ~ '^i-[0-9a-f]{8,17}(\.|$)' THEN split_part(s.node, '.', 1) END) AS instance
  FROM   shells s LEFT JOIN kubelets k ON k.cluster = s.cluster AND k.node = s.node
),
sessions AS (
  SELECT time, event_uid, raw->>'requestParameters' AS parameters
  FROM   cloudtrail
  WHERE  event_name IN ('StartSession', 'ResumeSession', 'SendCommand', 'SendSSHPublicKey', 'SendSerialConsoleSSHPublicKey')
    AND  error_code IS NULL
),
debuggers AS (
  SELECT cluster, objectref_name AS name, time, event_uid
  FROM   kubernetes_calls
  WHERE  objectref_resource = 'pods' AND verb = 'create' AND objectref_name LIKE 'node-debugger-%' AND status = 'Success'
)
SELECT l.cluster, l.node, l.instance,
       min(l.rule) AS rules, min(l.proc_cmdline) AS command, min(l.user_name) AS user_name,
       min(l.time) AS first_seen,
       array_agg(DISTINCT l.event_uid) AS evidence
FROM   located l
LEFT JOIN sessions s ON s.parameters LIKE concat('%', l.instance, '%')
                    AND s.time BETWEEN l.time - INTERVAL '8 hours' AND l.time + INTERVAL '2 seconds'
LEFT JOIN debuggers d ON d.cluster = l.cluster AND d.name LIKE concat('node-debugger-', l.node, '-%')
                     AND d.time BETWEEN l.time - INTERVAL '8 hours' AND l.time + INTERVAL '2 seconds'
WHERE  l.instance IS NOT NULL AND s.event_uid IS NULL AND d.event_uid IS NULL
GROUP  BY l.cluster, l.node, l.instance
