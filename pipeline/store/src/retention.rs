//! Which segments are past their time. Age counts from ingest time by default, the one clock that no sender controls: by
//! event time an imported log of last year would go at once, and whoever forges times could have evidence deleted
//! early. Who must not keep events for longer than so long counts from event time; one that lies after its ingest time
//! counts as that, so that no wrong clock keeps a segment for ever. A segment goes whole, when its newest row is old
//! enough.

use std::collections::BTreeMap;
use std::time::Duration;

use event::Micros;

use crate::holds::Hold;
use crate::segment::SegmentMeta;

/// Rows younger than this stay whatever the limit in bytes: windows and catch-up may still ask for them.
const YOUNG: Duration = Duration::from_secs(60 * 60);

/// What age counts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    #[default]
    Ingest,
    Event,
}

/// Nothing set: everything is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub age: Option<Duration>,
    /// Bytes of files on disk.
    pub bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub by: Clock,
    /// `bytes` is for all tables together.
    pub all: Limits,
    /// A table's `age` replaces the general one; its `bytes` come in addition.
    pub tables: BTreeMap<String, Limits>,
}

impl Retention {
    pub fn is_off(&self) -> bool {
        self.all == Limits::default() && self.tables.values().all(|limits| *limits == Limits::default())
    }
}

/// Indexes of the segments to remove, of all tables in commit order; held ones are left out.
pub fn expired(segments: &[&SegmentMeta], retention: &Retention, holds: &[Hold], now: Micros) -> Vec<usize> {
    let limits = |table: &str| retention.tables.get(table).copied().unwrap_or_default();
    let longer =
        |since: Micros, age: Duration| now.saturating_sub(since) > i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    let newest = |segment: &SegmentMeta| match retention.by {
        Clock::Ingest => segment.ingest_time.last,
        Clock::Event => segment.ingest_time.last.min(segment.time.last),
    };
    let held = |segment: &SegmentMeta| holds.iter().any(|hold| hold.covers(&segment.time));
    let mut gone = vec![false; segments.len()];
    for (gone, segment) in gone.iter_mut().zip(segments) {
        let age = limits(&segment.table).age.or(retention.all.age);
        *gone = age.is_some_and(|age| longer(newest(segment), age)) && !held(segment);
    }
    let tables = retention.tables.iter().map(|(name, limits)| (Some(name), limits.bytes));
    for (table, bytes_max) in tables.chain([(None, retention.all.bytes)]) {
        let Some(bytes_max) = bytes_max else { continue };
        let counted = |segment: &SegmentMeta| table.is_none_or(|table| segment.table == *table);
        let left = segments.iter().zip(&gone).filter(|(segment, gone)| !**gone && counted(segment));
        let mut bytes: u64 = left.map(|(segment, _)| segment.disk_bytes()).sum();
        for (gone, segment) in gone.iter_mut().zip(segments) {
            if bytes <= bytes_max {
                break;
            }
            if !*gone && counted(segment) && longer(segment.ingest_time.last, YOUNG) && !held(segment) {
                *gone = true;
                bytes -= segment.disk_bytes();
            }
        }
    }
    (0..segments.len()).filter(|index| gone[*index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{FileMeta, Span};

    const HOUR: Micros = 3_600_000_000;

    fn segment(table: &str, hour: i64, event_hour: i64) -> SegmentMeta {
        let span = |hour| Span { first: hour * HOUR, last: hour * HOUR + 1 };
        SegmentMeta {
            format: 2,
            ulid: String::new(),
            table: table.into(),
            rows: 1,
            raw_bytes: 1,
            time: span(event_hour),
            ingest_time: span(hour),
            coordinates: Vec::new(),
            columns: None,
            files: vec![FileMeta { name: "x".into(), bytes: 100, blake3: String::new() }],
        }
    }

    fn hours(hours: u64) -> Option<Duration> {
        Some(Duration::from_secs(hours * 3600))
    }

    #[test]
    fn by_age_by_bytes_and_never_what_is_held() {
        let segments =
            [segment("falco", 0, -9), segment("kubernetes", 1, 1), segment("falco", 2, 2), segment("falco", 9, 0)];
        let check = |retention: &Retention, holds: &[Hold], expected: &[usize]| {
            let all: Vec<&SegmentMeta> = segments.iter().collect();
            assert_eq!(expired(&all, retention, holds, 10 * HOUR), expected, "{retention:?}");
        };
        let all = |age, bytes| Retention { all: Limits { age, bytes }, ..Retention::default() };
        let by_event = |age| Retention { by: Clock::Event, ..all(age, None) };
        check(&by_event(hours(8)), &[], &[0, 1, 3]);
        check(&Retention::default(), &[], &[]);
        check(&all(hours(8), None), &[], &[0, 1]);
        check(&all(None, Some(250)), &[], &[0, 1]);
        check(&all(None, Some(0)), &[], &[0, 1, 2]);
        check(&all(hours(9), Some(200)), &[], &[0, 1]);
        let falco = |age, bytes| Retention {
            all: Limits { age: hours(8), bytes: None },
            tables: BTreeMap::from([("falco".to_owned(), Limits { age, bytes })]),
            ..Retention::default()
        };
        check(&falco(hours(100), None), &[], &[1]);
        check(&falco(None, Some(100)), &[], &[0, 1, 2]);
        let mut hold = Hold {
            id: 1,
            first: -10 * HOUR,
            last: -8 * HOUR,
            reason: "case".into(),
            author: "legal".into(),
            created: 0,
            released: None,
        };
        check(&all(hours(8), Some(0)), &[hold.clone()], &[1, 2]);
        hold.released = Some((1, "legal".into()));
        check(&all(hours(8), None), &[hold], &[0, 1]);
    }
}
