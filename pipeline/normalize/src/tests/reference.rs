//! Columns once more, the simple way: a stored row's `raw` is parsed anew for every step of every path, by serde_json.
//! Whatever the fast way makes of real and damaged events, this must agree with.

use std::collections::HashMap;
use std::fmt;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use event::{ColumnType, Source};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Random, case_events, cell, message, real_lines};
use crate::path::{Path, Step};
use crate::schema::{Fill, Plan};
use crate::transform::{Inputs, Made};
use crate::value::{self, Value};
use crate::{Normalizer, Schemas};

/// An object's fields, of repeated keys the first.
struct Fields<'de>(HashMap<String, &'de RawValue>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = HashMap::new();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    fields.entry(key).or_insert(value);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(First)
    }
}

/// The JSON text at the end of a path.
fn at<'t>(text: &'t str, path: &Path) -> Option<&'t str> {
    let mut here = text;
    for step in &path.steps {
        let raw: &RawValue = match step {
            Step::Key(key) => serde_json::from_str::<Fields>(here).ok()?.0.remove(key)?,
            Step::Index(index) => serde_json::from_str::<Vec<&RawValue>>(here).ok()?.into_iter().nth(*index)?,
        };
        here = raw.get();
    }
    (here != "null").then_some(here)
}

fn show(made: Made) -> String {
    match made {
        Made::Text(text) => text.into_owned(),
        Made::Bool(yes) => yes.to_string(),
        Made::Int(number) => number.to_string(),
        Made::List(list) => format!("[{}]", list.join(", ")),
    }
}

fn expected(fill: &Fill, text: &str) -> Option<String> {
    let values: Vec<Option<&str>> = fill.paths.iter().map(|path| at(text, path)).collect();
    let Some(first) = values.iter().flatten().next() else {
        let applies = fill.when.as_ref().is_none_or(|when| at(text, when).is_some());
        return fill.default.clone().filter(|_| applies);
    };
    if let Some(transform) = fill.transform {
        let mut given: Vec<_> = values.iter().map(|json| json.map(|json| Value { json, plain: false })).collect();
        match transform.inputs() {
            Inputs::First => given = vec![Some(Value { json: first, plain: false })],
            Inputs::Each(_) => {}
            Inputs::Present => given.retain(Option::is_some),
        }
        return transform.apply(&given).map(show);
    }
    match fill.kind {
        ColumnType::Int64 => value::int(first).map(|number| number.to_string()),
        ColumnType::Timestamp => value::time(first).map(|time| time.to_string()),
        ColumnType::Bool => value::boolean(first).map(|yes| yes.to_string()),
        ColumnType::StringList => Some(show(Made::List(value::elements(first).map(value::text).collect()))),
        _ => Some(value::text(first).into_owned()),
    }
}

fn found(rows: &RecordBatch, column: usize, row: usize) -> Option<String> {
    let array = rows.column(column);
    match array.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(times) => times.is_valid(row).then(|| times.value(row).to_string()),
        None => cell(rows, rows.schema().field(column).name(), row),
    }
}

/// Compares all columns that paths fill; says whether the reference could read the row.
fn check_row(plan: &Plan, rows: &RecordBatch, row: usize) -> bool {
    let text = cell(rows, "raw", row).unwrap();
    // Keys with half a surrogate pair are no text, so serde_json refuses them where it has to keep them.
    if serde_json::from_str::<Fields>(&text).is_err() {
        assert!(serde_json::from_str::<IgnoredAny>(&text).is_ok() && text.contains("\\u"), "{text}");
        return false;
    }
    let own = rows.num_columns() - plan.fills.len();
    for (i, fill) in plan.fills.iter().enumerate().filter(|(_, fill)| fill.pod.is_none()) {
        let column = rows.schema().field(own + i).name().clone();
        assert_eq!(found(rows, own + i, row), expected(fill, &text), "{column} of {text}");
    }
    true
}

