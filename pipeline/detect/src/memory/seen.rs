//! What `first_seen` remembers: per key, when rows were there.
//!
//! A row `e` is seen before if a visible row of its key lies in `[e.time - I, e)`, ordered by (time, event_uid). Two
//! facts keep this small and exact:
//!
//! * **Rows stamped at or below the settled boundary are visible to every row still to be judged.** A row is judged
//!   for good when the watermarks have reached its boundary `b(e)`, so that those waiting and those still to come have
//!   `b(e)` above the settled boundary. Only rows stamped later ("fresh" ones) need their stamps, and only until the
//!   boundary has passed them.
//! * **Settled rows need no times of their own, only the spans they form.** Cut a key's times where the gap is more
//!   than `I`: within a span `[first, last]`, every instant after `first` has a row at most `I` before it, so that
//!   a row there is seen; one after `last` is seen if it is within `I` of it; one at `first` is seen only by a row of
//!   the same instant with a smaller uid, so the smallest uid at `first` is kept.
//!
//! Old spans go, and so do the uids of spans that began long ago. What can then not be answered is said to be unknown
//! ([`Answer::Unknown`]), never guessed: a row so late is judged from the store.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use event::Micros;

use super::mark::{Mark, heap};

/// 128 bits of a hash of the key columns.
pub type Key = u128;

/// How late a row may be and still be answered from memory. Later ones cost a query each.
pub const LATE_US: i64 = 86_400_000_000;

/// How long after its beginning a span keeps the uid that breaks ties there.
const TIES_US: i64 = 3_600_000_000;

/// Event time between two looks at everything for what is old.
const SWEEP_US: i64 = 600_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    New,
    Seen,
    /// Not seen by what is remembered, which does not reach far enough.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Span {
    pub first: Micros,
    pub last: Micros,
    /// The smallest at `first`; `None` when forgotten.
    pub uid: Option<Box<str>>,
}

impl Span {
    pub fn of(mark: &Mark) -> Span {
        Span { first: mark.time, last: mark.time, uid: Some(mark.uid.clone()) }
    }

    fn with(self, other: Span) -> Span {
        let uid = match self.first.cmp(&other.first) {
            Ordering::Less => self.uid,
            Ordering::Greater => other.uid,
            // One of them alone does not tell which is the smallest.
            Ordering::Equal => self.uid.zip(other.uid).map(|(a, b)| a.min(b)),
        };
        Span { first: self.first.min(other.first), last: self.last.max(other.last), uid }
    }
}

/// A row whose stamp still matters.
#[derive(Clone, Debug)]
struct Fresh {
    time: Micros,
    uid: Box<str>,
    stamp: Micros,
}

const KEY_BYTES: usize = size_of::<(Key, Vec<Span>)>() * 8 / 7 + 1;
const SPAN_BYTES: usize = size_of::<Span>() + 16;

#[derive(Debug)]
pub struct Seen {
    interval: i64,
    /// Sorted, more than `interval` apart.
    spans: HashMap<Key, Vec<Span>>,
    /// Sorted by (time, uid).
    fresh: HashMap<Key, Vec<Fresh>>,
    settled: Micros,
    /// Rows before it are not remembered.
    floor: Micros,
    swept: Micros,
    bytes: usize,
}

impl Seen {
    /// Remembers rows from `floor` on; those stamped at or below `settled` are visible to all that will ask.
    pub fn new(interval: i64, settled: Micros, floor: Micros) -> Seen {
        let (spans, fresh) = (HashMap::new(), HashMap::new());
        Seen { interval, spans, fresh, settled, floor, swept: settled, bytes: 0 }
    }

