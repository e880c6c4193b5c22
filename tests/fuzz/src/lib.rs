//! What must hold for every input: checked by the fuzz targets, and worth reading as the short version of what normalize
//! promises.

use std::cell::RefCell;
use std::collections::BTreeSet;

use arrow::array::{Array, ArrayData, AsArray, RecordBatch};
use event::{Message, Origin, Recompute, Source, tables};
use normalize::{Backfill, Normalized, Normalizer, Schemas};

/// Columns that code fills, ahead of all others.
const META: usize = 15;
/// Stands where a secret may be; long enough to be no accident.
const PLANTED: &str = "cGxhbnRlZC1zZWNyZXQtMDEyMzQ1Njc4OQ";

struct Subject {
    schemas: Schemas,
    normalizer: Normalizer,
    backfill: Backfill,
}

thread_local!(static SUBJECT: RefCell<Subject> = Subject::new(Schemas::builtin()).into());

impl Subject {
    fn new(schemas: Schemas) -> Self {
        Subject { normalizer: Normalizer::new(&schemas), backfill: Backfill::new(&schemas), schemas }
    }

    fn normalize(&mut self, source: Source, bytes: &[u8], times: usize) -> Normalized {
        let message = Message {
            source,
            cluster: Some("c".into()),
            origin: Origin::Live,
            topic: "t".into(),
            partition: 0,
            offset: 0,
            file_sha256: None,
            received: 1_700_000_000_000_000,
            bytes: bytes.to_vec(),
        };
        (0..times).for_each(|_| self.normalizer.push(&message));
        self.normalizer.finish()
    }

    fn check(&mut self, source: Source, bytes: &[u8]) {
        let once = self.normalize(source, bytes, 1);
        accounted(bytes, &once);
        self.recomputed(&once);
        well_formed(&once);
        let twice = self.normalize(source, bytes, 2);
        assert_eq!(twice.order.len(), 2 * once.order.len());
        for (one, two) in once.batches.iter().zip(&twice.batches) {
            let rows = one.rows.num_rows();
            assert_eq!(one.rows, two.rows.slice(0, rows), "rows do not depend on what follows");
            assert_eq!(one.rows, two.rows.slice(rows, rows), "nor on what was before");
        }
    }

    /// Columns follow from the stored bytes.
    fn recomputed(&self, normalized: &Normalized) {
        for batch in normalized.batches.iter().filter(|batch| &*batch.table != tables::UNPARSED) {
            let table = self.schemas.table(&batch.table).expect("a batch has a table");
            let names: Vec<&str> = table.columns[META..].iter().map(|column| column.name.as_str()).collect();
            let columns = self.backfill.recompute(table, &names, raws(&batch.rows));
            for (name, column) in names.iter().zip(&columns) {
                assert_eq!(column, batch.rows.column_by_name(name).expect("the column is there"), "{name}");
            }
        }
    }
}

/// Bytes of a message.
pub fn decode(source: Source, bytes: &[u8]) {
    SUBJECT.with_borrow_mut(|subject| {
        subject.check(source, bytes);
        let Ok(text) = str::from_utf8(bytes) else { return };
        let planted = match source {
            Source::Kubernetes => format!(
                r#"{{"auditID":"a","verb":"create","stageTimestamp":"2024-01-01T00:00:00Z","objectRef":{{"resource":"secrets"}},"requestObject":{{"data":{{"k":"{PLANTED}"}},"x":{text}}}}}"#
            ),
            Source::CloudTrail => format!(
                r#"{{"eventName":"E","eventTime":"2024-01-01T00:00:00Z","responseElements":{{"credentials":{{"sessionToken":"{PLANTED}"}},"x":{text}}}}}"#
            ),
            Source::Falco => format!(
                r#"{{"rule":"r","time":"2024-01-01T00:00:00Z","output_fields":{{"proc.cmdline":"x AWS_SESSION_TOKEN={PLANTED}","x":{text}}}}}"#
            ),
        };
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&planted).is_ok();
        if is_json {
            let normalized = subject.normalize(source, planted.as_bytes(), 1);
            assert!(!holds(&normalized, PLANTED), "{planted}");
            subject.recomputed(&normalized);
            well_formed(&normalized);
        }
    });
}

const FILES: [(&str, &str); 5] = [
    ("events.yaml", include_str!("../../../schemas/events.yaml")),
    ("kubernetes.yaml", include_str!("../../../schemas/kubernetes.yaml")),
    ("cloudtrail.yaml", include_str!("../../../schemas/cloudtrail.yaml")),
    ("falco.yaml", include_str!("../../../schemas/falco.yaml")),
    ("unparsed.yaml", include_str!("../../../schemas/unparsed.yaml")),
];