/// Rows that agree, of the events as one batch: what the fast way keeps from one row to the next must not show.
fn check(schemas: &Schemas, normalizer: &mut Normalizer, events: &[(Source, Vec<u8>)]) -> usize {
    events.iter().for_each(|(source, bytes)| normalizer.push(&message(*source, bytes.clone())));
    let mut agreed = 0;
    for batch in normalizer.finish().batches {
        let Some(plan) = schemas.plans().iter().find(|plan| plan.source.name() == &*batch.table) else { continue };
        agreed += (0..batch.rows.num_rows()).filter(|row| check_row(plan, &batch.rows, *row)).count();
    }
    agreed
}

const FILES: [(Source, &str); 8] = [
    (Source::CloudTrail, "cloudtrail/invictus.ndjson"),
    (Source::CloudTrail, "cloudtrail/misc.ndjson"),
    (Source::CloudTrail, "cloudtrail/traildiscover.ndjson"),
    (Source::Kubernetes, "kubernetes/falco_traces.ndjson"),
    (Source::Kubernetes, "kubernetes/openshift_audit.ndjson"),
    (Source::Kubernetes, "kubernetes/perfspec_metadata.ndjson"),
    (Source::Kubernetes, "kubernetes/misc.ndjson"),
    (Source::Falco, "falco/falco_docs.ndjson"),
];
/// Of a long file every so many lines are looked at: the reference is slow.
const LINES: usize = 400;

fn events() -> Vec<(Source, Vec<u8>)> {
    let mut events = Vec::new();
    for (source, file) in FILES {
        let lines = real_lines(file);
        let step = lines.len().div_ceil(LINES).max(1);
        events.extend(lines.into_iter().step_by(step).map(|line| (source, line)));
    }
    for file in ["stratus.ndjson", "falco_k8saudit.ndjson", "panther.ndjson"] {
        events.extend(case_events(file).into_iter().map(|(source, event)| (source, event.to_string().into_bytes())));
    }
    events
}

#[test]
fn real_events_have_the_columns_of_the_reference() {
    let (schemas, events) = (Schemas::builtin(), events());
    let mut normalizer = Normalizer::new(&schemas);
    let all = events.len();
    let agreed: usize = events.chunks(100).map(|events| check(&schemas, &mut normalizer, events)).sum();
    assert!(agreed * 10 >= all * 8, "only {agreed} of {all} were rows");
}

/// Puts what is hard to read somewhere into the event, or damages it.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    let behind = |byte: u8| bytes[at..].iter().position(|b| *b == byte).map_or(bytes.len(), |i| at + i + 1);
    let (place, piece): (usize, Vec<u8>) = match random.below(8) {
        0 => (at, vec![0xff, 0xc3]),
        1 => return bytes.truncate(at + 1),
        2 => (behind(b'"'), br"\u00e9\n\ud83d\ude00".to_vec()),
        3 => (behind(b'{'), br#""eventName":"twice","verb":"twice","output_fields":{"evt.time":1},"#.to_vec()),
        4 => (behind(b'{'), br#""username":{"a":[1,"\u0041"]},"sourceIPs":["::ffff:10.0.0.1"],"#.to_vec()),
        5 => (behind(b':'), b"123456789012345678901234567890e400,\"code\":".to_vec()),
        6 => (behind(b':'), [b"[".repeat(300), b"]".repeat(300), b",\"type\":".to_vec()].concat()),
        _ => return bytes[at] = b"{}[]\",:\\0 "[random.below(10)],
    };
    bytes.splice(place..place, piece);
}

#[test]
fn damaged_events_have_the_columns_of_the_reference() {
    let (schemas, events) = (Schemas::builtin(), events());
    let (mut normalizer, mut random) = (Normalizer::new(&schemas), Random::new());
    let mut agreed = 0;
    for _ in 0..if events.is_empty() { 0 } else { 300 } {
        // Neighbours in the file have most of their values in common.
        let first = random.below(events.len());
        let damaged = |(source, mut bytes): (Source, Vec<u8>)| {
            (0..1 + random.below(3)).for_each(|_| mutate(&mut bytes, &mut random));
            (source, bytes)
        };
        let batch: Vec<_> = events[first..].iter().take(10).cloned().map(damaged).collect();
        agreed += check(&schemas, &mut normalizer, &batch);
    }
    assert!(events.is_empty() || agreed > 300, "only {agreed} were rows");
}
