/*
title: Kubelet reached through the API server
severity: high
attack: [T1609, T1611, T1613]
entity: [cluster, node, actor_user_name]
summary: "{actor_user_name} sent {verb} {uri_path} to the kubelet of {node} in {cluster}"
needs_level: Metadata
triage: |
  1. Which path? `run`, `exec`, `attach` and `portForward` are commands in pods that no exec event shows; `containerLogs`
     and `pods` are their data.
  2. Which role gives this identity `nodes/proxy`? It is worth as much as exec into every pod of the node.
  3. Look at runtime alerts of the node at that time for what was done.
benign: Monitoring that scrapes other paths than the ones left out here; conformance tests.
references:
  - https://kubernetes.io/docs/concepts/security/rbac-good-practices/#access-to-proxy-subresource-of-nodes
*/
SELECT cluster, coalesce(objectref_name, '(unknown)') AS node, actor_user_name, verb, uri_path,
       array_to_string(exec_argv, ' ') AS command, src_endpoint_ip, http_request_user_agent, response_code,
       coalesce(uri_path ~ '/proxy/(run|exec|attach|portForward|containerLogs|cri)(/|$)', false) AS into_containers
FROM   kubernetes_calls
WHERE  objectref_resource = 'nodes' AND objectref_subresource = 'proxy'
  AND  coalesce(response_code, 200) NOT IN (401, 403)
  AND  coalesce(uri_path, '')
       !~ '^/api/v1/nodes/[^/]+/proxy/(metrics|metrics/cadvisor|metrics/resource|metrics/probes|stats/summary|healthz|configz)/?$'
