/*
title: Credentials of an instance used from a new public address
severity: critical
attack: [T1552.005, T1078.004]
entity: [cloud_account_uid, instance, src_endpoint_ip]
summary: "credentials of {instance} ({role}) in account {cloud_account_uid} were used from {src_endpoint_ip}, new for the role in 14 days: {event_name}"
triage: |
  1. Is the address one the instance leaves by: its own, a NAT gateway's, a proxy's? Then write it down as known.
  2. Else the credentials were read off the instance: revoke the role's sessions issued before now.
  3. Version 1 of the metadata service (`delivery` 1.0) gives them to any forged request: require tokens.
  4. Look for how they were read: a web application, a container, a command sent to the instance.
benign: NAT gateways that are replaced; new instances with an address of their own that make their first call late.
references:
  - https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-roles-for-amazon-ec2.html
  - https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html
*/
-- Instances of one role share their ways out, unless each has its own address: such a one makes its first calls right
-- after its credentials were issued (they are not remembered either). What the agent of Systems Manager calls is left
-- out.
SELECT cloud_account_uid, session_name AS instance, src_endpoint_ip, event_source, event_name, error_code,
       principal AS role,
       raw->'userIdentity'->'sessionContext'->>'ec2RoleDelivery' AS delivery
FROM   cloudtrail
WHERE  instance_session = true
  AND  ip_is_public(src_endpoint_ip)
  AND  invoked_by IS NULL
  AND  coalesce(event_source, '') NOT IN ('ssm.amazonaws.com', 'ssmmessages.amazonaws.com', 'ec2messages.amazonaws.com')
  AND  time > session_created_time + INTERVAL '2 minutes'
  AND  first_seen(INTERVAL '14 days', principal, src_endpoint_ip)
