/*
title: Who may enter the EKS cluster was changed
severity: high
attack: [T1098.006, T1098.003]
entity: [cluster, actor_user_name]
summary: "{actor_user_name} did {verb} on aws-auth of {cluster}: {entries}"
needs_level: Request
triage: |
  1. Which roles and users are new, in which groups? `system:masters` is the whole cluster, and ARNs of other accounts
     are strangers.
  2. Was it the pipeline that owns this file?
  3. Look for requests of the new identities since then: `actor_user_aws_canonical_arn`.
benign: Node groups that are added by hand (`system:nodes`), onboarding of a team.
references:
  - https://docs.aws.amazon.com/eks/latest/userguide/auth-configmap.html
*/
SELECT cluster, actor_user_name, actor_user_aws_canonical_arn, verb, src_endpoint_ip,
       -- every ARN, and nothing of what is between them
       coalesce(nullif(trim(regexp_replace(raw->>'requestObject',
                  '(?s).*?(arn:aws[a-z-]*:iam::[0-9]{12}:(?:role|user)/[A-Za-z0-9+=,.@_/-]+)|.+', '\1 ', 'g')), ''),
                '(not recorded)') AS entries,
       coalesce(raw->>'requestObject' LIKE '%system:masters%', false) AS names_masters
FROM   kubernetes_calls
WHERE  objectref_resource = 'configmaps' AND objectref_name = 'aws-auth' AND objectref_namespace = 'kube-system'
  AND  verb IN ('create', 'update', 'patch', 'delete')
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  actor_user_name IS NOT NULL AND actor_user_name NOT LIKE 'eks:%'
