//! Which segments to merge. Only neighbours in commit order, so that a merged segment takes the place of its inputs
//! and every order that rests on admission stays; only within a span of time, so that pruning by time and retention
//! keep their grain; and only where the largest input is at most two thirds of the whole: every merge makes a row's
//! segment at least half as large again, so that a row is rewritten a logarithmic number of times.

use std::ops::Range;
use std::time::Duration;

use event::Micros;

use crate::segment::{SegmentMeta, Span};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Off: segments pile up.
    pub on: bool,
    /// Bytes of `raw` beyond which a segment is not merged further.
    pub bytes_max: u64,
    /// So many neighbours are worth a merge; once they are [`Compaction::cold_after`] old, two are.
    pub inputs_min: usize,
    /// Neither event time nor ingest time of a merged segment spans more than this, or than its widest input.
    pub span_max: Duration,
    pub cold_after: Duration,
}

/// Bounds one merge's open files and time.
const INPUTS_MAX: usize = 64;

impl Default for Compaction {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Compaction { on: true, bytes_max: 512 << 20, inputs_min: 8, span_max: day, cold_after: day }
    }
}

/// The neighbours to merge next: the longest run that is worth it, the oldest of equals. `segments` are those of one
/// table in commit order; `None` in between is a segment that cannot be merged.
pub fn pick(segments: &[Option<&SegmentMeta>], policy: &Compaction, now: Micros) -> Option<Range<usize>> {
    let mut best: Option<Range<usize>> = None;
    for start in 0..segments.len() {
        let Some(end) = longest_from(start, segments, policy, now) else { continue };
        if best.as_ref().is_none_or(|best| end - start > best.len()) {
            best = Some(start..end);
        }
    }
    best
}

fn longest_from(start: usize, segments: &[Option<&SegmentMeta>], policy: &Compaction, now: Micros) -> Option<usize> {
    let first = (*segments.get(start)?)?;
    let mut run = Run { time: first.time, ingest: first.ingest_time, ..Run::default() };
    let mut longest = None;
    for (index, segment) in segments.iter().enumerate().skip(start).take(INPUTS_MAX) {
        let Some(segment) = segment else { break };
        run.add(segment);
        if run.bytes > policy.bytes_max || run.too_wide(policy.span_max) {
            break;
        }
        let inputs = index + 1 - start;
        let cold = now.saturating_sub(run.ingest.last) > policy.cold_after.as_micros() as i64;
        let enough = inputs >= policy.inputs_min.max(2) || (cold && inputs >= 2);
        if enough && run.largest <= run.bytes.saturating_mul(2) / 3 {
            longest = Some(index + 1);
        }
    }
    longest
}

#[derive(Default)]
struct Run {
    bytes: u64,
    largest: u64,
    time: Span,
    ingest: Span,
    /// Of the widest input.
    time_width: u64,
    ingest_width: u64,
}

impl Run {
    fn add(&mut self, segment: &SegmentMeta) {
        // An empty `raw` still costs a segment; and two of nothing are worth a merge.
        let bytes = segment.raw_bytes.max(1);
        self.bytes += bytes;
        self.largest = self.largest.max(bytes);
        self.time = self.time.around(&segment.time);
        self.ingest = self.ingest.around(&segment.ingest_time);
        self.time_width = self.time_width.max(segment.time.width());
        self.ingest_width = self.ingest_width.max(segment.ingest_time.width());
    }

    fn too_wide(&self, span_max: Duration) -> bool {
        let max = span_max.as_micros() as u64;
        self.time.width() > max.max(self.time_width) || self.ingest.width() > max.max(self.ingest_width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Micros = 60_000_000;

    fn segment(at: Micros, bytes: u64) -> SegmentMeta {
        let span = Span { first: at, last: at + MINUTE };
        SegmentMeta {
            format: 2,
            ulid: String::new(),
            table: "falco".into(),
            rows: 1,
            raw_bytes: bytes,
            time: span,
            ingest_time: span,
            coordinates: Vec::new(),
            columns: None,
            files: Vec::new(),
        }
    }

    fn picked(segments: &[SegmentMeta], now: Micros) -> Option<Range<usize>> {
        let policy = Compaction { bytes_max: 1000, inputs_min: 4, ..Compaction::default() };
        pick(&segments.iter().map(Some).collect::<Vec<_>>(), &policy, now)
    }

    fn minutes(sizes: &[u64]) -> Vec<SegmentMeta> {
        sizes.iter().enumerate().map(|(n, bytes)| segment(n as i64 * MINUTE, *bytes)).collect()
    }

    #[test]
    fn merges_enough_neighbours_of_like_size() {
        let check = |sizes: &[u64], expected| assert_eq!(picked(&minutes(sizes), 0), expected, "{sizes:?}");
        check(&[10, 10, 10], None);
        check(&[10, 10, 10, 10], Some(0..4));
        check(&[500, 10, 10, 10, 10], Some(1..5));
        check(&[500, 60, 60, 60, 60], Some(1..5));
        check(&[500, 100, 100, 100, 100], Some(0..5));
        check(&[500, 100, 100, 100, 200], Some(0..5));
        check(&[400, 400, 400, 400], None);
        check(&[0, 0, 0, 0], Some(0..4));
    }

    #[test]
    fn two_cold_neighbours_are_enough_and_days_stay_apart() {
        let day = 24 * 60 * MINUTE;
        assert_eq!(picked(&minutes(&[10, 10]), day), None);
        assert_eq!(picked(&minutes(&[10, 20]), 2 * day), Some(0..2));
        assert_eq!(picked(&minutes(&[10, 30]), 2 * day), None);
        let apart = [segment(0, 10), segment(2 * day, 10), segment(4 * day, 10), segment(6 * day, 10)];
        assert_eq!(picked(&apart, 100 * day), None);
    }

    #[test]
    fn every_row_is_rewritten_a_logarithmic_number_of_times() {
        let (mut segments, mut written) = (Vec::new(), 0);
        for n in 0..1_000 {
            segments.push(segment(n * 1_000, 1));
            let policy = Compaction { inputs_min: 4, ..Compaction::default() };
            while let Some(run) = pick(&segments.iter().map(Some).collect::<Vec<_>>(), &policy, 0) {
                let bytes = segments[run.clone()].iter().map(|s| s.raw_bytes).sum();
                written += bytes;
                let merged = segment(segments[run.start].time.first, bytes);
                segments.splice(run, [merged]);
            }
        }
        assert!(segments.len() < 20, "{} segments left", segments.len());
        assert!(written < 1_000 * 8, "{written} rows written for 1000");
    }
}