    /// From when on rows must be remembered while the settled boundary is there.
    pub fn floor_at(interval: i64, settled: Micros) -> Micros {
        match settled {
            // The end of a stream is no instant to look back from.
            Micros::MIN | Micros::MAX => Micros::MIN,
            settled => settled.saturating_sub(interval).saturating_sub(LATE_US),
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adding a row again changes nothing.
    pub fn add(&mut self, key: Key, mark: &Mark) {
        if mark.time < self.floor {
            return;
        }
        match mark.stamp <= self.settled {
            true => self.settle(key, mark.time, &mark.uid),
            false => self.keep_fresh(key, mark),
        }
    }

    /// Adds what earlier rows left, all of which are visible to everyone that will ask.
    pub fn add_span(&mut self, key: Key, span: Span) {
        if span.last < self.floor {
            return;
        }
        self.change(key, |spans, interval| join(spans, interval, span));
    }

    fn keep_fresh(&mut self, key: Key, mark: &Mark) {
        let rows = match self.fresh.entry(key) {
            Entry::Occupied(rows) => rows.into_mut(),
            Entry::Vacant(none) => {
                self.bytes += KEY_BYTES;
                none.insert(Vec::new())
            }
        };
        let at = rows.partition_point(|r| (r.time, &*r.uid) < mark.order());
        match rows.get_mut(at) {
            Some(have) if (have.time, &*have.uid) == mark.order() => have.stamp = have.stamp.min(mark.stamp),
            _ => {
                self.bytes += fresh_bytes(&mark.uid);
                rows.insert(at, Fresh { time: mark.time, uid: mark.uid.clone(), stamp: mark.stamp });
            }
        }
    }

    fn settle(&mut self, key: Key, time: Micros, uid: &str) {
        self.change(key, |spans, interval| widen(spans, interval, time, uid));
    }

    fn change(&mut self, key: Key, by: impl FnOnce(&mut Vec<Span>, i64)) {
        let spans = match self.spans.entry(key) {
            Entry::Occupied(spans) => spans.into_mut(),
            Entry::Vacant(none) => {
                self.bytes += KEY_BYTES;
                none.insert(Vec::with_capacity(1))
            }
        };
        let before = spans_bytes(spans);
        by(spans, self.interval);
        self.bytes = self.bytes + spans_bytes(spans) - before;
    }

    /// Whether a visible row of `key` lies before `mark` and not longer before than the interval.
    pub fn answer(&self, key: Key, mark: &Mark) -> Answer {
        let from = mark.time.saturating_sub(self.interval);
        let mut unsure = from < self.floor;
        if let Some(spans) = self.spans.get(&key) {
            let after = spans.partition_point(|s| s.first <= mark.time);
            if let Some(span) = after.checked_sub(1).map(|at| &spans[at]) {
                if span.first < mark.time && from <= span.last {
                    return Answer::Seen;
                }
                if span.first == mark.time {
                    match &span.uid {
                        Some(uid) if **uid < *mark.uid => return Answer::Seen,
                        Some(_) => {}
                        None => unsure = true,
                    }
                }
            }
        }
        if let Some(rows) = self.fresh.get(&key) {
            let (start, end) =
                (rows.partition_point(|r| r.time < from), rows.partition_point(|r| (r.time, &*r.uid) < mark.order()));
            if rows[start.min(end)..end].iter().any(|r| r.stamp < mark.boundary()) {
                return Answer::Seen;
            }
        }
        if unsure { Answer::Unknown } else { Answer::New }
    }

    /// Everything that will be judged from now on has its boundary above `settled`.
    pub fn advance(&mut self, settled: Micros) {
        if settled <= self.settled {
            return;
        }
        self.settled = settled;
        for (key, rows) in std::mem::take(&mut self.fresh) {
            let (visible, fresh): (Vec<Fresh>, Vec<Fresh>) = rows.into_iter().partition(|r| r.stamp <= settled);
            for row in visible {
                self.bytes -= fresh_bytes(&row.uid);
                self.settle(key, row.time, &row.uid);
            }
            match fresh.is_empty() {
                true => self.bytes -= KEY_BYTES,
                false => drop(self.fresh.insert(key, fresh)),
            }
        }
        if settled >= self.swept.saturating_add(SWEEP_US) {
            self.swept = settled;
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        self.floor = self.floor.max(Seen::floor_at(self.interval, self.settled));
        let ties = self.settled.saturating_sub(TIES_US);
        let (floor, mut freed) = (self.floor, 0);
        self.spans.retain(|_, spans| {
            let before = spans_bytes(spans);
            spans.retain(|s| s.last >= floor);
            spans.iter_mut().filter(|s| s.first < ties).for_each(|s| s.uid = None);
            freed += before - spans_bytes(spans);
            freed += if spans.is_empty() { KEY_BYTES } else { 0 };
            !spans.is_empty()
        });
        self.bytes -= freed;
    }
}

/// Takes in one instant: the spans stay sorted and more than `interval` apart.
fn widen(spans: &mut Vec<Span>, interval: i64, time: Micros, uid: &str) {
    let near = |earlier: Micros, later: Micros| later.saturating_sub(earlier) <= interval;
    let after = spans.partition_point(|s| s.first <= time);
    let joins_next = spans.get(after).is_some_and(|next| near(time, next.first));
    match after.checked_sub(1) {
        Some(at) if near(spans[at].last, time) => {
            let span = &mut spans[at];
            if time == span.first && span.uid.as_deref().is_some_and(|have| uid < have) {
                span.uid = Some(uid.into());
            }
            span.last = span.last.max(time);
            if joins_next {
                spans[at].last = spans.remove(after).last;
            }
        }
        _ if joins_next => {
            spans[after].first = time;
            spans[after].uid = Some(uid.into());
        }
        _ => spans.insert(after, Span { first: time, last: time, uid: Some(uid.into()) }),
    }
}

/// The same of a span.
pub fn join(spans: &mut Vec<Span>, interval: i64, span: Span) {
    let near = |earlier: Micros, later: Micros| later.saturating_sub(earlier) <= interval;
    let from = spans.partition_point(|s| !near(s.last, span.first));
    let to = from + spans[from..].iter().take_while(|s| near(span.last, s.first)).count();
    let joined = spans.drain(from..to).fold(span, Span::with);
    spans.insert(from, joined);
}

fn fresh_bytes(uid: &str) -> usize {
    size_of::<Fresh>() + heap(uid.len())
}

fn spans_bytes(spans: &[Span]) -> usize {
    spans.iter().map(|s| SPAN_BYTES + s.uid.as_ref().map_or(0, |uid| heap(uid.len()))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(time: Micros, uid: &str, stamp: Micros) -> Mark {
        Mark { time, uid: uid.into(), stamp, hash: [0; 16] }
    }

    fn spans(rows: &[(Micros, &str)]) -> Vec<(Micros, Micros, String)> {
        let mut spans = Vec::new();
        rows.iter().for_each(|(time, uid)| widen(&mut spans, 10, *time, uid));
        spans.into_iter().map(|s| (s.first, s.last, s.uid.unwrap_or_default().into())).collect()
    }

    #[test]
    fn spans_part_where_the_gap_is_longer_than_the_interval() {
        let check = |rows: &[(Micros, &str)], expected: &[(Micros, Micros, &str)]| {
            let expected: Vec<_> = expected.iter().map(|(f, l, u)| (*f, *l, u.to_string())).collect();
            assert_eq!(spans(rows), expected, "{rows:?}");
        };
        check(&[(0, "a"), (10, "b"), (21, "c")], &[(0, 10, "a"), (21, 21, "c")]);
        check(&[(0, "a"), (20, "c"), (10, "b")], &[(0, 20, "a")]);
        check(&[(20, "c"), (10, "b"), (0, "a")], &[(0, 20, "a")]);
        check(&[(0, "b"), (0, "a"), (0, "c")], &[(0, 0, "a")]);
        check(&[(5, "a"), (40, "b"), (20, "c")], &[(5, 5, "a"), (20, 20, "c"), (40, 40, "b")]);
    }

    /// However rows are put together before, what comes out is what they form one by one.
    #[test]
    fn spans_of_spans_are_the_spans_of_their_rows() {
        let mut rng = 3u64;
        let mut next = |n: u64| {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (rng >> 33) % n
        };
        for case in 0..500 {
            let rows: Vec<Mark> = (0..next(14)).map(|_| mark(next(90) as i64, &format!("u{}", next(4)), 0)).collect();
            let mut parts = vec![Vec::new(); 3];
            rows.iter().for_each(|row| join(&mut parts[next(3) as usize], 10, Span::of(row)));
            let mut whole = Vec::new();
            parts.into_iter().flatten().for_each(|span| join(&mut whole, 10, span));
            let got: Vec<_> = whole.into_iter().map(|s| (s.first, s.last, s.uid.unwrap_or_default().into())).collect();
            let rows: Vec<(Micros, &str)> = rows.iter().map(|row| (row.time, &*row.uid)).collect();
            assert_eq!(got, spans(&rows), "case {case}: {rows:?}");
        }
    }

    #[test]
    fn an_answer_is_seen_new_or_honestly_unknown() {
        let check = |seen: &Seen, row: (Micros, &str, Micros), expected: Answer| {
            assert_eq!(seen.answer(1, &mark(row.0, row.1, row.2)), expected, "{row:?}");
        };
        let mut seen = Seen::new(10, 0, Micros::MIN);
        check(&seen, (100, "a", 90), Answer::New);
        seen.add(1, &mark(100, "b", 90));
        check(&seen, (100, "b", 90), Answer::New);
        check(&seen, (100, "a", 90), Answer::New);
        check(&seen, (100, "c", 90), Answer::Seen);
        check(&seen, (110, "a", 90), Answer::Seen);
        check(&seen, (111, "a", 90), Answer::New);
        seen.add(1, &mark(95, "late", 105));
        check(&seen, (100, "a", 90), Answer::New);
        check(&seen, (100, "a", 105), Answer::Seen);
        assert_eq!(seen.answer(2, &mark(100, "c", 90)), Answer::New, "another key");

        let day = LATE_US;
        seen.advance(10 * day);
        assert_eq!(seen.bytes(), 0, "everything is older than a row may be late");
        check(&seen, (100, "a", 10 * day), Answer::Unknown);
        seen.add(1, &mark(10 * day, "x", 10 * day));
        seen.advance(10 * day + 2 * TIES_US);
        check(&seen, (10 * day, "a", 10 * day + 3 * TIES_US), Answer::Unknown);
        check(&seen, (10 * day + 10, "a", 10 * day + 3 * TIES_US), Answer::Seen);
    }
}
