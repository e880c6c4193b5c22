/*
title: Command in a pod that reads credentials, opens a way out or leaves the container
severity: high
attack: [T1609, T1059.004, T1552.007, T1552.005, T1105]
entity: [cluster, objectref_namespace, objectref_name, actor_user_name]
summary: "{actor_user_name} ran `{command}` in {objectref_namespace}/{objectref_name} of {cluster} ({classes})"
needs_level: Metadata
triage: |
  1. Ask the user through another channel; a person under attack does not know of it.
  2. `sa-token`, `imds`, `cred-files`: treat the credentials that the pod can reach as stolen, and look for their use
     from other addresses.
  3. `reverse-shell`, `download-run`, `miner`: keep the pod, cut its network, save its processes and files.
  4. `escape`: treat the node as compromised.
benign: Support that copies diagnostics out with `kubectl cp` (copy-out), health checks of tooling.
references:
  - https://kubernetes.io/docs/tasks/debug/debug-application/get-shell-running-container/
*/
-- What is typed into a shell once it is open is not here: see xsrc-exec-then-falco-alert. Clients over SPDY send
-- `create`, those over WebSocket `get`; a request that was refused ran nothing.
SELECT cluster, objectref_namespace, objectref_name, actor_user_name,
       array_to_string(exec_argv, ' ') AS command, exec_container, src_endpoint_ip, http_request_user_agent,
       concat_ws(', ',
         CASE WHEN array_to_string(exec_argv, ' ') ~ '/run/secrets/(kubernetes\.io|eks\.amazonaws\.com|azure|tokens)' THEN 'sa-token' END,
         CASE WHEN lower(array_to_string(exec_argv, ' ')) ~ '169\.254\.169\.254|169\.254\.170\.(2|23)\b|fd00:ec2::254|metadata\.google\.internal|0xa9fea9fe|2852039166' THEN 'imds' END,
         CASE WHEN array_to_string(exec_argv, ' ') ~ '/dev/(tcp|udp)/|\b(nc|ncat|netcat)(\.\w+)? (.* )?(-\w*e\w*|--exec|-c) |\bsocat\b.*\b(exec|system):|mkfifo|(python|perl|ruby|php)[0-9.]* .*(socket|fsockopen|TCPSocket)' THEN 'reverse-shell' END,
         CASE WHEN array_to_string(exec_argv, ' ') ~ '/etc/g?shadow\b|\.aws/credentials|\.kube/config|\bid_(rsa|ed25519|ecdsa)\b|/proc/(1|self)/environ|/etc/kubernetes/(pki|admin\.conf)' THEN 'cred-files' END,
         CASE WHEN array_to_string(exec_argv, ' ') ~ '\b(curl|wget)\b[^|]*\|\s*(sudo )?(ba|da|z|a)?sh\b|\b(curl|wget)\b[^|]*\|\s*(python|perl|ruby)' THEN 'download-run' END,
         CASE WHEN array_to_string(exec_argv, ' ') ~ '^tar (-?\w*c\w*f -|-?\w*c\w* .*-f -|-?\w*c\w* -( |$))' THEN 'copy-out' END,
         CASE WHEN lower(array_to_string(exec_argv, ' ')) ~ '\bxmrig\b|\bminerd\b|stratum\+(tcp|ssl)|--donate-level|\bnbminer\b' THEN 'miner' END,
         CASE WHEN array_to_string(exec_argv, ' ') ~ '\bnsenter\b|\bchroot /(host|mnt|node)|\bunshare\b|release_agent|/proc/1/root' THEN 'escape' END) AS classes
FROM   kubernetes_calls
WHERE  objectref_resource = 'pods' AND objectref_subresource IN ('exec', 'attach')
  AND  verb IN ('create', 'get') AND coalesce(response_code, 101) < 300
  AND  exec_argv IS NOT NULL
  AND  (array_to_string(exec_argv, ' ') ~ '/run/secrets/(kubernetes\.io|eks\.amazonaws\.com|azure|tokens)'
     OR lower(array_to_string(exec_argv, ' ')) ~ '169\.254\.169\.254|169\.254\.170\.(2|23)\b|fd00:ec2::254|metadata\.google\.internal|0xa9fea9fe|2852039166'
     OR array_to_string(exec_argv, ' ') ~ '/dev/(tcp|udp)/|\b(nc|ncat|netcat)(\.\w+)? (.* )?(-\w*e\w*|--exec|-c) |\bsocat\b.*\b(exec|system):|mkfifo|(python|perl|ruby|php)[0-9.]* .*(socket|fsockopen|TCPSocket)'
     OR array_to_string(exec_argv, ' ') ~ '/etc/g?shadow\b|\.aws/credentials|\.kube/config|\bid_(rsa|ed25519|ecdsa)\b|/proc/(1|self)/environ|/etc/kubernetes/(pki|admin\.conf)'
     OR array_to_string(exec_argv, ' ') ~ '\b(curl|wget)\b[^|]*\|\s*(sudo )?(ba|da|z|a)?sh\b|\b(curl|wget)\b[^|]*\|\s*(python|perl|ruby)'
     OR array_to_string(exec_argv, ' ') ~ '^tar (-?\w*c\w*f -|-?\w*c\w* .*-f -|-?\w*c\w* -( |$))'
     OR lower(array_to_string(exec_argv, ' ')) ~ '\bxmrig\b|\bminerd\b|stratum\+(tcp|ssl)|--donate-level|\bnbminer\b'
     OR array_to_string(exec_argv, ' ') ~ '\bnsenter\b|\bchroot /(host|mnt|node)|\bunshare\b|release_agent|/proc/1/root')
