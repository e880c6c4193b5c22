//! Input that is made to do harm, or has come to it: no panic, no loss, bounded memory and time.

use std::time::Instant;

use arrow::array::{Array, ArrayRef};
use event::{Message, Source};
use serde_json::{Map, Value, json};

use super::{Random, cell, gzip, message, normalize, real_lines, rows};
use crate::path::{Path, Step};
use crate::{Normalizer, Schemas};

const TIME: &str = "2024-01-01T00:00:00Z";

/// Values of every type, hostile ones among them.
fn junk() -> Vec<Value> {
    let deep = (0..100).fold(json!(1), |inner, i| if i % 2 == 0 { json!([inner]) } else { json!({"a": inner}) });
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("\u{0}\u{1f}\\\"é\u{10ffff}"),
        json!("9999-99-99T99:99:99Z"),
        json!("%%%?command=%ff&=&command"),
        json!("a".repeat(70_000)),
        json!([]),
        json!({}),
        json!([null, [[]], {"": {}}, "x", 1.5]),
        json!({"": null, "a.b": [1], "\u{0}": "x", "verbs": 5, "name": {}, "kind": [], "op": "add", "path": 7}),
        deep,
    ]
}

/// Puts `value` at the end of the path.
fn put(at: &mut Value, steps: &[Step], value: Value) {
    let Some((first, rest)) = steps.split_first() else {
        *at = value;
        return;
    };
    match first {
        Step::Key(key) => {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            put(at.as_object_mut().unwrap().entry(key.clone()).or_insert(Value::Null), rest, value);
        }
        Step::Index(index) => {
            let mut list = vec![Value::Null; index + 1];
            put(&mut list[*index], rest, value);
            *at = Value::Array(list);
        }
    }
}

fn event_of(source: Source) -> Value {
    match source {
        Source::Kubernetes => json!({"auditID": "a", "verb": "create", "stageTimestamp": TIME,
            "objectRef": {"resource": "pods"}, "requestObject": {"spec": {"containers": []}}}),
        Source::CloudTrail => json!({"eventName": "E", "eventTime": TIME}),
        Source::Falco => json!({"rule": "r", "time": TIME}),
    }
}

#[test]
fn every_mapped_path_takes_every_type() {
    let schemas = Schemas::builtin();
    let mut normalizer = Normalizer::new(&schemas);
    let bodies = [
        "requestObject",
        "responseObject",
        "requestObject.spec",
        "requestObject.spec.containers",
        "requestObject.spec.containers[0].securityContext",
        "requestObject.spec.volumes",
        "requestObject.metadata",
        "requestObject.data",
        "requestParameters",
        "responseElements",
        "detail",
        "awslogs.data",
        "logEvents",
        "records",
        "properties.log",
        "Events",
        "CloudTrailEvent",
        "items",
        "Records",
        "messageType",
    ];
    for plan in schemas.plans() {
        let bodies: Vec<Path> = bodies.iter().map(|path| Path::parse(path).unwrap()).collect();
        let needed: Vec<&Path> = plan.require.iter().flatten().chain(&plan.time).collect();
        for path in plan.fills.iter().flat_map(|fill| &fill.paths).chain(needed).chain(&bodies) {
            for value in junk() {
                let mut event = event_of(plan.source);
                put(&mut event, &path.steps, value);
                let text = event.to_string();
                normalizer.push(&message(plan.source, text.clone()));
                let normalized = normalizer.finish();
                assert_eq!(normalized.order, [0], "{}: {}", path.text, &text[..text.len().min(300)]);
                super::assert_is(&normalized.batches[0].rows, 0, text.as_bytes());
            }
        }
    }
}

#[test]
fn truncated_events_are_one_row_at_every_length() {
    let mut random = Random::new();
    for (source, file) in [
        (Source::Kubernetes, "kubernetes/openshift_audit.ndjson"),
        (Source::CloudTrail, "cloudtrail/misc.ndjson"),
        (Source::Falco, "falco/falco_docs.ndjson"),
    ] {
        let mut normalizer = Normalizer::new(&Schemas::builtin());
        for line in real_lines(file) {
            let length = 1 + random.below(line.len() - 1);
            let cut = line[..length].to_vec();
            normalizer.push(&message(source, cut.clone()));
            let normalized = normalizer.finish();
            assert_eq!(normalized.order, [0], "{}", String::from_utf8_lossy(&cut));
            assert_eq!(&*normalized.batches[0].table, "unparsed");
        }
    }
}

