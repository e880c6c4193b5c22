/*
title: New way in from outside the account by federation
severity: high
attack: [T1484.002, T1098.001, T1550.001, T1199]
entity: [cloud_account_uid, provider]
summary: "{actor} called {event_name} in account {cloud_account_uid}: {provider}"
triage: |
  1. Whose identity provider or certificate authority is it? One that nobody of the company runs is a way in that
     survives every change of password.
  2. Roles Anywhere: read the certificate in the event, then the roles of the profile made along with the anchor.
  3. GetFederationToken: the token outlives the disabling of the key that made it; list what the federated name did.
  4. Unknown: disable the anchor or delete the provider, then list what was assumed through it.
benign: Setting up single sign-on, rotating the metadata or certificate of a provider, console brokers of old.
references:
  - https://docs.aws.amazon.com/rolesanywhere/latest/APIReference/API_CreateTrustAnchor.html
  - https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateOpenIDConnectProvider.html
  - https://docs.aws.amazon.com/STS/latest/APIReference/API_GetFederationToken.html
*/
-- What is new is named by name or address, what is changed by ARN or id.
SELECT cloud_account_uid,
       coalesce(raw->'requestParameters'->>'openIDConnectProviderArn', raw->'requestParameters'->>'sAMLProviderArn',
                raw->'responseElements'->>'openIDConnectProviderArn', raw->'responseElements'->>'sAMLProviderArn',
                raw->'requestParameters'->>'trustAnchorId', raw->'requestParameters'->>'url',
                raw->'requestParameters'->>'name', raw->'requestParameters'->>'directoryId', '(unknown)') AS provider,
       coalesce(user_identity_arn, principal, '(unknown)') AS actor,
       event_name, src_endpoint_ip,
       json_as_text(raw, 'requestParameters', 'source', 'sourceType') AS anchor_type,
       json_as_text(raw, 'requestParameters', 'policy') AS session_policy
FROM   cloudtrail
WHERE  status = 'Success'
  AND  ((event_source = 'rolesanywhere.amazonaws.com'
         AND event_name IN ('CreateTrustAnchor', 'UpdateTrustAnchor', 'EnableTrustAnchor', 'CreateProfile'))
     OR (event_source = 'iam.amazonaws.com'
         AND event_name IN ('CreateOpenIDConnectProvider', 'AddClientIDToOpenIDConnectProvider',
                            'UpdateOpenIDConnectProviderThumbprint', 'CreateSAMLProvider', 'UpdateSAMLProvider'))
     OR (event_source IN ('sso.amazonaws.com', 'sso-directory.amazonaws.com')
         AND event_name IN ('AssociateDirectory', 'CreateExternalIdPConfigurationForDirectory',
                            'UpdateExternalIdPConfigurationForDirectory', 'EnableExternalIdPConfigurationForDirectory',
                            'CreateTrustedTokenIssuer', 'UpdateTrustedTokenIssuer'))
     OR (event_source = 'sts.amazonaws.com' AND event_name = 'GetFederationToken'
         AND user_identity_type IN ('IAMUser', 'Root')))
  AND  coalesce(user_identity_type, '') <> 'AWSService'
  AND  coalesce(session_issuer_arn, '') NOT LIKE '%:role/aws-service-role/%'
