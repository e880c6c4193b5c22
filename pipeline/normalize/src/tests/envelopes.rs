//! Every envelope, and the test that opens it:
//!
//! | envelope | test |
//! | --- | --- |
//! | Kubernetes `Event`, v1 and v1beta1, with and without `apiVersion` | `kubernetes_events_of_any_version` |
//! | Kubernetes `EventList` | `kubernetes_lists`, `shapes::envelopes_are_opened` |
//! | AKS `properties.log`, records and one record | `aks_records` |
//! | CloudTrail record, `{"Records":[…]}` | `cloudtrail_files`, `real::a_file_as_one_message_gives_the_same_rows` |
//! | EventBridge `detail` | `eventbridge` |
//! | LookupEvents, `CloudTrailEvent` as text | `lookup_events` |
//! | CloudWatch Logs, `awslogs.data` and `logEvents` | `cloudwatch_logs_subscriptions`, `eks_audit_by_way_of_cloudwatch` |
//! | CloudWatch Logs control messages | `control_messages_are_kept` |
//! | gzip | `packed_messages` |
//! | Falco, falcosidekick, lists | `falco_alerts_and_lists`, `real::falco` |
//! | byte order marks, blank lines, text lines | `shapes::envelopes_are_opened`, `shapes::text_between_events_spoils_only_itself` |

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event::Source::{self, CloudTrail, Falco, Kubernetes};
use serde_json::{Value, json};

use super::{cell, cells, gzip, normalize, rows};

const K: &str = r#"{"auditID":"a","verb":"get", "stage":"ResponseComplete","user":{"username":"\u00e9"},"stageTimestamp":"2024-01-01T00:00:00Z"}"#;
const C: &str =
    r#"{"eventName":"E", "eventID":"e-1","errorMessage":"a \"quote\"\n","eventTime":"2024-01-01T00:00:00Z"}"#;
const F: &str = r#"{"rule":"r", "output":"x","time":"2024-01-01T00:00:00Z"}"#;

fn check(source: Source, message: impl Into<Vec<u8>>, expected: &[&str]) {
    let message = message.into();
    let shown = String::from_utf8_lossy(&message).into_owned();
    let normalized = normalize(source, message);
    let expected: Vec<String> = expected.iter().map(|raw| format!("{source}: {raw}")).collect();
    assert_eq!(rows(&normalized), expected, "{shown}");
    for (row, _) in expected.iter().enumerate() {
        let index = cells(&normalized.batches[0].rows, row, "message_index");
        assert_eq!(index, format!("message_index={row}"), "{shown}");
    }
}

/// https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html
fn subscription(messages: &[&str]) -> Value {
    let events: Vec<Value> = messages
        .iter()
        .enumerate()
        .map(|(i, message)| json!({"id": format!("{i}"), "timestamp": 1_700_000_000_000u64, "message": message}))
        .collect();
    json!({"messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": "g", "logStream": "s",
        "subscriptionFilters": ["f"], "logEvents": events})
}

fn packed(value: &Value) -> String {
    json!({"awslogs": {"data": STANDARD.encode(gzip(value.to_string().as_bytes()))}}).to_string()
}

#[test]
fn kubernetes_events_of_any_version() {
    check(Kubernetes, K, &[K]);
    let old = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1beta1","metadata":{"creationTimestamp":"2018-10-25T13:48:10Z"},"level":"Request","timestamp":"2018-10-25T13:48:10Z","auditID":"o","stage":"ResponseComplete","requestURI":"/api","verb":"get","user":{"username":"u"}}"#;
    check(Kubernetes, old, &[old]);
    let batch = &normalize(Kubernetes, old).batches[0].rows;
    assert_eq!(cell(batch, "time", 0).unwrap(), "2018-10-25T13:48:10Z");
    let new = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"n","stage":"RequestReceived","requestURI":"/api","verb":"get","user":{"username":"u"},"requestReceivedTimestamp":"2024-01-01T00:00:00.000001Z","stageTimestamp":"2024-01-01T00:00:00.000002Z"}"#;
    check(Kubernetes, new, &[new]);
}

