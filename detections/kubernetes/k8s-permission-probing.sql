/*
title: Somebody tries out what they may do
severity: medium
attack: [T1613, T1069.003, T1046]
window: 5m
every: 30s
entity: [cluster, who]
summary: "{who} was denied {denied} calls on {resources} kinds of objects of {cluster}, with {reviews} self-reviews and {paths} paths"
needs_level: Metadata
triage: |
  1. Which calls succeeded between the denied ones? Those are what the caller found.
  2. A workload that asks what it may do, with kubectl or curl, is somebody in its container.
  3. Is a controller merely missing a right? Then it asks for the same few things over and over.
benign: New controllers without their role, conformance tests; a few self-reviews by kubectl plugins.
references:
  - https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
*/
SELECT cluster,
       CASE WHEN actor_user_name IS NULL OR actor_user_name = 'system:anonymous'
            THEN concat('anonymous from ', coalesce(src_endpoint_ip, 'nowhere')) ELSE actor_user_name END AS who,
       count(CASE WHEN response_code IN (401, 403) THEN 1 END) AS denied,
       count(DISTINCT CASE WHEN response_code IN (401, 403) THEN concat(objectref_resource, '/', objectref_subresource) END) AS resources,
       count(CASE WHEN objectref_resource LIKE 'selfsubject%' THEN 1 END) AS reviews,
       count(DISTINCT CASE WHEN coalesce(actor_user_name, 'system:anonymous') = 'system:anonymous' THEN uri_path END) AS paths,
       max(http_request_user_agent) AS client,
       min(time) AS first_seen
FROM   kubernetes_calls
WHERE  (response_code IN (401, 403)
     OR objectref_resource IN ('selfsubjectrulesreviews', 'selfsubjectaccessreviews')
     OR actor_user_name = 'system:anonymous')
  AND  coalesce(uri_path, '') !~ '^/(healthz|livez|readyz)(/|$)'
GROUP  BY cluster,
       CASE WHEN actor_user_name IS NULL OR actor_user_name = 'system:anonymous'
            THEN concat('anonymous from ', coalesce(src_endpoint_ip, 'nowhere')) ELSE actor_user_name END
HAVING (count(CASE WHEN response_code IN (401, 403) THEN 1 END) >= 20
        AND count(DISTINCT CASE WHEN response_code IN (401, 403) THEN concat(objectref_resource, '/', objectref_subresource) END) >= 5)
    OR count(CASE WHEN objectref_resource = 'selfsubjectrulesreviews' THEN 1 END) >= 3
    OR count(CASE WHEN objectref_resource = 'selfsubjectaccessreviews' THEN 1 END) >= 20
    OR count(CASE WHEN objectref_resource = 'selfsubjectrulesreviews' AND actor_user_type = 'ServiceAccount'
                   AND user_agent_family IN ('kubectl', 'curl', 'python-requests', 'wget') THEN 1 END) >= 1
    OR count(DISTINCT CASE WHEN coalesce(actor_user_name, 'system:anonymous') = 'system:anonymous' THEN uri_path END) >= 10
