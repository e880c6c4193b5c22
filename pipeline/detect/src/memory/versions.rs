//! What is remembered of a state table: per key its versions, in order of (time, event_uid, row_hash).
//!
//! A version is visible under a horizon ([`Horizon`]): it lies at or before a row, or before a boundary, and was
//! stamped early enough. All of a version is relative to what is visible: it holds until the next visible version of
//! its key, and its previous values are those of the last visible live version before it. A key that has been ended
//! for [`FORGET_US`] is forgotten: a later version has no previous values. So what is old can go without anybody
//! being able to tell.

use std::collections::HashMap;
use std::sync::Arc;

use event::{Micros, RowHash};

use super::mark::{Mark, heap};

/// After so long an end has no memory of what was before it.
pub const FORGET_US: i64 = 7 * 86_400_000_000;

/// How far back versions that hold no longer are remembered: windows and late rows look back. What looks further asks
/// the store.
pub const ENDED_US: i64 = 2 * 86_400_000_000;

/// Event time between two looks at everything for what is old.
const SWEEP_US: i64 = 600_000_000;

#[derive(Clone, Debug)]
pub struct Version {
    pub mark: Mark,
    /// The columns that are not the key, encoded; shared with the version before while they do not change.
    /// `None` ends the key.
    pub values: Option<Arc<[u8]>>,
}

/// Which versions are visible.
#[derive(Clone, Copy, Debug)]
pub enum Horizon<'a> {
    /// For a row: at or before it, stamped before its boundary.
    Row(&'a Mark),
    /// For a boundary of a window: before it, stamped before it.
    Boundary(Micros),
}

impl Horizon<'_> {
    fn shows(&self, version: &Mark) -> bool {
        match self {
            Horizon::Row(row) => version.order() <= row.order() && version.stamp < row.boundary(),
            Horizon::Boundary(boundary) => version.time < *boundary && version.stamp < *boundary,
        }
    }

    /// No version from here on is visible.
    fn end(&self, versions: &[Version]) -> usize {
        match self {
            Horizon::Row(row) => versions.partition_point(|v| v.mark.order() <= row.order()),
            Horizon::Boundary(boundary) => versions.partition_point(|v| v.mark.time < *boundary),
        }
    }
}

/// A live version as the table shows it.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    pub mark: &'a Mark,
    pub key: &'a [u8],
    pub values: &'a [u8],
    pub valid_to: Micros,
    pub previous: Option<&'a [u8]>,
}

const KEY_BYTES: usize = size_of::<(Box<[u8]>, Vec<Version>)>() * 8 / 7 + 1 + 32;

#[derive(Debug)]
pub struct Versions {
    keys: HashMap<Box<[u8]>, Vec<Version>>,
    /// What held at or after it is remembered.
    floor: Micros,
    swept: Micros,
    bytes: usize,
}

impl Default for Versions {
    fn default() -> Versions {
        Versions { keys: HashMap::new(), floor: Micros::MIN, swept: Micros::MIN, bytes: 0 }
    }
}

