/*
title: Role trusts an outside or unnamed principal
severity: high
attack: [T1098.003, T1199, T1484.002]
entity: [cloud_account_uid, role]
summary: "{actor} called {event_name} on role {role} of account {cloud_account_uid}: it may be assumed by {trusted}"
triage: |
  1. `anybody` and a web identity without a subject are open to every AWS account or every repository of a forge.
  2. Whose is the account? Ask the one who runs the vendor's integration; a vendor's trust has an external id.
  3. What may the role do? A boundary does not help where the trust is the attacker's.
  4. Put the old document back, then list AssumeRole on the role since: each session is hostile until shown otherwise.
benign: Integration of a vendor, roles for other accounts of the company, deployment from a forge.
references:
  - https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html
  - https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc.html
*/
-- A vendor of `vendor_accounts` is fine with an
-- external id.
SELECT cloud_account_uid, role, actor, event_name, src_endpoint_ip, found AS statements,
       CASE WHEN found ~ '(^| )public( |$)' THEN 'anybody'
            WHEN found ~ '(missing|wildcard)-(sub|aud)' THEN 'any subject of a web identity provider'
            ELSE 'an account or user outside' END AS trusted
FROM  (SELECT *, coalesce(raw->'requestParameters'->>'roleName', '(unknown)') AS role,
              coalesce(user_identity_arn, principal, '(unknown)') AS actor,
              array_to_string(iam_policy_findings(
                  coalesce(raw->'requestParameters'->>'policyDocument',
                           raw->'requestParameters'->>'assumeRolePolicyDocument'),
                  make_array(coalesce(recipient_account_id, cloud_account_uid)), lookup_list('own_accounts')), ' ') AS found
       FROM   cloudtrail
       WHERE  event_source = 'iam.amazonaws.com' AND status = 'Success'
         AND  event_name IN ('UpdateAssumeRolePolicy', 'CreateRole'))
WHERE  found ~ '(^| )(public|canonical-user|missing-sub|missing-aud|wildcard-sub)( |$)'
   OR (found ~ '(^| )external:'
       AND NOT (in_lookup('vendor_accounts', regexp_match(found, 'external:([0-9]{12})')[1])
                AND found !~ 'no-external-id:'))
