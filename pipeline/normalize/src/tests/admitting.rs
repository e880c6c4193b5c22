//! Admission: duplicates, stamps, counts; the same whatever the batches.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use event::{
    Admitted, Counts, Message, Micros, Origin, PartitionState, Polled, RowKey, Seen, SeenError, Source, Watermarks,
};

use super::{RECEIVED, Random, cell, message};
use crate::{Admit, AdmitConfig, Normalizer, Schemas};

const SECOND: Micros = 1_000_000;

/// Holds what was admitted, as the store does.
#[derive(Default)]
struct Held(RefCell<HashSet<(String, Vec<u8>)>>);

impl Held {
    fn append(&self, admitted: &Admitted) {
        for batch in &admitted.batches {
            let hashes = batch.rows.column_by_name("row_hash").unwrap();
            let hashes = arrow::array::AsArray::as_fixed_size_binary(hashes.as_ref());
            let keys = hashes.iter().map(|hash| (batch.table.to_string(), hash.unwrap().to_vec()));
            self.0.borrow_mut().extend(keys);
        }
    }
}

impl Seen for Held {
    fn seen(&self, table: &str, keys: &[RowKey]) -> Result<Vec<bool>, SeenError> {
        Ok(keys.iter().map(|key| self.0.borrow().contains(&(table.to_owned(), key.hash.to_vec()))).collect())
    }
}

struct Broken;

impl Seen for Broken {
    fn seen(&self, _: &str, _: &[RowKey]) -> Result<Vec<bool>, SeenError> {
        Err(SeenError("disk on fire".into()))
    }
}

/// Normalizer, admission and store together.
struct Pipeline {
    normalizer: Normalizer,
    admit: Admit,
    held: Held,
    partitions: Vec<PartitionState>,
}

impl Pipeline {
    fn new(restored: Watermarks) -> Self {
        let state = |partition| PartitionState {
            source: Source::Falco,
            topic: "audit".into(),
            partition,
            lag: Some(0),
            idle: false,
        };
        Pipeline {
            normalizer: Normalizer::new(&Schemas::builtin()),
            admit: Admit::new(AdmitConfig::default(), restored),
            held: Held::default(),
            partitions: vec![state(0), state(1)],
        }
    }

    fn poll(&mut self, messages: &[Message]) -> Admitted {
        messages.iter().for_each(|m| self.normalizer.push(m));
        let polled = Polled { messages: messages.to_vec(), partitions: self.partitions.clone(), ..Polled::default() };
        let admitted = self.admit.admit(&polled, self.normalizer.finish(), RECEIVED, &self.held).unwrap();
        self.held.append(&admitted);
        admitted
    }
}

