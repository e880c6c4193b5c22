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
-- One statement of the document a line, without blanks; `@` marks those that allow. The account's own number is blanked,
-- so that what is left of numbers is others'. A service or the company's own organization is no outsider.
SELECT cloud_account_uid, role, actor, event_name, src_endpoint_ip, allowing AS statements,
       CASE WHEN anybody THEN 'anybody' WHEN unnamed_subject THEN 'any subject of a web identity provider'
            ELSE 'an account or user outside' END AS trusted
FROM  (SELECT *,
              allowing ~ '(?m)^@.*"Principal":("\*"|\{[^}]*"AWS":(\[[^\]]*)?"\*")' AS anybody,
              allowing ~ '(?m)^@.*"Principal":\{[^}]*(arn:aws[^:"]*:(iam|sts)::[0-9]{12}:(root|user|role|assumed-role|federated-user)|"[0-9]{12}"|"CanonicalUser")'
                  AS outside,
              allowing ~ '(?m)^@.*sts:AssumeRoleWithWebIdentity' AND
              (regexp_replace(allowing, '(?m)^@(.*:sub".*|.*cognito-identity\.amazonaws\.com:aud".*)$', '\1', 'g')
                   ~ '(?m)^@.*sts:AssumeRoleWithWebIdentity'
               OR allowing ~ '(?m)^@.*:sub":(\[[^\]]*)?"(\*|repo:[^/"]*\*|repo:[^/"]*/?\*|project_path:\*|organization:\*)[^"]*"')
                  AS unnamed_subject
       FROM  (SELECT *,
                     regexp_replace(regexp_replace(replace(
                         array_to_string(coalesce(json_get_array(document, 'Statement'),
                                                  make_array(json_get_json(document, 'Statement'))), chr(10)),
                         coalesce(recipient_account_id, cloud_account_uid), 'own'),
                         '(?m)^(.*"Effect":"Allow".*)$', '@\1', 'g'),
                         '(?m)^@(.*"aws:PrincipalOrg(ID|Paths)".*)$', '\1', 'g') AS allowing
              FROM  (SELECT *, coalesce(raw->'requestParameters'->>'roleName', '(unknown)') AS role,
                            coalesce(user_identity_arn, principal, '(unknown)') AS actor,
                            regexp_replace(coalesce(raw->'requestParameters'->>'policyDocument',
                                                    raw->'requestParameters'->>'assumeRolePolicyDocument'),
                                           '\s+', '', 'g') AS document
                     FROM   cloudtrail
                     WHERE  event_source = 'iam.amazonaws.com' AND status = 'Success'
                       AND  event_name IN ('UpdateAssumeRolePolicy', 'CreateRole'))))
WHERE  anybody OR outside OR unnamed_subject
