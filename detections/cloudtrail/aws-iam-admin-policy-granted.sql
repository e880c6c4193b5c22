/*
title: Rights of an administrator granted
severity: high
attack: [T1098.003, T1484]
entity: [cloud_account_uid, target]
summary: "{actor} called {event_name} on {target} of account {cloud_account_uid}: {granted}"
triage: |
  1. Does the target belong to an administrator or to the pipeline that builds accounts? Is there a request?
  2. Is the target new, or did it get a key or a password in the same quarter of an hour?
  3. Did the actor grant the rights to itself? Then look at how it came by the right to grant.
  4. Unknown: detach the policy or put the old version back, then list what the target did since.
benign: Building of accounts by their pipeline, emergency roles.
references:
  - https://docs.aws.amazon.com/IAM/latest/APIReference/API_AttachUserPolicy.html
  - https://docs.aws.amazon.com/aws-managed-policy/latest/reference/AdministratorAccess.html
*/
