/*
title: Pod Security enforcement of a namespace lowered
severity: high
attack: [T1685, T1611]
entity: [cluster, namespace]
summary: "{actor_user_name} lowered Pod Security of namespace {namespace} of {cluster} from {before} to {after}"
needs_level: Request
triage: |
  1. Was the change announced? Ask the owner of the namespace and of the pipeline that normally labels it.
  2. List the pods created there since: `search 'objectref_namespace:<namespace> verb:create objectref_resource:pods'`.
  3. Put the label back; restarted pods must fit it again.
  4. A pod that uses what was forbidden before is the next question: look at its image, its node and who made it.
benign: Onboarding of a system namespace by GitOps; a migration that is announced.
references:
  - https://kubernetes.io/docs/concepts/security/pod-security-standards/
*/
-- The request that writes the labels meets the version that it makes: what was before is in it.
SELECT n.cluster, n.namespace, k.actor_user_name, k.verb,
       coalesce(n.prev_pod_security_enforce, 'nothing') AS before,
       coalesce(n.pod_security_enforce, 'nothing') AS after
FROM   kubernetes_calls k
JOIN   namespaces n ON n.cluster = k.cluster AND n.namespace = k.objectref_name
                   AND k.time >= n.valid_from AND k.time < n.valid_to
WHERE  k.objectref_resource = 'namespaces' AND k.objectref_subresource IS NULL
  AND  k.verb IN ('create', 'update', 'patch') AND k.response_code BETWEEN 200 AND 299 AND k.dry_run IS NOT TRUE
  AND  ((n.prev_pod_security_enforce = 'restricted' AND coalesce(n.pod_security_enforce, '') <> 'restricted')
     OR (n.prev_pod_security_enforce = 'baseline' AND coalesce(n.pod_security_enforce, '') NOT IN ('baseline', 'restricted')))
