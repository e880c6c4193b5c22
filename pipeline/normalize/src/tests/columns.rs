//! Columns that are made, not copied, through the normalizer.

use event::Source::{self, CloudTrail, Falco, Kubernetes};

use super::{cells, normalize};

/// `columns` as `name=value`, separated by `; `.
fn check(source: Source, event: &str, columns: &str) {
    let normalized = normalize(source, event);
    assert_eq!(&*normalized.batches[0].table, source.name(), "{event}");
    let names = columns.split("; ").filter_map(|column| Some(column.split_once('=')?.0));
    let found: Vec<String> = names.map(|name| cells(&normalized.batches[0].rows, 0, name)).collect();
    assert_eq!(found.join("; "), columns, "{event}");
}

fn kubernetes(rest: &str, columns: &str) {
    let event = format!(r#"{{"auditID":"a","verb":"create","stageTimestamp":"2024-01-01T00:00:00Z",{rest}}}"#);
    check(Kubernetes, &event, columns);
}

fn cloudtrail(rest: &str, columns: &str) {
    check(CloudTrail, &format!(r#"{{"eventName":"E","eventTime":"2024-01-01T00:00:00Z",{rest}}}"#), columns);
}

#[test]
fn kubernetes_users_and_tokens() {
    kubernetes(
        r#""user":{"username":"u","extra":{"arn":["arn:a"],"canonicalArn":["arn:c"],"accessKeyId":["ASIA1"],"sessionName":["i-1"],"authentication.kubernetes.io/pod-name":["p"],"authentication.kubernetes.io/pod-uid":["pu"],"authentication.kubernetes.io/node-name":["n"],"authentication.kubernetes.io/credential-id":["JTI=1"]}},"annotations":{"authentication.kubernetes.io/issued-credential-id":"JTI=2"},"impersonatedUser":{"username":"b","groups":["system:masters"]}"#,
        "actor_user_aws_arn=arn:a; actor_user_aws_canonical_arn=arn:c; actor_user_access_key_id=ASIA1; \
         actor_user_session_name=i-1; actor_user_pod_name=p; actor_user_pod_uid=pu; actor_user_node_name=n; \
         actor_user_credential_uid=JTI=1; issued_credential_uid=JTI=2; impersonated_user_groups=[system:masters]",
    );
}

#[test]
fn kubernetes_requests() {
    kubernetes(
        r#""requestURI":"/api/v1/namespaces/web/pods/p/exec?command=sh&command=-c&command=id%20-u&container=c&stdin=true","userAgent":"kubectl/v1.31.0 (linux/amd64)","sourceIPs":["::ffff:010.1.2.3"],"responseStatus":{"code":403,"message":"no"}"#,
        "uri_path=/api/v1/namespaces/web/pods/p/exec; exec_argv=[sh, -c, id -u]; exec_container=c; dry_run=false; \
         user_agent_family=kubectl; src_endpoint_ip=::ffff:010.1.2.3; source_ips=[::ffff:010.1.2.3]; response_message=no",
    );
    kubernetes(
        r#""requestURI":"/api/v1/pods?dryRun=All","sourceIPs":["2001:DB8:0::1","10.0.0.1"],"objectRef":{"uid":"u1"}"#,
        "uri_path=/api/v1/pods; exec_argv=-; exec_container=-; dry_run=true; src_endpoint_ip=2001:db8::1; objectref_uid=u1",
    );
    kubernetes(
        r#""annotations":{"authorization.k8s.io/reason":"RBAC: allowed by ClusterRoleBinding \"x\" of ClusterRole \"y\" to User \"z\"","pod-security.kubernetes.io/audit-violations":"would violate PodSecurity","pod-security.kubernetes.io/exempt":"namespace"}"#,
        "authorization_binding=ClusterRoleBinding/x; authorization_role=ClusterRole/y; \
         pod_security_violations=would violate PodSecurity; pod_security_exempt=namespace; dry_run=-",
    );
}

#[test]
fn kubernetes_objects() {
    kubernetes(
        r#""requestObject":{"metadata":{"labels":{"app":"web","tier":"front"},"ownerReferences":[{"kind":"ReplicaSet","name":"r","uid":"o1"}]},"spec":{"expirationSeconds":86400}},"responseObject":{"metadata":{"uid":"u2"},"spec":{"expirationSeconds":3600}}"#,
        "object_labels=[app=web, tier=front]; object_owner_uid=o1; object_owner_kind=ReplicaSet; object_owner_name=r; \
         objectref_uid=u2; token_expiration_seconds=3600",
    );
    kubernetes(
        r#""requestObject":{"roleRef":{"kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"kind":"Group","name":"system:authenticated"},{"kind":"ServiceAccount","namespace":"ci","name":"b"}]}"#,
        "rbac_role_ref_kind=ClusterRole; rbac_role_ref_name=cluster-admin; \
         rbac_subjects=[Group/system:authenticated, ServiceAccount/system:serviceaccount:ci:b]; rbac_rules=-",
    );
    kubernetes(
        r#""requestObject":{"rules":[{"apiGroups":["","apps"],"resources":["*"],"verbs":["get"]}]}"#,
        "rbac_rules=[get *, get *.apps]; rbac_subjects=-",
    );
}

#[test]
fn cloudtrail_identities() {
    cloudtrail(
        r#""userIdentity":{"type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/Node/i-0123456789abcdef0","sessionContext":{"sessionIssuer":{"arn":"arn:aws:iam::1:role/Node"},"attributes":{"creationDate":"2024-01-01T00:00:00Z","mfaAuthenticated":"false"},"ec2RoleDelivery":"2.0"}},"sourceIPAddress":"010.0.0.1","userAgent":"[aws-cli/2.9 Python/3]""#,
        "principal=arn:aws:iam::1:role/Node; session_name=i-0123456789abcdef0; instance_session=true; service_call=false; \
         session_created_time=2024-01-01T00:00:00Z; mfa=false; console_session=-; src_endpoint_ip=10.0.0.1; \
         source_ip_address=010.0.0.1; user_agent_family=aws-cli",
    );
    cloudtrail(
        r#""userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::1:user/a","userName":"a"},"sessionCredentialFromConsole":"true","additionalEventData":{"MFAUsed":"Yes","bytesTransferredOut":12.0},"sourceIPAddress":"AWS Internal""#,
        "principal=arn:aws:iam::1:user/a; session_name=-; instance_session=false; service_call=true; mfa=true; \
         console_session=true; src_endpoint_ip=AWS Internal; bytes_transferred_out=12",
    );
}

#[test]
fn cloudtrail_targets() {
    let record = r#"{"eventName":"CreateFunction20150331","eventTime":"2024-01-01T00:00:00Z","requestParameters":{"functionName":"f","role":"arn:role"},"resources":[{"ARN":"arn:1"},{"ARN":"arn:2"}]}"#;
    check(
        CloudTrail,
        record,
        "event_base_name=CreateFunction; target_name=f; role_arn=arn:role; target_arn=arn:1; resource_arns=[arn:1, arn:2]",
    );
    cloudtrail(
        r#""requestParameters":{"roleArn":"arn:r","roleSessionName":"s"},"responseElements":{"credentials":{"accessKeyId":"ASIA1"},"assumedRoleUser":{"arn":"arn:s"},"subjectFromWebIdentityToken":"system:serviceaccount:a:b","provider":"oidc"}"#,
        "role_arn=arn:r; role_session_name=s; issued_access_key_id=ASIA1; issued_session_arn=arn:s; \
         web_identity_subject=system:serviceaccount:a:b; web_identity_provider=oidc",
    );
    cloudtrail(r#""requestParameters":{"bucketName":["b"],"key":"k"}"#, r#"target_name=["b"]; object_key=k"#);
}

#[test]
fn falco_connections() {
    let event = r#"{"rule":"r","source":"syscall","time":"2024-01-01T00:00:00Z","output_fields":{"fd.name":"10.0.0.7:39526->10.100.0.1:443","proc.pname":"sh","proc.aname[2]":null,"proc.aname[3]":"runc","proc.tty":34816,"container.image.tag":"1.27","user.loginuid":-1}}"#;
    check(
        Falco,
        event,
        "fd_sip=10.100.0.1; fd_sport=443; fd_rip=-; proc_ancestors=[sh, runc]; proc_tty=34816; container_image_tag=1.27; \
         user_loginuid=-1; rule_source=syscall",
    );
}
