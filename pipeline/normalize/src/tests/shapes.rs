//! What each vendor's events and envelopes become.

use event::Source::{self, CloudTrail, Falco, Kubernetes};

use super::{RECEIVED, cell, cells, normalize, rows};

const EXEC: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a1","stage":"ResponseStarted","requestURI":"/api/v1/namespaces/web/pods/p/exec?command=sh","verb":"create","user":{"username":"system:serviceaccount:ci:builder","uid":"u-1","groups":["system:serviceaccounts","system:authenticated"]},"impersonatedUser":{"username":"bob"},"sourceIPs":["10.1.2.3","10.0.0.1"],"userAgent":"kubectl/v1.31.0","objectRef":{"resource":"pods","namespace":"web","name":"p","apiVersion":"v1","subresource":"exec"},"responseStatus":{"metadata":{},"code":101},"requestReceivedTimestamp":"2024-05-01T10:00:00.123456Z","stageTimestamp":"2024-05-01T10:00:00.2Z","annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}"#;
const DENIED: &str = r#"{"eventVersion":"1.08","userIdentity":{"type":"AssumedRole","principalId":"AROA:s","arn":"arn:aws:sts::111122223333:assumed-role/Admin/s","accountId":"111122223333","accessKeyId":"ASIA1","sessionContext":{"sessionIssuer":{"type":"Role","arn":"arn:aws:iam::111122223333:role/Admin","userName":"Admin"},"attributes":{"mfaAuthenticated":"true"}}},"eventTime":"2023-07-10T11:42:44Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"us-east-1","sourceIPAddress":"cloudtrail.amazonaws.com","userAgent":"aws-cli/2","errorCode":"AccessDenied","errorMessage":"Access \"Denied\"","requestID":"R1","eventID":"e-1","readOnly":true,"resources":[{"type":"AWS::S3::Object","ARN":"arn:aws:s3:::b/k"},{"type":"AWS::S3::Bucket"}],"eventType":"AwsApiCall","managementEvent":false,"recipientAccountId":"444455556666","eventCategory":"Data"}"#;
const SHELL: &str = r#"{"hostname":"n1","output":"10:00: Notice A shell","priority":"Notice","rule":"Terminal shell in container","source":"syscall","tags":["container","T1059"],"time":"2024-05-01T10:00:00.123456789Z","output_fields":{"container.id":"788861c3cf83","evt.time":1714557600123456789,"evt.type":"execve","k8s.ns.name":"web","k8s.pod.name":"p","proc.name":"sh","proc.aname[2]":"x","user.name":"root","user.uid":0,"fd.name":null}}"#;

fn check(source: Source, event: &str, columns: &[&str]) {
    let normalized = normalize(source, event);
    assert_eq!(rows(&normalized), [format!("{source}: {event}")]);
    let batch = &normalized.batches[0].rows;
    for expected in columns {
        let names: Vec<&str> = expected.split(' ').filter_map(|c| Some(c.split_once('=')?.0)).collect();
        assert_eq!(cells(batch, 0, &names.join(" ")), *expected);
    }
}

#[test]
fn kubernetes_events() {
    check(
        Kubernetes,
        EXEC,
        &[
            "time=2024-05-01T10:00:00.200Z ingest_time=2023-11-14T22:13:20Z event_uid=a1/ResponseStarted source=kubernetes",
            "cluster=prod origin=live topic=audit partition=3 offset=42 message_index=0 file_sha256=- redacted=false",
            "actor_user_name=system:serviceaccount:ci:builder actor_user_type=ServiceAccount actor_user_uid=u-1",
            "src_endpoint_ip=10.1.2.3 api_operation=create api_service_name=core resource_type=pods resource_name=p",
            "resource_namespace=web status=Success status_code=101 http_request_user_agent=kubectl/v1.31.0",
            "cloud_account_uid=- cloud_region=- severity=- message=- level=Metadata stage=ResponseStarted",
            "verb=create request_uri=/api/v1/namespaces/web/pods/p/exec?command=sh impersonated_user_name=bob",
            "objectref_api_group=- objectref_resource=pods objectref_subresource=exec objectref_namespace=web",
            "objectref_name=p response_code=101 response_reason=- authorization_decision=allow authorization_reason=",
            "request_received_time=2024-05-01T10:00:00.123456Z",
        ],
    );
    let batch = &normalize(Kubernetes, EXEC).batches[0].rows;
    assert_eq!(cell(batch, "source_ips", 0).unwrap(), "[10.1.2.3, 10.0.0.1]");
    assert_eq!(cell(batch, "actor_user_groups", 0).unwrap(), "[system:serviceaccounts, system:authenticated]");
}

