/*
title: Access to a pod that can reach its host
severity: high
attack: [T1609, T1611]
entity: [cluster, namespace, pod]
summary: "{actor_user_name} opened {objectref_subresource} into pod {namespace}/{pod} of {cluster}, which {reach}"
needs_level: Request
triage: |
  1. Ask the user through another channel; look at the command in the request URI.
  2. Treat the node as reached: see what Falco says of it and which cloud calls its role made since.
  3. Who made the pod, and when? A pod made minutes before is part of the same story.
  4. Save the pod's processes and files before it goes; then cordon the node.
benign: Node agents that the platform team debugs.
references:
  - https://kubernetes.io/docs/concepts/security/pod-security-standards/
*/
SELECT p.cluster, p.namespace, p.pod, k.actor_user_name, k.objectref_subresource, k.request_uri,
       concat_ws(', ', CASE WHEN p.privileged THEN 'is privileged' END,
                       CASE WHEN p.host_pid THEN 'sees the processes of its host' END,
                       CASE WHEN p.host_network THEN 'has the network of its host' END,
                       CASE WHEN array_has_any(p.host_paths, make_array('/', '/etc', '/proc', '/root', '/var/run/docker.sock',
                                                                        '/run/containerd', '/var/lib/kubelet'))
                            THEN 'mounts paths of its host' END) AS reach
FROM   kubernetes_calls k
JOIN   pods p ON p.cluster = k.cluster AND p.namespace = k.objectref_namespace AND p.pod = k.objectref_name
             AND k.time >= p.valid_from AND k.time < p.valid_to
WHERE  k.objectref_resource = 'pods' AND k.objectref_subresource IN ('exec', 'attach') AND k.verb IN ('create', 'get')
  AND  coalesce(k.response_code, 101) = 101
  AND  (p.privileged IS TRUE OR p.host_pid IS TRUE
     OR array_has_any(p.host_paths, make_array('/', '/etc', '/proc', '/root', '/var/run/docker.sock', '/run/containerd',
                                               '/var/lib/kubelet')))
