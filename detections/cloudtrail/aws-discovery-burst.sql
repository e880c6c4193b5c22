/*
title: Broad discovery by one principal
severity: medium
attack: [T1526, T1580, T1087.004, T1619, T1538]
window: 10m
every: 1m
entity: [cloud_account_uid, principal]
summary: "{principal} made {calls} different reading calls to {services} services in ten minutes, {denied} were denied"
triage: |
  1. Is the principal a posture scanner, a deployment tool or a person on the console? Those look at everything.
  2. An instance, a function or a service account has no reason to ask who it is and what there is.
  3. Read the calls in order: after looking come secrets, new credentials, snapshots. Did those follow?
  4. If nobody knows of it, treat the credentials as stolen: cut them, then find out from where.
benign: Scanners, Terraform and its like, the first visit to a console page.
references:
  - https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
*/
-- One of the calls that ask for people, places and watchers must be among them, which leaves out programs that poll the
-- resources of their own. The console asks for many things at once. What can be sent by mail is a set of its own.
SELECT cloud_account_uid, principal,
       count(DISTINCT concat(event_source, ' ', event_base_name)) AS calls,
       count(DISTINCT event_source) AS services,
       count(*) FILTER (WHERE status = 'Failure') AS denied,
       min(time) AS first_seen
FROM   cloudtrail
WHERE  coalesce(read_only, event_name ~ '^(Get|List|Describe)')
  AND  event_name ~ '^(Get|List|Describe|Lookup|Search|BatchGet)'
  AND  coalesce(event_category, 'Management') = 'Management'
  AND  NOT coalesce(service_call, false)
GROUP  BY cloud_account_uid, principal
HAVING (calls >= CASE WHEN bool_or(coalesce(console_session, false)) THEN 20 ELSE 8 END
        AND services >= 4
        AND bool_or(event_name IN ('GetCallerIdentity', 'ListUsers', 'ListRoles', 'GetAccountSummary',
                                   'GetAccountAuthorizationDetails', 'ListBuckets', 'DescribeTrails', 'ListDetectors',
                                   'DescribeSnapshots')))
    OR count(DISTINCT event_name) FILTER (
           WHERE event_source IN ('ses.amazonaws.com', 'email.amazonaws.com')
             AND event_name IN ('GetAccountSendingEnabled', 'GetSendQuota', 'ListIdentities', 'GetAccount',
                                'ListEmailIdentities', 'GetIdentityVerificationAttributes')) >= 3