/// The first byte chooses the file that the rest of the bytes stand for.
pub fn schema_file(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Ok(text) = str::from_utf8(rest) else { return };
    let mut files = FILES;
    files[usize::from(*first) % FILES.len()].1 = text;
    match Schemas::parse(&files) {
        Ok(schemas) => {
            let mut subject = Subject::new(schemas);
            subject.check(Source::Kubernetes, KUBERNETES.as_bytes());
            subject.check(Source::CloudTrail, CLOUDTRAIL.as_bytes());
            subject.check(Source::Falco, FALCO.as_bytes());
        }
        Err(error) => {
            assert!(!error.mistakes.is_empty() && !error.to_string().is_empty());
            assert!(error.mistakes.iter().all(|mistake| !mistake.message.is_empty()));
        }
    }
}

const KUBERNETES: &str = r#"{"auditID":"a","verb":"create","stageTimestamp":"2024-01-01T00:00:00Z","requestURI":"/x?y","user":{"username":"u","groups":["g"]},"sourceIPs":["::1"],"objectRef":{"resource":"pods"},"requestObject":{"spec":{"containers":[{"image":"i"}]}}}"#;
const CLOUDTRAIL: &str = r#"{"eventName":"E","eventTime":"2024-01-01T00:00:00Z","userIdentity":{"type":"Root","accountId":"1"},"resources":[{"ARN":"a"}]}"#;
const FALCO: &str = r#"{"rule":"r","time":"2024-01-01T00:00:00Z","output_fields":{"evt.time":1714557600123456789,"fd.name":"a:1->b:2"}}"#;

/// Keys of envelopes whose elements may be texts within texts or leave something out.
const ENVELOPES: [&str; 10] =
    ["items", "Records", "records", "detail", "Events", "Event", "awslogs", "logEvents", "log", "message"];

/// Every byte is in a row, or separates rows.
fn accounted(bytes: &[u8], normalized: &Normalized) {
    let rows: usize = normalized.batches.iter().map(|batch| batch.rows.num_rows()).sum();
    assert_eq!(rows, normalized.order.len());
    let Ok(text) = str::from_utf8(bytes) else {
        assert!(rows > 0, "bytes that are no text are a row");
        return;
    };
    // Escapes could hide such a key.
    if text.contains('\\') || ENVELOPES.iter().any(|key| text.contains(key)) {
        return;
    }
    let mut next = vec![0; normalized.batches.len()];
    let mut rest = text;
    for batch in normalized.order.iter().map(|index| usize::from(*index)) {
        let row = next[batch];
        next[batch] += 1;
        let rows = &normalized.batches[batch].rows;
        if rows.column_by_name("redacted").expect("a meta column").as_boolean().value(row) {
            return;
        }
        let raw = raws(rows).value(row);
        let at = rest.find(raw).expect("rows are parts of the message, in order");
        separates(&rest[..at]);
        rest = &rest[at + raw.len()..];
    }
    separates(rest);
}

fn separates(between: &str) {
    let is = |c: char| c.is_ascii_whitespace() || matches!(c, ',' | '[' | ']' | '\u{feff}');
    assert!(between.chars().all(is), "lost: {between:?}");
}

/// `raw` of an event is JSON, redacted or not.
fn well_formed(normalized: &Normalized) {
    for batch in normalized.batches.iter().filter(|batch| &*batch.table != tables::UNPARSED) {
        for raw in raws(&batch.rows).iter().flatten() {
            assert!(serde_json::from_str::<serde::de::IgnoredAny>(raw).is_ok(), "{raw}");
        }
    }
}

fn raws(rows: &RecordBatch) -> &arrow::array::StringViewArray {
    rows.column_by_name("raw").expect("a meta column").as_string_view()
}

/// Is it anywhere in what the batches of events hold?
fn holds(normalized: &Normalized, needle: &str) -> bool {
    let events = normalized.batches.iter().filter(|batch| &*batch.table != tables::UNPARSED);
    let mut all: Vec<ArrayData> =
        events.flat_map(|batch| batch.rows.columns()).map(|column| column.to_data()).collect();
    let mut seen = BTreeSet::new();
    while let Some(data) = all.pop() {
        // Columns share their buffers.
        let fresh = data.buffers().iter().filter(|buffer| seen.insert((buffer.as_ptr() as usize, buffer.len())));
        if fresh.into_iter().any(|b| b.windows(needle.len()).any(|window| window == needle.as_bytes())) {
            return true;
        }
        all.extend(data.child_data().to_vec());
    }
    false
}