#[test]
fn kubernetes_lists() {
    for list in [
        format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{K},{K}]}}"#),
        format!(r#"{{"items":[{K} , {K}]}}"#),
        format!("[{K},{K}]"),
        format!("{K}\n\n{K}\n"),
        format!("\u{feff}{K}\r\n{K}"),
    ] {
        check(Kubernetes, list, &[K, K]);
    }
}

/// https://learn.microsoft.com/azure/azure-monitor/essentials/resource-logs-schema
#[test]
fn aks_records() {
    let record =
        |log: &str| json!({"time": "2024-01-01T00:00:01Z", "category": "kube-audit", "properties": {"log": log}});
    check(Kubernetes, record(K).to_string(), &[K]);
    check(Kubernetes, json!({"records": [record(K), record(&format!("{K}\n"))]}).to_string(), &[K, K]);
}

#[test]
fn cloudtrail_files() {
    check(CloudTrail, C, &[C]);
    check(CloudTrail, format!(r#"{{"Records":[{C},{C}]}}"#), &[C, C]);
    check(CloudTrail, format!("{{\"Records\":[{C}]}}\n{{\"Records\":[{C}]}}"), &[C, C]);
}

/// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-service-event-cloudtrail.html
#[test]
fn eventbridge() {
    let event = format!(
        r#"{{"version":"0","id":"i","detail-type":"AWS API Call via CloudTrail","source":"aws.iam","account":"123456789012","time":"2024-01-01T00:00:00Z","region":"us-east-1","resources":[],"detail":{C}}}"#
    );
    check(CloudTrail, event.clone(), &[C]);
    check(CloudTrail, format!("[{event},{event}]"), &[C, C]);
}

/// https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
#[test]
fn lookup_events() {
    let event = json!({"EventId": "e-1", "EventName": "E", "EventTime": 1704067200.0, "Username": "u", "Resources": [],
        "CloudTrailEvent": C});
    check(CloudTrail, event.to_string(), &[C]);
    check(CloudTrail, json!({"Events": [event, event], "NextToken": "n"}).to_string(), &[C, C]);
    let empty = json!({"EventId": "e-1", "CloudTrailEvent": ""}).to_string();
    let kept = format!("unparsed: {empty} (not a CloudTrail record: no eventName)");
    assert_eq!(rows(&normalize(CloudTrail, empty)), [kept], "nothing inside, so the outside is kept");
}

#[test]
fn cloudwatch_logs_subscriptions() {
    for (source, event) in [(CloudTrail, C), (Falco, F), (Kubernetes, K)] {
        let message = subscription(&[event, event]);
        check(source, message.to_string(), &[event, event]);
        check(source, packed(&message), &[event, event]);
        check(source, gzip(message.to_string().as_bytes()), &[event, event]);
        check(source, format!("[{},{}]", packed(&message), message), &[event; 4]);
    }
}

#[test]
fn eks_audit_by_way_of_cloudwatch() {
    let message = subscription(&[K, "I0101 00:00:00.000000 1 controller.go:1] a line of another stream", K]);
    let normalized = normalize(Kubernetes, packed(&message));
    let text = "unparsed: I0101 00:00:00.000000 1 controller.go:1] a line of another stream \
                (not JSON: expected an object or a list at byte 0)";
    assert_eq!(rows(&normalized), [format!("kubernetes: {K}"), text.into(), format!("kubernetes: {K}")]);
}

#[test]
fn control_messages_are_kept() {
    let control = json!({"messageType": "CONTROL_MESSAGE", "owner": "CloudwatchLogs", "logGroup": "", "logStream": "",
        "subscriptionFilters": [], "logEvents": [{"id": "", "timestamp": 1_700_000_000_000u64,
        "message": "CWL CONTROL MESSAGE: Checking health of destination Kinesis stream."}]});
    let expected = format!("unparsed: {control} (control message of CloudWatch Logs: no events)");
    for message in
        [control.to_string().into_bytes(), packed(&control).into_bytes(), gzip(control.to_string().as_bytes())]
    {
        assert_eq!(rows(&normalize(Kubernetes, message)), std::slice::from_ref(&expected));
    }
}

#[test]
fn packed_messages() {
    check(CloudTrail, gzip(format!(r#"{{"Records":[{C},{C}]}}"#).as_bytes()), &[C, C]);
    check(Kubernetes, [gzip(K.as_bytes()), gzip(K.as_bytes())].concat(), &[K, K]);
    let whole = gzip(K.as_bytes());
    let cut = &whole[..whole.len() - 2];
    let normalized = normalize(Kubernetes, cut);
    let batch = &normalized.batches[0].rows;
    assert_eq!(&*normalized.batches[0].table, "unparsed");
    assert!(cell(batch, "reason", 0).unwrap().starts_with("not gzip: "));
    let hex: String = cut.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(cell(batch, "bytes", 0).unwrap(), hex);
    for data in ["!", "aGVsbG8="] {
        let message = json!({"awslogs": {"data": data}}).to_string();
        let shown = rows(&normalize(CloudTrail, message.clone()));
        assert!(
            shown.len() == 1 && shown[0].starts_with(&format!("unparsed: {message} (awslogs.data: not ")),
            "{shown:?}"
        );
    }
}

#[test]
fn falco_alerts_and_lists() {
    check(Falco, F, &[F]);
    check(Falco, format!("[{F},{F}]"), &[F, F]);
    let sidekick = r#"{"uuid":"u-1","output":"o","priority":"Notice","rule":"r","time":"2024-01-01T00:00:00.5Z","output_fields":{"proc.name":"sh"},"source":"syscall","tags":["t"],"hostname":"n"}"#;
    check(Falco, sidekick, &[sidekick]);
    let batch = &normalize(Falco, sidekick).batches[0].rows;
    assert_eq!(cells(batch, 0, "event_uid rule_source hostname"), "event_uid=u-1 rule_source=syscall hostname=n");
}

#[test]
fn an_envelope_key_within_an_event_is_none() {
    let event =
        r#"{"eventName":"PutEvents","eventTime":"2024-01-01T00:00:00Z","detail":{"eventName":"x"},"Records":[1]}"#;
    check(CloudTrail, event, &[event]);
}

#[test]
fn envelopes_of_other_types_are_kept_whole() {
    for text in [r#"{"detail":5}"#, r#"{"logEvents":"x"}"#, r#"{"awslogs":{"data":7}}"#, r#"{"Events":{}}"#] {
        let kept = format!("unparsed: {text} (not a CloudTrail record: no eventName)");
        assert_eq!(rows(&normalize(CloudTrail, text)), [kept]);
    }
    let log = json!({"logEvents": [{"id": "1"}, 5, {"message": 7}]}).to_string();
    let shown = rows(&normalize(CloudTrail, log));
    assert_eq!(shown.len(), 3, "{shown:?}");
}

/// Found by fuzzing: a string that no envelope announces lost its quotes.
#[test]
fn strings_in_lists_are_kept_as_they_are() {
    for list in [r#"["t"]"#, r#"{"Records":["t"]}"#, r#"{"Events":["t"]}"#] {
        assert_eq!(rows(&normalize(CloudTrail, list)), [r#"unparsed: "t" (not a CloudTrail record: not an object)"#]);
    }
}

#[test]
fn without_a_cluster_that_the_source_needs_nothing_is_lost() {
    let mut normalizer = crate::Normalizer::new(&crate::Schemas::builtin());
    for (source, text) in [(Kubernetes, format!("[{K},{K}]")), (CloudTrail, C.into()), (Falco, F.into())] {
        normalizer.push(&event::Message { cluster: None, ..super::message(source, text) });
    }
    let shown = rows(&normalizer.finish());
    let unparsed = |raw| {
        format!(
            "unparsed: {raw} (no cluster: neither the topic's mapping nor the message says which one it comes from)"
        )
    };
    assert_eq!(shown, [unparsed(K), unparsed(K), format!("cloudtrail: {C}"), unparsed(F)]);
}
