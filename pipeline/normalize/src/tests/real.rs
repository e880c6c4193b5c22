//! Real events: each line is one row, and `raw` is the line but for secrets. What is left in `unparsed`, and why:
//!
//! | file | rows | why |
//! | --- | --- | --- |
//! | kubernetes/misc | 2 | two samples of a test corpus without any time |
//! | kubernetes/misc | 7 | samples whose times are the placeholder `<ts>` |
//! | falco/falco_docs | 1 | a template of the documentation with `%evt.time` and its like |
//! | cases/panther, Kubernetes | 141 | hand-shortened by their authors: no audit id or no time, which every event has |
//! | cases/panther, CloudTrail | 23 | hand-shortened (no event name or time), or keys in lower case |
//!
//! Every one of them lacks what the vendor's format always has.

use event::Source;
use serde_json::Value;

use super::{assert_is, case_events, cell, message, normalize, real_lines};
use crate::{Normalizer, Schemas};

/// `unparsed` of the lines of a file are expected to have no usable time.
fn check(source: Source, file: &str, unparsed: usize) {
    let mut normalizer = Normalizer::new(&Schemas::builtin());
    let mut without_time = 0;
    let lines = real_lines(file);
    for line in &lines {
        normalizer.push(&message(source, line.clone()));
        let normalized = normalizer.finish();
        assert_eq!(normalized.order, [0], "one row per line");
        let batch = &normalized.batches[0];
        assert_is(&batch.rows, 0, line);
        if &*batch.table == "unparsed" {
            let reason = cell(&batch.rows, "reason", 0).unwrap();
            assert!(reason.starts_with("no event time"), "{reason}");
            without_time += 1;
        }
    }
    assert!(lines.is_empty() || without_time == unparsed, "{file}: {without_time} lines without a time");
}

#[test]
fn kubernetes() {
    check(Source::Kubernetes, "kubernetes/falco_traces.ndjson", 0);
    check(Source::Kubernetes, "kubernetes/openshift_audit.ndjson", 0);
    check(Source::Kubernetes, "kubernetes/perfspec_metadata.ndjson", 0);
    check(Source::Kubernetes, "kubernetes/misc.ndjson", 9);
}

#[test]
fn cloudtrail() {
    check(Source::CloudTrail, "cloudtrail/invictus.ndjson", 0);
    check(Source::CloudTrail, "cloudtrail/misc.ndjson", 0);
    check(Source::CloudTrail, "cloudtrail/traildiscover.ndjson", 0);
}

#[test]
fn falco() {
    check(Source::Falco, "falco/falco_docs.ndjson", 1);
}

/// The event itself, where the case has it in Azure's envelope.
fn inner(event: &Value) -> Value {
    let log = event.pointer("/properties/log").and_then(Value::as_str);
    log.map_or_else(|| event.clone(), |log| serde_json::from_str(log).unwrap())
}

/// Does it have what every event of its vendor has?
fn is_complete(source: Source, event: &Value) -> bool {
    let has = |keys: &[&str]| keys.iter().any(|key| event[key].is_string());
    // Some cases come out of a database, which has left the zone out.
    let is_time = |text: &str| [text, &format!("{text}Z")].into_iter().any(|text| crate::parse_rfc3339(text).is_some());
    let has_time = |keys: &[&str]| keys.iter().any(|key| event[key].as_str().is_some_and(is_time));
    match source {
        Source::Kubernetes => {
            let time = has_time(&["stageTimestamp", "requestReceivedTimestamp", "timestamp"]);
            has(&["auditID"]) && has(&["verb", "requestURI"]) && time
        }
        _ => has(&["eventName"]) && has_time(&["eventTime"]),
    }
}

fn check_cases(file: &str, unparsed: [(Source, usize); 2]) {
    let mut counted = unparsed.map(|(source, _)| (source, 0));
    let events = case_events(file);
    for (source, event) in &events {
        let normalized = normalize(*source, event.to_string());
        assert_eq!(normalized.order, [0], "one row per event: {event}");
        let parsed = &*normalized.batches[0].table != "unparsed";
        assert_eq!(parsed, is_complete(*source, &inner(event)), "{event}");
        counted.iter_mut().filter(|(s, _)| s == source && !parsed).for_each(|(_, count)| *count += 1);
    }
    assert!(events.is_empty() || counted == unparsed, "{file}: {counted:?}");
}

#[test]
fn cases() {
    check_cases("stratus.ndjson", [(Source::Kubernetes, 0), (Source::CloudTrail, 0)]);
    check_cases("falco_k8saudit.ndjson", [(Source::Kubernetes, 0), (Source::CloudTrail, 0)]);
    check_cases("panther.ndjson", [(Source::Kubernetes, 141), (Source::CloudTrail, 23)]);
}

#[test]
fn a_file_as_one_message_gives_the_same_rows() {
    let lines = real_lines("cloudtrail/invictus.ndjson");
    let records = format!(
        r#"{{"Records":[{}]}}"#,
        lines.iter().map(|l| str::from_utf8(l).unwrap()).collect::<Vec<_>>().join(",\n")
    );
    for bytes in [lines.join(&b'\n'), records.into_bytes()] {
        let mut normalizer = Normalizer::new(&Schemas::builtin());
        normalizer.push(&message(Source::CloudTrail, bytes));
        let normalized = normalizer.finish();
        assert_eq!(normalized.order.len(), lines.len());
        for (row, line) in lines.iter().enumerate() {
            assert_is(&normalized.batches[0].rows, row, line);
        }
    }
}
