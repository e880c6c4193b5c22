//! Real events: each line is one row, and `raw` is the line.

use event::Source;

use super::{cell, message, real_lines};
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
        assert_eq!(cell(&batch.rows, "raw", 0).unwrap().as_bytes(), line);
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
    // Two lines have no time at all and seven a placeholder.
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
    // One line is a template that was never filled in.
    check(Source::Falco, "falco/falco_docs.ndjson", 1);
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
            assert_eq!(cell(&normalized.batches[0].rows, "raw", row).unwrap().as_bytes(), line);
        }
    }
}
