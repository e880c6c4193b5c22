/*
title: A node's credential used by something that is not its kubelet
severity: high
attack: [T1078, T1552.005]
entity: [cluster, actor_user_name]
summary: "{client} used the credential of {actor_user_name} of {cluster} from {src_endpoint_ip}"
needs_level: Metadata
triage: |
  1. Is it an address of that node? If so, something on the node reads the kubelet's files: treat the node as compromised.
  2. If not, the credential was carried off: find out how (metadata service, backup of the node, host path).
  3. What did it read? A kubelet sees the secrets of its own pods only; those are to be rotated.
benign: Scripts of the node's image that call the API with the kubelet's file. Tune them out by user agent.
references:
  - https://kubernetes.io/docs/reference/access-authn-authz/node/
*/
-- The user agent is the caller's word: a careful thief says `kubelet`. The rule finds those who are not. `kubeadm join`
-- writes to its own node object with the kubelet's file.
SELECT cluster, actor_user_name, src_endpoint_ip,
       user_agent_family AS client, http_request_user_agent, verb, request_uri, response_code, actor_user_session_name
FROM   kubernetes_calls
WHERE  actor_user_type = 'Node'
  AND  http_request_user_agent IS NOT NULL AND http_request_user_agent NOT LIKE 'kubelet%'
  AND  NOT (http_request_user_agent LIKE 'kubeadm/%' AND coalesce(objectref_resource, '') = 'nodes'
            AND actor_user_name = concat('system:node:', coalesce(objectref_name, '')))
