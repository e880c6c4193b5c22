/*
title: Interactive access to a pod
severity: low
attack: [T1609]
entity: [cluster, objectref_namespace, objectref_name, actor_user_name]
summary: "{actor_user_name} opened {objectref_subresource} into pod {objectref_namespace}/{objectref_name} of {cluster}"
needs_level: Metadata
triage: |
  1. Ask the user through another channel whether this was them.
  2. Read the command in the request URI; look at what the same user did before and after.
  3. If nobody knows of it, keep the pod running until its processes and files are saved.
benign: Deployment and backup tooling that runs commands in pods.
*/
-- Clients over SPDY send `create`, those over WebSocket `get`. Code 101 is the switch to the stream;
-- a request that was refused is not access.
SELECT cluster, objectref_namespace, objectref_name, actor_user_name,
       objectref_subresource, request_uri, src_endpoint_ip, response_code
FROM   kubernetes_calls
WHERE  objectref_resource = 'pods'
  AND  objectref_subresource IN ('exec', 'attach', 'portforward')
  AND  verb IN ('create', 'get')
  AND  coalesce(response_code, 101) = 101