impl Versions {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// As they were given by [`Versions::keys`].
    pub fn restored(keys: Vec<(Box<[u8]>, Vec<Version>)>, floor: Micros) -> Versions {
        let mut versions = Versions { floor, ..Versions::default() };
        for (key, of_key) in keys {
            for v in of_key {
                versions.add(&key, v.mark, v.values.as_deref());
            }
        }
        versions
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn keys(&self) -> impl Iterator<Item = (&[u8], &[Version])> {
        self.keys.iter().map(|(key, versions)| (&**key, versions.as_slice()))
    }

    pub fn floor(&self) -> Micros {
        self.floor
    }

    /// Whether all that held at `time` or later is remembered.
    pub fn reaches(&self, time: Micros) -> bool {
        time >= self.floor
    }

    /// Times behind `now` from which on a version can be seen.
    pub fn seen_after(&self, now: Micros) -> impl Iterator<Item = Micros> {
        let all = self.keys.values().flatten().map(|version| version.mark.boundary());
        all.filter(move |boundary| *boundary > now)
    }

    /// Adding a version again changes nothing: false.
    pub fn add(&mut self, key: &[u8], mark: Mark, values: Option<&[u8]>) -> bool {
        if !self.keys.contains_key(key) {
            self.bytes += KEY_BYTES + heap(key.len());
            self.keys.insert(key.into(), Vec::with_capacity(1));
        }
        let versions = self.keys.get_mut(key).expect("it is there or was put there");
        let at = versions.partition_point(|v| place(&v.mark) < place(&mark));
        if versions.get(at).is_some_and(|have| place(&have.mark) == place(&mark)) {
            return false;
        }
        let before = at.checked_sub(1).and_then(|before| versions[before].values.clone());
        let values = match (values, before) {
            (Some(values), Some(before)) if *before == *values => Some(before),
            (Some(values), _) => {
                self.bytes += heap(values.len() + 16);
                Some(values.into())
            }
            (None, _) => None,
        };
        self.bytes += version_bytes(&mark);
        versions.insert(at, Version { mark, values });
        true
    }

    /// Takes over everything from `other`. Together they reach no further back than either.
    pub fn absorb(&mut self, other: Versions) {
        self.absorb_after(Micros::MIN, other);
    }

    /// The same of what was stamped after `known`, or everything if that is the beginning.
    pub fn absorb_after(&mut self, known: Micros, other: Versions) {
        self.floor = self.floor.max(other.floor);
        for (key, versions) in other.keys {
            let new = versions.into_iter().filter(|v| known == Micros::MIN || v.mark.stamp > known);
            for v in new {
                self.add(&key, v.mark, v.values.as_deref());
            }
        }
    }

    /// The version of `key` that holds at a row.
    pub fn at<'a>(&'a self, key: &[u8], row: &Mark) -> Option<Shown<'a>> {
        let (key, versions) = self.keys.get_key_value(key)?;
        let horizon = Horizon::Row(row);
        let mut visible = versions[..horizon.end(versions)].iter().rev().filter(|v| horizon.shows(&v.mark)).peekable();
        let version = visible.next()?;
        let values = version.values.as_ref()?;
        // When what came before ended: at the version after it.
        let mut ended = version.mark.time;
        let mut previous = None;
        for earlier in visible {
            if let Some(values) = &earlier.values {
                previous = remembered(version.mark.time, ended).then_some(&**values);
                break;
            }
            ended = earlier.mark.time;
        }
        Some(Shown { mark: &version.mark, key, values, valid_to: Micros::MAX, previous })
    }

    /// The live versions visible before `boundary` that hold at some time from `since` on.
    pub fn before(&self, boundary: Micros, since: Micros) -> impl Iterator<Item = Shown<'_>> {
        self.keys.iter().flat_map(move |(key, versions)| shown(key, versions, boundary, since))
    }

    /// Everything that will be asked for from now on is at `now` minus [`ENDED_US`] or later, or asks the store.
    pub fn advance(&mut self, now: Micros) {
        if now == Micros::MAX || now < self.swept.saturating_add(SWEEP_US) {
            return;
        }
        self.swept = now;
        self.floor = self.floor.max(now.saturating_sub(ENDED_US));
        let (floor, mut freed) = (self.floor, 0);
        self.keys.retain(|key, versions| {
            freed += drop_old(versions, floor);
            freed += if versions.is_empty() { KEY_BYTES + heap(key.len()) } else { 0 };
            !versions.is_empty()
        });
        self.bytes -= freed;
    }
}

/// What orders the versions of a key.
fn place(mark: &Mark) -> (Micros, &str, &RowHash) {
    (mark.time, &mark.uid, &mark.hash)
}

fn remembered(from: Micros, ended: Micros) -> bool {
    from.saturating_sub(ended) <= FORGET_US
}

fn version_bytes(mark: &Mark) -> usize {
    size_of::<Version>() - size_of::<Mark>() + mark.bytes()
}

