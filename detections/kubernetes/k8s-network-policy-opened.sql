/*
title: Network policy opened
severity: high
attack: [T1686]
entity: [cluster, namespace, policy]
summary: "{actor_user_name} opened network policy {namespace}/{policy} of {cluster} to everything"
needs_level: Request
triage: |
  1. Was the change made by the pipeline that owns the policy? Its other objects change at the same time.
  2. What does the namespace reach now? List outbound connections that Falco saw from it since.
  3. Put the policy back from what it was (in the finding), then look at who changed it and what else they did.
benign: Renamed policies, where a new one appears at the same moment.
references:
  - https://kubernetes.io/docs/concepts/services-networking/network-policies/
*/
SELECT p.cluster, p.namespace, p.policy, k.actor_user_name, p.prev_spec AS before, p.spec AS after
FROM   kubernetes_calls k
JOIN   network_policies p ON p.cluster = k.cluster AND p.namespace = k.objectref_namespace AND p.policy = k.objectref_name
                         AND k.time >= p.valid_from AND k.time < p.valid_to
WHERE  k.objectref_resource = 'networkpolicies' AND k.objectref_subresource IS NULL AND k.verb IN ('update', 'patch')
  AND  k.response_code BETWEEN 200 AND 299 AND k.dry_run IS NOT TRUE
  -- An empty rule allows everything: `ingress: [{}]`, or a selector that no longer takes the namespace.
  AND  replace(coalesce(p.spec, ''), ' ', '') ~ '"(ingress|egress)":\[\{\}\]|"cidr":"(0\.0\.0\.0/0|::/0)"'
  AND  replace(coalesce(p.prev_spec, ''), ' ', '') !~ '"(ingress|egress)":\[\{\}\]|"cidr":"(0\.0\.0\.0/0|::/0)"'
  AND  p.prev_spec IS NOT NULL
