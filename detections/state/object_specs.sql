/*
title: Specs of objects that guard a cluster
key: [cluster, kind, namespace, name]
doc: >-
  What admission webhooks, admission policies, the mesh's policies and the ConfigMap `aws-auth` said last, as JSON:
  `kind` is the resource in the plural, `namespace` empty for what has none. A patch counts where the response was
  recorded.
*/
SELECT cluster,
       objectref_resource AS kind,
       coalesce(objectref_namespace, '') AS namespace,
       coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name') AS name,
       coalesce(raw->'responseObject'->>'spec', raw->'responseObject'->>'webhooks', raw->'responseObject'->>'data',
                raw->'requestObject'->>'spec', raw->'requestObject'->>'webhooks', raw->'requestObject'->>'data') AS spec,
       actor_user_name AS written_by,
       verb = 'delete' AS deleted
FROM   kubernetes_calls
WHERE  objectref_subresource IS NULL
  AND  (objectref_resource IN ('validatingwebhookconfigurations', 'mutatingwebhookconfigurations',
                               'validatingadmissionpolicies', 'validatingadmissionpolicybindings',
                               'authorizationpolicies', 'peerauthentications', 'requestauthentications',
                               'ciliumnetworkpolicies', 'ciliumclusterwidenetworkpolicies')
     OR (objectref_resource = 'configmaps' AND objectref_namespace = 'kube-system'
         AND coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name') = 'aws-auth'))
  AND  response_code BETWEEN 200 AND 299 AND dry_run IS NOT TRUE
  AND  (verb IN ('create', 'update', 'delete')
     OR (verb = 'patch' AND raw->'responseObject'->'metadata'->>'name' IS NOT NULL))
