/*
title: Service or ingress opened without protection
severity: medium
attack: [T1133, T1190]
entity: [cluster, namespace, object]
summary: "{actor_user_name} opened {object} in {namespace} of {cluster}: {opening}"
needs_level: Request
suppress: 24h
triage: |
  1. Is this service meant to be reached from outside, and does it ask for a login?
  2. `externalIPs` draws other services' traffic to this one; endpoints of the metadata address give its callers the
     node's credentials: neither is innocent.
  3. If it is meant: limit the sources, end TLS, use an internal load balancer.
benign: Services of the edge that are public by design.
references:
  - https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types
*/
SELECT cluster, coalesce(objectref_namespace, '(none)') AS namespace,
       concat(objectref_resource, '/', coalesce(objectref_name, raw->'requestObject'->'metadata'->>'name', '(unknown)')) AS object,
       actor_user_name, verb, src_endpoint_ip,
       CASE WHEN objectref_resource = 'ingresses' THEN 'ingress without TLS'
            WHEN objectref_resource IN ('endpoints', 'endpointslices') THEN 'endpoint is a metadata or link-local address'
            WHEN raw->'requestObject'->'spec'->>'externalIPs' ~ '"' THEN concat('externalIPs ', raw->'requestObject'->'spec'->>'externalIPs')
            WHEN raw->'requestObject'->'spec'->>'type' = 'NodePort' THEN 'a port of every node'
            ELSE 'load balancer for the whole Internet' END AS opening
FROM   kubernetes_calls
WHERE  verb IN ('create', 'update', 'patch') AND objectref_subresource IS NULL
  AND  coalesce(status, '') <> 'Failure' AND dry_run IS NOT TRUE
  AND  ((objectref_resource = 'services'
         AND (raw->'requestObject'->'spec'->>'type' = 'NodePort'
           OR raw->'requestObject'->'spec'->>'externalIPs' ~ '"'
           OR (raw->'requestObject'->'spec'->>'type' = 'LoadBalancer'
               AND coalesce(raw->'requestObject'->'spec'->>'loadBalancerSourceRanges', '[]') !~ '"'
               AND coalesce(raw->'requestObject'->'metadata'->>'annotations', '')
                   !~ '"(service\.beta\.kubernetes\.io/aws-load-balancer-(internal|scheme)|networking\.gke\.io/load-balancer-type|cloud\.google\.com/load-balancer-type|service\.beta\.kubernetes\.io/azure-load-balancer-internal)"\s*:\s*"(true|internal|Internal|0\.0\.0\.0/0)"')))
     OR (objectref_resource = 'ingresses' AND verb IN ('create', 'update')
         AND raw->'requestObject'->>'spec' IS NOT NULL
         AND coalesce(raw->'requestObject'->'spec'->>'tls', '[]') !~ '\{')
     OR (objectref_resource IN ('endpoints', 'endpointslices')
         AND raw->>'requestObject' ~ '"(169\.254\.\d+\.\d+|fd00:ec2::254|fe80:[^"]*)"'))
  AND  coalesce(actor_user_name, '') NOT IN ('system:kube-controller-manager', 'system:apiserver')
  AND  NOT in_lookup('control_loops', coalesce(actor_user_name, ''))
