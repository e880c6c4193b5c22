/*
title: Workload outside the Pod Security Standards
severity: medium
attack: [T1610, T1611]
entity: [cluster, namespace, workload]
summary: "{workload} in {namespace} of {cluster} by {actor_user_name}: {controls}"
needs_level: Request
suppress: 24h
triage: |
  1. Which controls? `Unconfined` profiles, an unmasked `/proc`, foreign SELinux types and unsafe kernel parameters are
     asked for by hand; a missing `runAsNonRoot` is mostly neglect.
  2. Was it refused (`outcome`), noted, or let pass because somebody is exempt (`exempt`)? Who is exempt, and why?
  3. Set the namespace's `enforce` label to the level that its workloads meet.
benign: Workloads in namespaces that are privileged on purpose; exemptions of the cluster's own controllers.
references:
  - https://kubernetes.io/docs/concepts/security/pod-security-standards/
  - https://kubernetes.io/docs/reference/labels-annotations-taints/audit-annotations/
*/
-- Two ways to know: what the admission plugin noted (at any level), and what the spec asks for (level Request). Of the
-- spec only what nobody asks for by accident: privileges, host namespaces, paths and capabilities have rules of their own.
-- An exempt namespace is the cluster's own choice; an exempt user is worth a look.
SELECT cluster, coalesce(objectref_namespace, '(none)') AS namespace,
       -- what the pod belongs to, so that a deployment is one incident and not one for every replica
       coalesce(CASE WHEN object_owner_kind = 'ReplicaSet'
                     THEN 'deployments/' || regexp_replace(object_owner_name, '-[a-z0-9]+$', '')
                     WHEN object_owner_kind = 'Job' AND object_owner_name ~ '-[0-9]{8,}$'
                     THEN 'cronjobs/' || regexp_replace(object_owner_name, '-[0-9]+$', '')
                     ELSE lower(object_owner_kind) || 's/' || object_owner_name END,
                concat(objectref_resource, '/',
                       coalesce(objectref_name, raw->'responseObject'->'metadata'->>'name',
                                raw->'requestObject'->'metadata'->>'generateName', '(generated)'))) AS workload,
       actor_user_name, src_endpoint_ip, verb,
       concat_ws('; ', pod_security_violations,
                 CASE WHEN response_code = 403 THEN response_message END,
                 CASE WHEN array_has(pod_seccomp, 'Unconfined') THEN 'seccomp Unconfined' END,
                 CASE WHEN array_has(pod_apparmor, 'Unconfined') THEN 'AppArmor Unconfined' END,
                 CASE WHEN array_has(pod_proc_mounts, 'Unmasked') THEN '/proc unmasked' END,
                 CASE WHEN cardinality(pod_sysctls) > 0 THEN concat('sysctls ', array_to_string(pod_sysctls, ' ')) END,
                 CASE WHEN cardinality(pod_selinux) > 0 THEN concat('SELinux ', array_to_string(pod_selinux, ' ')) END,
                 'exempt: ' || pod_security_exempt) AS controls,
       pod_security_exempt AS exempt,
       CASE WHEN response_code = 403 THEN 'refused' ELSE 'let pass' END AS outcome
FROM   kubernetes_calls
WHERE  dry_run IS NOT TRUE
  AND  (pod_security_violations IS NOT NULL
     OR pod_security_exempt IN ('user', 'runtimeClass')
     OR (response_code = 403 AND response_message LIKE '%violates PodSecurity%')
     OR (coalesce(status, '') <> 'Failure'
         AND (array_has(pod_seccomp, 'Unconfined')
           OR array_has(pod_apparmor, 'Unconfined')
           OR array_has(pod_proc_mounts, 'Unmasked')
           OR array_to_string(array_except(pod_sysctls,
                ['kernel.shm_rmid_forced', 'net.ipv4.ip_local_port_range', 'net.ipv4.ip_local_reserved_ports',
                 'net.ipv4.ip_unprivileged_port_start', 'net.ipv4.tcp_syncookies', 'net.ipv4.ping_group_range',
                 'net.ipv4.tcp_keepalive_time', 'net.ipv4.tcp_keepalive_intvl', 'net.ipv4.tcp_keepalive_probes',
                 'net.ipv4.tcp_fin_timeout', 'net.ipv4.tcp_rmem', 'net.ipv4.tcp_wmem']), ' ') <> ''
           OR array_to_string(array_except(pod_selinux,
                ['type=container_t', 'type=container_init_t', 'type=container_kvm_t', 'type=container_engine_t']), chr(10))
              ~ '(?m)^(type|user|role)=')))
  AND  coalesce(actor_user_type, '') <> 'Node'