/// An alert `seconds` before receipt.
fn alert(partition: i32, seconds: i64, rule: &str) -> Message {
    let time = event::format_micros(RECEIVED - seconds * SECOND);
    let text = format!(r#"{{"rule":"{rule}","time":"{time}","uuid":"{rule}"}}"#);
    Message { partition, ..message(Source::Falco, text) }
}

/// `table rule-or-raw stamp`, the stamp in seconds before receipt.
fn stamps(admitted: &Admitted) -> Vec<String> {
    let mut shown = Vec::new();
    for batch in &admitted.batches {
        for row in 0..batch.rows.num_rows() {
            let name = if &*batch.table == "falco" { "rule" } else { "raw" };
            let marks = batch.rows.column_by_name("source_watermark").unwrap();
            let marks =
                arrow::array::AsArray::as_primitive::<arrow::datatypes::TimestampMicrosecondType>(marks.as_ref());
            let stamp = match marks.value(row) {
                Micros::MIN => "never".to_owned(),
                mark => ((RECEIVED - mark) / SECOND).to_string(),
            };
            shown.push(format!("{} {} {stamp}", batch.table, cell(&batch.rows, name, row).unwrap()));
        }
    }
    shown
}

#[test]
fn rows_are_stamped_with_the_watermark_before_them() {
    let mut pipeline = Pipeline::new(Watermarks::default());
    let junk = |partition| Message { partition, ..message(Source::Falco, format!("junk{partition}")) };
    let admitted = pipeline.poll(&[
        alert(0, 100, "a"),
        alert(1, 90, "b"),
        junk(0),
        alert(0, 50, "c"),
        alert(1, 40, "d"),
        alert(1, 80, "late"),
        junk(1),
    ]);
    assert_eq!(
        stamps(&admitted),
        [
            "falco a never",
            "falco b never",
            "falco c 115",
            "falco d 105",
            "falco late 65",
            "unparsed junk0 115",
            "unparsed junk1 65",
        ]
    );
    let bytes = admitted.counts.bytes;
    let expected = Counts { admitted: 7, unparsed: 2, duplicates: 0, conflicts: 0, late: 1, bytes };
    assert_eq!(admitted.counts, expected);
    assert_eq!(admitted.watermarks.get(Source::Falco), RECEIVED - 65 * SECOND);
    assert_eq!(admitted.watermarks.get(Source::Kubernetes), Micros::MIN);
}

#[test]
fn duplicates_are_dropped_and_conflicts_kept() {
    let mut pipeline = Pipeline::new(Watermarks::default());
    let other_bytes = alert(0, 99, "a");
    let first = pipeline.poll(&[alert(0, 100, "a"), alert(1, 100, "a"), alert(0, 100, "b")]);
    assert_eq!((first.counts.admitted, first.counts.duplicates, first.counts.conflicts), (2, 1, 0));
    let second =
        pipeline.poll(&[alert(0, 100, "a"), other_bytes, message(Source::Falco, "x"), message(Source::Falco, "x")]);
    assert_eq!((second.counts.admitted, second.counts.duplicates, second.counts.conflicts), (2, 2, 1));
    let third = pipeline.poll(&[alert(0, 100, "a"), message(Source::Falco, "x")]);
    assert_eq!((third.batches.len(), third.counts.duplicates, third.counts.admitted), (0, 2, 0));
}

#[test]
fn imports_have_no_part_in_time() {
    let mut pipeline = Pipeline::new(Watermarks::default());
    pipeline.poll(&[alert(0, 100, "a"), alert(1, 100, "b")]);
    let import = Message { origin: Origin::Import, ..alert(0, 1, "c") };
    let admitted = pipeline.poll(&[import.clone(), Message { bytes: b"junk".to_vec(), ..import }]);
    assert_eq!(stamps(&admitted), ["falco c never", "unparsed junk never"]);
    assert_eq!(admitted.watermarks.get(Source::Falco), RECEIVED - 115 * SECOND);
}

#[test]
fn a_restart_goes_on_from_the_restored_watermark() {
    let mut restored = Watermarks::default();
    restored.advance(Source::Falco, RECEIVED - 70 * SECOND);
    let mut pipeline = Pipeline::new(restored.clone());
    assert_eq!(pipeline.admit.watermarks(), restored);
    let admitted = pipeline.poll(&[alert(0, 10, "a"), alert(0, 71, "late")]);
    assert_eq!(stamps(&admitted), ["falco a 70", "falco late 70"]);
    assert_eq!(admitted.counts.late, 1);
}

#[test]
fn a_store_that_cannot_answer_changes_nothing() {
    let mut pipeline = Pipeline::new(Watermarks::default());
    let messages = [alert(0, 100, "a"), alert(1, 100, "b")];
    messages.iter().for_each(|m| pipeline.normalizer.push(m));
    let rows = pipeline.normalizer.finish();
    let polled = Polled { partitions: pipeline.partitions.clone(), ..Polled::default() };
    let error = pipeline.admit.admit(&polled, rows.clone(), RECEIVED, &Broken).unwrap_err();
    assert_eq!(error.to_string(), "cannot look up stored rows: disk on fire");
    let admitted = pipeline.admit.admit(&polled, rows, RECEIVED, &pipeline.held).unwrap();
    assert_eq!(stamps(&admitted), ["falco a never", "falco b never"]);
}

/// A random arrival sequence: two partitions, disorder, duplicates, junk, events from the future, imports.
fn arrivals(random: &mut Random, count: usize) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    for i in 0..count {
        let partition = random.below(2) as i32;
        let back = (count - i) as i64 + random.below(40) as i64;
        let next = match random.below(20) {
            0 => Message { partition, ..message(Source::Falco, format!("junk {}", random.below(50))) },
            1 if i > 0 => Message { partition, ..messages[random.below(i)].clone() },
            2 => alert(partition, -(random.below(200) as i64), &format!("future{i}")),
            3 => Message { origin: Origin::Import, ..alert(partition, back, &format!("import{i}")) },
            4 => {
                let (a, b) = (alert(0, back, &format!("x{i}")), alert(0, back + 5, &format!("y{i}")));
                Message { partition, ..message(Source::Falco, [&b"["[..], &a.bytes, b",1,", &b.bytes, b"]"].concat()) }
            }
            _ => alert(partition, back, &format!("r{}", random.below(count))),
        };
        messages.push(next);
    }
    messages
}

#[test]
fn stamps_do_not_depend_on_batches() {
    let mut random = Random::new();
    for _ in 0..100 {
        let messages = arrivals(&mut random, 120);
        let mut whole = Pipeline::new(Watermarks::default());
        let once = whole.poll(&messages);
        let mut expected = stamps(&once);
        expected.sort();

        let mut split = Pipeline::new(Watermarks::default());
        let (mut found, mut counts, mut rest) = (Vec::new(), Counts::default(), &messages[..]);
        while !rest.is_empty() {
            let (unit, later) = rest.split_at((1 + random.below(30)).min(rest.len()));
            let admitted = split.poll(unit);
            found.extend(stamps(&admitted));
            counts.add(&admitted.counts);
            rest = later;
        }
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(counts, once.counts);
        assert_eq!(split.admit.watermarks(), once.watermarks);
    }
}

#[test]
fn units_without_rows_still_report_their_ranges() {
    let mut pipeline = Pipeline::new(Watermarks::default());
    let topic: Arc<str> = "audit".into();
    let mut polled = Polled::default();
    polled.ranges.push(&topic, 0, event::OffsetRange { from: 3, next: 9 }).unwrap();
    let admitted = pipeline.admit.admit(&polled, pipeline.normalizer.finish(), RECEIVED, &pipeline.held).unwrap();
    assert_eq!((admitted.ranges, admitted.batches.len()), (polled.ranges, 0));
}
