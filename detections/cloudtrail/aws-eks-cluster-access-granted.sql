/*
title: Access to an EKS cluster granted or its endpoint opened
severity: high
attack: [T1098.006, T1098.003, T1133]
entity: [cloud_account_uid, cluster_name, subject]
summary: "{actor} called {event_name} on cluster {cluster_name} of account {cloud_account_uid} for {subject}: {granted}"
triage: |
  1. Who is the subject, and should it reach this cluster? Cluster admin for a person or a new role is the worst case.
  2. Look in the audit log of the cluster for the subject's requests since: secrets, exec, new bindings.
  3. A pod identity gives a role to a service account: compare the role's rights with what the workload needs.
  4. Unknown: delete the access entry or association; narrow the public addresses of the endpoint.
benign: Creation of clusters and node groups by a pipeline; onboarding of a team.
references:
  - https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateAccessEntry.html
  - https://docs.aws.amazon.com/eks/latest/APIReference/API_AssociateAccessPolicy.html
  - https://docs.aws.amazon.com/eks/latest/userguide/cluster-endpoint.html
*/
-- Parameters that stand in the path of a request keep its encoding, `arn%3Aaws%3Aiam%3A%3A…%3Arole%2FAdmin`.
SELECT cloud_account_uid,
       coalesce(raw->'requestParameters'->>'name', raw->'requestParameters'->>'clusterName', '(unknown)')
           AS cluster_name,
       replace(replace(replace(replace(
           coalesce(raw->'requestParameters'->>'principalArn',
                    concat(raw->'requestParameters'->>'namespace', '/',
                           raw->'requestParameters'->>'serviceAccount'),
                    raw->'requestParameters'->'oidc'->>'issuerUrl',
                    raw->'requestParameters'->>'associationId', 'endpoint'),
           '%3A', ':'), '%3a', ':'), '%2F', '/'), '%2f', '/') AS subject,
       coalesce(user_identity_arn, principal, '(unknown)') AS actor,
       event_name, src_endpoint_ip,
       coalesce(raw->'requestParameters'->>'policyArn', raw->'requestParameters'->>'roleArn',
                raw->'requestParameters'->>'kubernetesGroups', raw->'requestParameters'->>'resourcesVpcConfig',
                raw->'requestParameters'->>'accessConfig', raw->'requestParameters'->>'type', '-') AS granted
FROM   cloudtrail
WHERE  event_source = 'eks.amazonaws.com' AND status = 'Success'
  AND  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
  AND  (event_name IN ('CreateAccessEntry', 'AssociateAccessPolicy', 'CreatePodIdentityAssociation',
                       'UpdatePodIdentityAssociation', 'AssociateIdentityProviderConfig')
     OR (event_name = 'UpdateAccessEntry' AND json_length(raw, 'requestParameters', 'kubernetesGroups') > 0)
     OR (event_name = 'UpdateClusterConfig'
         AND (raw->'requestParameters'->'accessConfig'->>'authenticationMode' IS NOT NULL
           OR (raw->'requestParameters'->'resourcesVpcConfig'->>'endpointPublicAccess' = 'true'
               AND coalesce(raw->'requestParameters'->'resourcesVpcConfig'->>'publicAccessCidrs', '/0"') ~ '/0+"'))))