#[test]
fn long_and_deep_lines_are_rows() {
    let event = |body: String| {
        format!(
            r#"{{"auditID":"a","verb":"create","stageTimestamp":"{TIME}","objectRef":{{"resource":"pods"}},"requestObject":{body}}}"#
        )
    };
    let container = r#"{"name":"c","image":"i","env":[{"name":"A","value":"b"}]}"#;
    let long = event(format!(r#"{{"spec":{{"containers":[{}]}}}}"#, vec![container; 4000].join(",")));
    assert!(long.len() > 220_000);
    let nested = event(format!("{}1{}", r#"{"spec":"#.repeat(1000), "}".repeat(1000)));
    let lists = event(format!("{}1{}", r#"[{"op":"add","path":"/spec","value":"#.repeat(1000), "}]".repeat(1000)));
    for text in [long, nested, lists] {
        assert_eq!(rows(&normalize(Source::Kubernetes, text.clone())), [format!("kubernetes: {text}")]);
    }
    let credentials = format!(
        r#"{{"eventName":"E","eventTime":"{TIME}","responseElements":{}{}"#,
        r#"{"sessionToken":"#.repeat(100_000),
        "1"
    );
    let credentials = credentials + &"}".repeat(100_001);
    let normalized = normalize(Source::CloudTrail, credentials);
    assert_eq!(cell(&normalized.batches[0].rows, "redacted", 0).unwrap(), "true");
    assert!(cell(&normalized.batches[0].rows, "raw", 0).unwrap().len() < 200);
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    for bytes in
        [&b"\xff\xfe{\0\"\0"[..], b"\0\0\0", b"{\"auditID\":\"\0\"}", b"\x1f\x8b", b"\x1f\x8b\x08", b"\xef\xbb\xbf\x80"]
    {
        let normalized = normalize(Source::Kubernetes, bytes.to_vec());
        assert_eq!(normalized.order, [0], "{bytes:?}");
        let batch = &normalized.batches[0].rows;
        let kept = cell(batch, "bytes", 0)
            .unwrap_or_else(|| cell(batch, "raw", 0).unwrap().bytes().map(|byte| format!("{byte:02x}")).collect());
        assert_eq!(kept, bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
}

/// Bytes of the distinct buffers of a batch.
fn memory(columns: &[ArrayRef]) -> usize {
    let mut seen = std::collections::BTreeMap::new();
    let mut stack: Vec<_> = columns.iter().map(|column| column.to_data()).collect();
    while let Some(data) = stack.pop() {
        seen.extend(data.buffers().iter().map(|buffer| (buffer.as_ptr() as usize, buffer.capacity())));
        stack.extend(data.child_data().to_vec());
    }
    seen.values().sum()
}

#[test]
fn gzip_bombs_become_one_row_with_their_bytes() {
    let bomb = gzip(&vec![b'['; 16 << 20]);
    let check = |bytes: Vec<u8>, compressed: bool| {
        let length = bytes.len();
        let normalized = normalize(Source::CloudTrail, bytes);
        assert_eq!(normalized.order, [0]);
        let batch = &normalized.batches[0].rows;
        let reason = cell(batch, "reason", 0).unwrap();
        assert!(reason.contains("gzip of more than"), "{reason}");
        assert_eq!(cell(batch, "bytes", 0).map(|hex| hex.len() / 2), compressed.then_some(length));
        assert!(memory(batch.columns()) < 8 << 20, "{}", memory(batch.columns()));
    };
    check(bomb.clone(), true);
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bomb);
    check(json!({"awslogs": {"data": data}}).to_string().into_bytes(), false);
    // One within another, and many small ones in one message.
    let inner = json!({"awslogs": {"data": data}}).to_string();
    check(json!({"logEvents": [{"message": inner}]}).to_string().into_bytes(), false);
    let small = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, gzip(&vec![b' '; 1 << 20]));
    let many = json!(vec![json!({"awslogs": {"data": small}}); 160]).to_string();
    let normalized = normalize(Source::CloudTrail, many);
    assert_eq!(normalized.order.len(), 160 - 128, "blank ones have no elements, the rest is not unpacked");
}

#[test]
fn envelopes_nested_without_end_are_left_alone() {
    let mut text = format!(r#"{{"eventName":"E","eventTime":"{TIME}"}}"#);
    for _ in 0..12 {
        text = json!({"CloudTrailEvent": text}).to_string();
    }
    let normalized = normalize(Source::CloudTrail, text);
    assert_eq!(normalized.order.len(), 1);
    assert_eq!(&*normalized.batches[0].table, "unparsed");
}

#[test]
fn times_far_from_now_are_kept_as_they_are() {
    for (time, expected) in [
        ("1970-01-01T00:00:00Z", Some("1970-01-01T00:00:00Z")),
        ("2200-12-31T23:59:59.999999Z", Some("2200-12-31T23:59:59.999999Z")),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59Z", None),
    ] {
        let event =
            format!(r#"{{"auditID":"a","verb":"get","stageTimestamp":"{time}","requestReceivedTimestamp":"{time}"}}"#);
        let normalized = normalize(Source::Kubernetes, event);
        let batch = &normalized.batches[0];
        match expected {
            Some(expected) => assert_eq!(cell(&batch.rows, "time", 0).unwrap(), expected),
            None => assert_eq!(&*batch.table, "unparsed", "{time}"),
        }
    }
}

#[test]
fn hostile_bodies_take_linear_time() {
    let started = Instant::now();
    let event = |resource: &str, verb: &str, body: String| {
        format!(
            r#"{{"auditID":"a","verb":"{verb}","stageTimestamp":"{TIME}","objectRef":{{"resource":"{resource}"}},"requestObject":{body}}}"#
        )
    };
    let quoted: Vec<String> = (0..60_000).map(|i| format!("\"v{i}\"")).collect();
    let list = quoted.join(",");
    let operations = vec![r#"{"op":"add","path":"/spec/containers/-","value":{"image":"x"}}"#; 20_000].join(",");
    let steps = "/a".repeat(100_000);
    let nulls = format!(r#"{{"{}":1}}"#, "k".repeat(500_000));
    for (resource, verb, body) in [
        (
            "clusterroles",
            "create",
            format!(
                r#"{{"rules":[{{"verbs":[{list}],"apiGroups":[{list}],"resources":[{list}],"resourceNames":[{list}]}}]}}"#
            ),
        ),
        ("clusterrolebindings", "create", format!(r#"{{"subjects":[{list}]}}"#)),
        (
            "pods",
            "create",
            format!(
                r#"{{"spec":{{"containers":[{{"command":[{list}],"securityContext":{{"capabilities":{{"add":[{list}]}}}}}}]}}}}"#
            ),
        ),
        ("pods", "create", format!(r#"{{"spec":{{"containers":[{}{{}}]}}}}"#, "{\"image\":\"a\"},".repeat(60_000))),
        ("pods", "patch", format!("[{operations}]")),
        ("pods", "patch", format!(r#"[{{"op":"add","path":"{steps}","value":1}}]"#)),
        ("secrets", "patch", format!("[{operations}]")),
        ("secrets", "create", format!(r#"{{"data":{nulls},"items":[{list}]}}"#)),
    ] {
        let text = event(resource, verb, body);
        let length = text.len();
        let normalized = normalize(Source::Kubernetes, text);
        assert_eq!(&*normalized.batches[0].table, "kubernetes");
        let held = memory(normalized.batches[0].rows.columns());
        assert!(held < 8 * length + (4 << 20), "{resource}: {held} bytes for {length}");
    }
    assert!(started.elapsed().as_secs() < 120, "linear, not quadratic: {:?}", started.elapsed());
}

#[test]
fn equal_uids_with_other_bytes_are_all_rows() {
    let event = |user: &str| {
        format!(
            r#"{{"auditID":"a","stage":"ResponseComplete","verb":"get","stageTimestamp":"{TIME}","user":{{"username":"{user}"}}}}"#
        )
    };
    let mut normalizer = Normalizer::new(&Schemas::builtin());
    let messages: Vec<Message> = ["x", "y", "x"].map(|user| message(Source::Kubernetes, event(user))).into();
    messages.iter().for_each(|message| normalizer.push(message));
    let batch = &normalizer.finish().batches[0].rows;
    let uids: Vec<_> = (0..3).map(|row| cell(batch, "event_uid", row).unwrap()).collect();
    assert_eq!(uids, ["a/ResponseComplete"; 3]);
    let hash = |row| cell(batch, "row_hash", row).unwrap();
    assert!(hash(0) != hash(1) && hash(0) == hash(2));
}