#[test]
fn kubernetes_older_shapes_and_missing_parts() {
    let check = |event: &str, columns: &[&str]| check(Kubernetes, event, columns);
    check(
        r#"{"auditID":"a","verb":"get","requestURI":"/healthz","metadata":{"creationTimestamp":"2017-09-11T20:27:42Z"}}"#,
        &[
            "time=2017-09-11T20:27:42Z event_uid=a api_service_name=- status=- status_code=- response_code=- actor_user_name=-",
        ],
    );
    check(
        r#"{"timestamp":"2018-10-20T00:18:28Z","metadata":{"creationTimestamp":"2017-01-01T00:00:00Z"},"auditID":"a","requestURI":"/"}"#,
        &["time=2018-10-20T00:18:28Z verb=-"],
    );
    check(
        r#"{"stageTimestamp":"<ts>","requestReceivedTimestamp":"2024-01-01T00:00:00Z","auditID":"a","verb":"get","responseStatus":{"code":403,"reason":"Forbidden"},"objectRef":{"resource":"roles","apiGroup":"rbac.authorization.k8s.io"},"user":{"username":"system:anonymous"}}"#,
        &[
            "time=2024-01-01T00:00:00Z status=Failure status_code=403 response_reason=Forbidden actor_user_type=System",
            "api_service_name=rbac.authorization.k8s.io objectref_api_group=rbac.authorization.k8s.io",
        ],
    );
}