fn shown<'a>(key: &'a [u8], versions: &'a [Version], boundary: Micros, since: Micros) -> Vec<Shown<'a>> {
    let horizon = Horizon::Boundary(boundary);
    let visible: Vec<&Version> = versions[..horizon.end(versions)].iter().filter(|v| horizon.shows(&v.mark)).collect();
    let mut shown = Vec::new();
    // The last live values and when they ended.
    let mut last: Option<(&[u8], Micros)> = None;
    for (at, version) in visible.iter().enumerate() {
        let Some(values) = &version.values else { continue };
        let valid_to = visible.get(at + 1).map_or(Micros::MAX, |next| next.mark.time);
        let previous = last.filter(|(_, ended)| remembered(version.mark.time, *ended)).map(|(values, _)| values);
        last = Some((values, valid_to));
        if valid_to > since {
            shown.push(Shown { mark: &version.mark, key, values, valid_to, previous });
        }
    }
    shown
}

/// Drops what nobody who looks at `floor` or later can see, and returns the bytes of it. Versions stamped above the
/// floor are not visible to all of those, and stay. Of the others the last one before the floor stays, the last live
/// one before that, and what follows a live one that stays: when it ended can matter.
fn drop_old(versions: &mut Vec<Version>, floor: Micros) -> usize {
    let before = versions.partition_point(|v| v.mark.time < floor);
    let settled = |v: &Version| v.mark.stamp <= floor;
    let Some(last) = versions[..before].iter().rposition(settled) else { return 0 };
    let live = versions[..last].iter().rposition(|v| settled(v) && v.values.is_some());
    let mut keep: Vec<bool> =
        versions.iter().enumerate().map(|(at, v)| at >= last || Some(at) == live || !settled(v)).collect();
    let mut at = 0;
    while at < last {
        if keep[at]
            && versions[at].values.is_some()
            && let Some(next) = versions[at + 1..].iter().position(settled)
        {
            keep[at + 1 + next] = true;
        }
        at += 1;
    }
    let ended = versions[last].values.is_none() && !remembered(floor, versions[last].mark.time);
    if ended && versions[..last].iter().all(settled) {
        keep[..=last].fill(false);
    }
    let mut freed = 0;
    let mut kept = keep.into_iter();
    versions.retain(|v| {
        let keep = kept.next().expect("one for each version");
        if !keep {
            freed += version_bytes(&v.mark);
            // Values shared with a neighbour go with the last of them.
            freed += v.values.as_ref().filter(|v| Arc::strong_count(v) == 1).map_or(0, |v| heap(v.len() + 16));
        }
        keep
    });
    freed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(time: Micros, uid: &str, stamp: Micros) -> Mark {
        Mark { time, uid: uid.into(), stamp, hash: [0; 16] }
    }

    const V: fn(&str) -> Option<&[u8]> = |text| Some(text.as_bytes());

    fn at(versions: &Versions, time: Micros, uid: &str, stamp: Micros) -> Option<(String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        versions.at(b"k", &mark(time, uid, stamp)).map(|s| (text(s.values), s.previous.map(text)))
    }

    fn some(value: &str, previous: Option<&str>) -> Option<(String, Option<String>)> {
        Some((value.into(), previous.map(Into::into)))
    }

    #[test]
    fn what_was_dropped_is_not_known_by_taking_it_over() {
        let (mut all, mut swept) = (Versions::default(), Versions::default());
        swept.advance(10 * ENDED_US);
        all.absorb(swept);
        assert!(!all.reaches(9 * ENDED_US - 1) && all.reaches(9 * ENDED_US));
        all.absorb(Versions::default());
        assert!(!all.reaches(9 * ENDED_US - 1));
    }

    #[test]
    fn a_row_sees_the_last_version_before_it() {
        let mut versions = Versions::default();
        versions.add(b"k", mark(10, "b", 0), V("one"));
        versions.add(b"k", mark(20, "b", 0), V("two"));
        versions.add(b"k", mark(15, "late", 40), V("between"));
        assert_eq!(at(&versions, 9, "x", 0), None);
        assert_eq!(at(&versions, 10, "a", 0), None, "the version's uid comes after the row's");
        assert_eq!(at(&versions, 10, "b", 0), some("one", None), "the version itself");
        assert_eq!(at(&versions, 19, "x", 0), some("one", None), "stamped too late to be seen");
        assert_eq!(at(&versions, 19, "x", 40), some("between", Some("one")));
        assert_eq!(at(&versions, 30, "x", 0), some("two", Some("one")));
        assert_eq!(at(&versions, 30, "x", 40), some("two", Some("between")));
    }

    #[test]
    fn an_end_is_remembered_for_a_while() {
        let mut versions = Versions::default();
        versions.add(b"k", mark(10, "a", 0), V("one"));
        versions.add(b"k", mark(20, "a", 0), None);
        versions.add(b"k", mark(30, "a", 0), None);
        assert_eq!(at(&versions, 25, "x", 0), None);
        versions.add(b"k", mark(20 + FORGET_US, "a", 0), V("again"));
        assert_eq!(at(&versions, 20 + FORGET_US, "x", 0), some("again", Some("one")));
        versions.add(b"k", mark(19 + FORGET_US, "a", 0), None);
        assert_eq!(at(&versions, 20 + FORGET_US, "x", 0), some("again", Some("one")), "the first end counts");
        let mut later = Versions::default();
        later.add(b"k", mark(10, "a", 0), V("one"));
        later.add(b"k", mark(20, "a", 0), None);
        later.add(b"k", mark(21 + FORGET_US, "a", 0), V("again"));
        assert_eq!(at(&later, 21 + FORGET_US, "x", 0), some("again", None));
    }

    #[test]
    fn of_versions_at_one_instant_the_last_wins() {
        let mut versions = Versions::default();
        versions.add(b"k", mark(10, "b", 0), V("second"));
        versions.add(b"k", mark(10, "a", 0), V("first"));
        versions.add(b"k", mark(10, "a", 0), V("first"));
        assert_eq!(at(&versions, 11, "x", 0), some("second", Some("first")));
        let intervals: Vec<_> = versions.before(20, Micros::MIN).map(|s| (s.mark.time, s.valid_to)).collect();
        assert_eq!(intervals, [(10, 10), (10, Micros::MAX)]);
    }

    #[test]
    fn what_is_dropped_cannot_be_told_from_what_is_kept() {
        const H: i64 = 3_600_000_000;
        let (mut kept, mut swept) = (Versions::default(), Versions::default());
        let mut rng: u64 = 7;
        let mut next = |n: u64| {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (rng >> 33) % n
        };
        let mut rows = Vec::new();
        for n in 0..200 {
            let time = next(600) as i64 * H;
            let stamp = time + next(40) as i64 * H - 20 * H;
            let values = (next(3) > 0).then(|| format!("v{}", next(5)));
            rows.push((mark(time, &format!("u{n}"), stamp), values));
        }
        for (m, v) in &rows {
            kept.add(b"k", m.clone(), v.as_ref().map(|v| v.as_bytes()));
            swept.add(b"k", m.clone(), v.as_ref().map(|v| v.as_bytes()));
        }
        for now in (100..600).step_by(50).map(|n| n * H) {
            swept.advance(now);
            for time in (0..600).map(|n| n * H).filter(|t| swept.reaches(*t)) {
                for stamp in [time - 30 * H, time, time + 10 * H] {
                    assert_eq!(at(&swept, time, "u", stamp), at(&kept, time, "u", stamp), "at {}", time / H);
                }
            }
        }
        assert!(swept.bytes() < kept.bytes() / 2, "{} of {}", swept.bytes(), kept.bytes());
        swept.advance(10_000 * H);
        assert!(swept.bytes() <= kept.bytes());
    }
}
