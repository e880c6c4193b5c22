//! Tests through the public door; what they share.

mod admitting;
mod backfill;
mod columns;
mod envelopes;
mod hostile;
mod oracle;
mod pods;
mod real;
mod redacting;
mod reference;
mod robust;
mod schemas;
mod shapes;
mod speed;
mod strict;

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use event::{Message, Origin, Source};

use crate::{Normalized, Normalizer, Schemas};

const RECEIVED: i64 = 1_700_000_000_000_000;

fn message(source: Source, bytes: impl Into<Vec<u8>>) -> Message {
    Message {
        source,
        cluster: source.needs_cluster().then(|| "prod".into()),
        origin: Origin::Live,
        topic: "audit".into(),
        partition: 3,
        offset: 42,
        file_sha256: None,
        received: RECEIVED,
        bytes: bytes.into(),
    }
}

fn normalize(source: Source, bytes: impl Into<Vec<u8>>) -> Normalized {
    thread_local!(static NORMALIZER: RefCell<Normalizer> = Normalizer::new(&Schemas::builtin()).into());
    NORMALIZER.with_borrow_mut(|normalizer| {
        normalizer.push(&message(source, bytes));
        normalizer.finish()
    })
}

/// A cell as text; `None` for null.
fn cell(rows: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let array = rows.column_by_name(column).unwrap_or_else(|| panic!("no column {column}"));
    array.is_valid(row).then(|| array_value_to_string(array, row).unwrap())
}

/// The cells of one row as `column=value`, in the order asked for; null is `-`.
fn cells(rows: &RecordBatch, row: usize, columns: &str) -> String {
    let show = |name: &str| format!("{name}={}", cell(rows, name, row).unwrap_or("-".into()));
    columns.split(' ').map(show).collect::<Vec<_>>().join(" ")
}

/// Every row in arrival order as `table: raw`, and for unparsed ones the reason.
fn rows(normalized: &Normalized) -> Vec<String> {
    let mut next = vec![0; normalized.batches.len()];
    let mut shown = Vec::new();
    for batch in normalized.order.iter().map(|b| usize::from(*b)) {
        let row = next[batch];
        next[batch] += 1;
        let batch = &normalized.batches[batch];
        let raw = cell(&batch.rows, "raw", row).unwrap();
        shown.push(match &*batch.table {
            "unparsed" => format!("unparsed: {raw} ({})", cell(&batch.rows, "reason", row).unwrap()),
            table => format!("{table}: {raw}"),
        });
    }
    assert_eq!(shown.len(), normalized.batches.iter().map(|b| b.rows.num_rows()).sum::<usize>());
    shown
}

/// The row's bytes are these: `raw` has them, and where it was redacted the hash is still theirs.
fn assert_is(rows: &RecordBatch, row: usize, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let hash: String = crate::hash::row_hash(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(cell(rows, "row_hash", row).unwrap(), hash, "{text}");
    let (raw, redacted) = (cell(rows, "raw", row).unwrap(), cell(rows, "redacted", row).unwrap());
    assert_eq!(raw != text, redacted == "true", "{text}");
}

/// Lines of a real file, or nothing when the checkout has no reference data beside it.
fn real_lines(file: &str) -> Vec<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(file);
    match std::fs::read(&path) {
        Ok(bytes) => bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect(),
        Err(_) => {
            println!("skipped: no reference data {file}");
            Vec::new()
        }
    }
}

/// The events of a file of test cases, which are nested in the cases: (source, event).
fn case_events(file: &str) -> Vec<(Source, serde_json::Value)> {
    let mut events = Vec::new();
    for line in real_lines(&format!("cases/{file}")) {
        let case: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let source = if case["source"] == "kubernetes" || case["event"].get("auditID").is_some() {
            Source::Kubernetes
        } else {
            Source::CloudTrail
        };
        let all = case["events"].as_array().cloned().unwrap_or_else(|| vec![case["event"].clone()]);
        // Of Google's audit logs there is no source yet.
        events.extend(all.into_iter().filter(|_| case["shape"] != "gcp_auditlog").map(|event| (source, event)));
    }
    events
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Pseudo-random numbers (xorshift64*) whose seed is printed; `SEED=…` repeats a run.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed =
            std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| RandomState::new().hash_one(1));
        println!("SEED={seed}");
        Random(seed | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % end
    }
}