#[test]
fn cloudtrail_records() {
    check(
        CloudTrail,
        DENIED,
        &[
            "time=2023-07-10T11:42:44Z event_uid=e-1 cluster=- actor_user_name=Admin actor_user_type=AssumedRole",
            "actor_user_uid=AROA:s src_endpoint_ip=cloudtrail.amazonaws.com api_operation=GetObject",
            "api_service_name=s3.amazonaws.com resource_type=AWS::S3::Object resource_name=arn:aws:s3:::b/k",
            "cloud_account_uid=111122223333 cloud_region=us-east-1 status=Failure status_code=AccessDenied",
            "message=Access \"Denied\"",
            "error_code=AccessDenied event_name=GetObject read_only=true management_event=false session_mfa=true",
            "session_issuer_arn=arn:aws:iam::111122223333:role/Admin invoked_by=- recipient_account_id=444455556666",
        ],
    );
    let status = |rest: &str, expected: &str| {
        let event = format!(r#"{{"eventName":"ConsoleLogin","eventTime":"2023-07-10T11:42:44Z"{rest}}}"#);
        check(CloudTrail, &event, &[&format!("status={expected}")]);
    };
    status("", "Success");
    status(r#","errorMessage":"Failed authentication","responseElements":{"ConsoleLogin":"Failure"}"#, "Failure");
    status(r#","responseElements":{"ConsoleLogin":"Failure"}"#, "Failure");
    status(r#","responseElements":{"ConsoleLogin":"Success"},"errorCode":null"#, "Success");
}

#[test]
fn falco_alerts() {
    check(
        Falco,
        SHELL,
        &[
            "time=2024-05-01T10:00:00.123456Z cluster=prod actor_user_name=root actor_user_uid=0 api_operation=execve",
            "resource_type=pods resource_name=p resource_namespace=web severity=notice message=10:00: Notice A shell",
            "status=- src_endpoint_ip=- rule=Terminal shell in container priority=Notice hostname=n1 evt_type=execve",
            "k8s_ns_name=web k8s_pod_name=p container_id=788861c3cf83 proc_name=sh user_name=root fd_name=-",
        ],
    );
    let batch = &normalize(Falco, SHELL).batches[0].rows;
    assert_eq!(cell(batch, "event_uid", 0), cell(batch, "row_hash", 0), "without a uuid the hash in hex is the uid");
    let event = r#"{"uuid":"u-7","rule":"r","time":1714557600123456789,"output_fields":{}}"#;
    check(Falco, event, &["event_uid=u-7 time=2024-05-01T10:00:00.123456Z resource_type=-"]);
}

#[test]
fn the_first_of_repeated_keys_counts() {
    check(
        Kubernetes,
        r#"{"auditID":"a","auditID":"b","verb":"get","user":{"username":"x"},"user":{"username":"y","uid":"z"},"stageTimestamp":"2024-01-01T00:00:00Z"}"#,
        &["actor_user_name=x actor_user_uid=-"],
    );
}

#[test]
fn the_first_declared_path_counts_wherever_it_stands() {
    for event in [
        r#"{"recipientAccountId":"2","userIdentity":{"accountId":"1"},"eventName":"E","eventTime":"2024-01-01T00:00:00Z"}"#,
        r#"{"userIdentity":{"accountId":"1"},"recipientAccountId":"2","eventName":"E","eventTime":"2024-01-01T00:00:00Z"}"#,
    ] {
        check(CloudTrail, event, &["cloud_account_uid=1 recipient_account_id=2"]);
    }
    let event = r#"{"recipientAccountId":"2","userIdentity":{"accountId":null},"eventName":"E","eventTime":"2024-01-01T00:00:00Z"}"#;
    check(CloudTrail, event, &["cloud_account_uid=2"]);
}

#[test]
fn envelopes_are_opened() {
    let k = r#"{"auditID":"a","verb":"get","stageTimestamp":"2024-01-01T00:00:00Z"}"#;
    let c = r#"{"eventName":"E", "eventTime":"2024-01-01T00:00:00Z"}"#;
    let (kubernetes, cloudtrail) = (format!("kubernetes: {k}"), format!("cloudtrail: {c}"));
    let check = |source, text: String, expected: &[&String]| {
        assert_eq!(rows(&normalize(source, text.clone())).iter().collect::<Vec<_>>(), expected, "{text}");
    };
    check(Kubernetes, format!("\u{feff}  {k}\r\n"), &[&kubernetes]);
    check(
        Kubernetes,
        format!(r#"{{"kind":"EventList","items":[{k},{k}],"apiVersion":"v1"}}"#),
        &[&kubernetes, &kubernetes],
    );
    check(
        Kubernetes,
        format!(r#"{{"items":[{k}, 5]}}"#),
        &[&kubernetes, &"unparsed: 5 (not a Kubernetes audit event: not an object)".into()],
    );
    check(Kubernetes, format!("[{k}\n,{{\"items\":[{k}]}}]"), &[&kubernetes, &kubernetes]);
    check(Kubernetes, format!("{k}{k}\n{k}"), &[&kubernetes, &kubernetes, &kubernetes]);
    check(Kubernetes, format!("{k}\n\u{feff}{k}\n\u{feff}"), &[&kubernetes, &kubernetes]);
    check(CloudTrail, format!(r#"{{"Records":[{c}, {c}]}}"#), &[&cloudtrail, &cloudtrail]);
    check(CloudTrail, r#"{"Records":[]}"#.into(), &[]);
    check(CloudTrail, " \n\t".into(), &[]);
    let list = normalize(CloudTrail, format!("[{c},7,{c}]"));
    assert_eq!(list.order, [0, 1, 0]);
    assert_eq!(cells(&list.batches[0].rows, 1, "message_index"), "message_index=2");
    assert_eq!(cells(&list.batches[1].rows, 0, "message_index"), "message_index=1");
}

#[test]
fn what_is_no_event_is_kept_with_its_reason() {
    let check = |source, text: &str, reason: &str| {
        assert_eq!(rows(&normalize(source, text)), [format!("unparsed: {text} ({reason})")]);
    };
    check(Falco, "10:36:32 Notice something", "not JSON: expected an object or a list at byte 0");
    check(Kubernetes, r#"{"kind":0}"#, "not a Kubernetes audit event: no auditID");
    check(Kubernetes, r#"{"auditID":5,"verb":"get"}"#, "not a Kubernetes audit event: no auditID");
    check(Kubernetes, r#"{"auditID":"a"}"#, "not a Kubernetes audit event: no verb/requestURI");
    check(CloudTrail, r#"{"eventName":"E"}"#, "no event time: no eventTime");
    check(CloudTrail, r#"{"eventName":"E","eventTime":"soon"}"#, "no event time: cannot read eventTime");
    check(
        CloudTrail,
        r#"{"eventName":"E","eventTime":"1500-01-01T00:00:00Z"}"#,
        "no event time: cannot read eventTime",
    );
    check(CloudTrail, r#"{"Records":{"eventName":"E"}}"#, "not a CloudTrail record: no eventName");
    assert_eq!(
        rows(&normalize(CloudTrail, "[[[[[[[[1]]]]]]]]")),
        ["unparsed: [[1]] (not a CloudTrail record: not an object)"]
    );
    check(Falco, "5", "not a Falco alert: not an object");
    check(Falco, r#"{"rule":"r","time":"2024-01-01T00:00:00Z""#, "not JSON: EOF while parsing an object at byte 40");
}

#[test]
fn text_between_events_spoils_only_itself() {
    let f = r#"{"rule":"r","time":"2024-01-01T00:00:00Z"}"#;
    let text = format!("{f}\n10:36:32 Falco started\nwith 3 rules\n{f} {{\"rule\":\n{f}x");
    assert_eq!(
        rows(&normalize(Falco, text)),
        [
            format!("falco: {f}"),
            "unparsed: 10:36:32 Falco started\nwith 3 rules (not JSON: expected an object or a list at byte 0)".into(),
            format!("falco: {f}"),
            "unparsed: {\"rule\": (not JSON: expected `,` or `}` at byte 51)".into(),
            format!("falco: {f}"),
            "unparsed: x (not JSON: expected an object or a list at byte 0)".into(),
        ]
    );
}

#[test]
fn unparsed_rows_keep_the_bytes() {
    let normalized = normalize(Falco, b"{\"rule\":\"\xff\"}".to_vec());
    assert_eq!(rows(&normalized), ["unparsed: {\"rule\":\"\u{fffd}\"} (not UTF-8: invalid byte at byte 9)"]);
    let batch = &normalized.batches[0].rows;
    assert_eq!(cell(batch, "bytes", 0).unwrap(), "7b2272756c65223a22ff227d");
    assert_eq!(cell(batch, "time", 0), cell(batch, "ingest_time", 0));
    assert_eq!(cell(batch, "time", 0).unwrap(), event::format_micros(RECEIVED));
    assert_eq!(cell(batch, "event_uid", 0), cell(batch, "row_hash", 0));
    assert_eq!(cell(&normalize(Falco, "x").batches[0].rows, "bytes", 0), None);
}
