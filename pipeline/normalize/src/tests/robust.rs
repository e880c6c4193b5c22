//! Whatever stands where a path points, an element is one row and nothing is lost.

use event::Source;
use serde_json::{Value, json};

use super::{Random, assert_is, cell, message, normalize, real_lines, rows};
use crate::{Normalizer, Schemas};

fn junk(random: &mut Random) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}\n\"\\é"),
        json!("2024-01-01T00:00:00Z"),
        json!([]),
        json!({}),
        json!([null, [1], {"a": "b"}, "x"]),
        json!({"username": 5, "code": "x", "0": []}),
        json!("a".repeat(5000)),
    ];
    values[random.below(values.len())].clone()
}

/// Replaces a random value somewhere in the tree.
fn mutate(value: &mut Value, random: &mut Random) {
    let children: Vec<&mut Value> = match value {
        Value::Object(map) => map.values_mut().collect(),
        Value::Array(list) => list.iter_mut().collect(),
        _ => Vec::new(),
    };
    let count = children.len();
    match children.into_iter().nth(random.below(count + 1)) {
        Some(child) if random.below(3) > 0 => mutate(child, random),
        Some(child) => *child = junk(random),
        None => *value = junk(random),
    }
}

fn check_mutations(source: Source, file: &str, random: &mut Random) {
    let lines = real_lines(file);
    let mut normalizer = Normalizer::new(&Schemas::builtin());
    for _ in 0..if lines.is_empty() { 0 } else { 4000 } {
        let mut value: Value = serde_json::from_slice(&lines[random.below(lines.len())]).unwrap();
        let times = 1 + random.below(3);
        (0..times).for_each(|_| mutate(&mut value, random));
        if !value.is_object() {
            continue;
        }
        let text = value.to_string();
        normalizer.push(&message(source, text.clone()));
        let normalized = normalizer.finish();
        assert_eq!(normalized.order, [0], "{text}");
        assert_is(&normalized.batches[0].rows, 0, text.as_bytes());
    }
}

#[test]
fn mutated_events_are_one_row_each() {
    let mut random = Random::new();
    check_mutations(Source::Kubernetes, "kubernetes/openshift_audit.ndjson", &mut random);
    check_mutations(Source::CloudTrail, "cloudtrail/invictus.ndjson", &mut random);
    check_mutations(Source::Falco, "falco/falco_docs.ndjson", &mut random);
}

#[test]
fn damaged_bytes_lose_nothing() {
    let mut random = Random::new();
    let events = [
        (Source::Kubernetes, r#"{"items":[{"auditID":"a","verb":"get","stageTimestamp":"2024-01-01T00:00:00Z"}]}"#),
        (Source::CloudTrail, r#"{"Records":[{"eventName":"é\u00e9","eventTime":"2024-01-01T00:00:00Z"}]}"#),
    ];
    for _ in 0..20_000 {
        let (source, text) = events[random.below(events.len())];
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes.truncate(at + 1),
                _ => bytes.insert(at, b"{}[]\",:\n\\0"[random.below(10)]),
            }
        }
        let normalized = rows(&normalize(source, bytes.clone()));
        // An empty list is the one thing that says nothing.
        if normalized.is_empty() {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.trim().is_empty() || text.contains("[]"), "{text}");
        }
    }
}

#[test]
fn wrong_types_become_what_the_column_can_hold() {
    let check = |source, event: &str, column, expected: Option<&str>| {
        let normalized = normalize(source, event);
        assert_eq!(&*normalized.batches[0].table, source.name(), "{event}");
        assert_eq!(cell(&normalized.batches[0].rows, column, 0).as_deref(), expected, "{event}");
    };
    let kubernetes = |rest: &str, column, expected| {
        let event = format!(r#"{{"auditID":"a","verb":"get","stageTimestamp":"2024-01-01T00:00:00Z",{rest}}}"#);
        check(Source::Kubernetes, &event, column, expected);
    };
    kubernetes(r#""user":"alice""#, "actor_user_name", None);
    kubernetes(r#""user":{"username":12}"#, "actor_user_name", Some("12"));
    kubernetes(r#""user":{"username":{"a":[1]}}"#, "actor_user_name", Some(r#"{"a":[1]}"#));
    kubernetes(r#""user":{"groups":"g"}"#, "actor_user_groups", Some("[g]"));
    kubernetes(r#""user":{"groups":["g",1,null,{"x":2}]}"#, "actor_user_groups", Some(r#"[g, 1, {"x":2}]"#));
    kubernetes(r#""sourceIPs":"10.0.0.1""#, "src_endpoint_ip", Some("10.0.0.1"));
    kubernetes(r#""responseStatus":{"code":"403"}"#, "response_code", Some("403"));
    kubernetes(r#""responseStatus":{"code":true}"#, "response_code", None);
    kubernetes(r#""responseStatus":{"code":99999999999999999999}"#, "response_code", None);
    kubernetes(r#""requestReceivedTimestamp":{}"#, "request_received_time", None);
    let cloudtrail = |rest: &str, column, expected| {
        let event = format!(r#"{{"eventName":"E","eventTime":"2024-01-01T00:00:00Z",{rest}}}"#);
        check(Source::CloudTrail, &event, column, expected);
    };
    cloudtrail(r#""readOnly":"true""#, "read_only", Some("true"));
    cloudtrail(r#""readOnly":1"#, "read_only", None);
    cloudtrail(r#""resources":{"ARN":"arn:x"}"#, "resource_name", Some("arn:x"));
    cloudtrail(r#""resources":"x""#, "resource_name", None);
}

#[test]
fn depth_and_hostile_lists_do_no_harm() {
    let deep = format!(
        r#"{{"auditID":"a","verb":"get","stageTimestamp":"2024-01-01T00:00:00Z","requestObject":{}1{}}}"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    assert_eq!(rows(&normalize(Source::Kubernetes, deep.clone())), [format!("kubernetes: {deep}")]);
    assert_eq!(normalize(Source::Kubernetes, "[".repeat(200_000)).order.len(), 1);
    let started = std::time::Instant::now();
    let resumes = normalize(Source::Kubernetes, "[\n".repeat(200_000) + "x");
    assert_eq!(resumes.order.len(), 65, "gives up after 64 attempts");
    normalize(Source::Kubernetes, "{}\n\u{feff}".repeat(100_000));
    assert!(started.elapsed().as_secs() < 120, "linear, not quadratic");
}
