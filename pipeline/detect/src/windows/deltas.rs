//! One group's numbers over boundaries: what changes at which boundary, as far as it lies ahead. What comes at a boundary
//! mostly goes a window later, so that one entry stands for both: it adds at its boundary and takes away `span` boundaries
//! on. A row that came late comes in one entry and goes in another, that of the boundary at which it should have come; a
//! distinct value that is met again goes in a later one. So a number at a boundary is a sum of what came before, in any
//! order of arrival.

/// Room for so many when one is not enough, so that a group that goes on growing is not moved at each row.
const MANY: usize = 8;

/// Looked through one by one before searching.
const NEAR: usize = 4;

/// Packed: these are most of what a group takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Entry<const L: usize> {
    at: i32,
    adds: [i64; L],
    /// `span` boundaries later.
    takes: [i64; L],
}

/// Entries ascend. Most groups of most rules have few rows: one entry needs no memory of its own.
#[derive(Clone, Debug)]
pub enum Deltas<const L: usize> {
    One {
        used: bool,
        came: bool,
        entry: Entry<L>,
    },
    /// Those before `gone` are over, those before `came` have been added.
    Many {
        gone: u32,
        came: u32,
        entries: Vec<Entry<L>>,
    },
}

/// What was over when boundaries became final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    pub entries: usize,
    /// What the first lane lost.
    pub first_lane: i64,
}

impl<const L: usize> Default for Deltas<L> {
    fn default() -> Self {
        Deltas::One { used: false, came: false, entry: Entry::at(0) }
    }
}

impl<const L: usize> Entry<L> {
    fn at(at: i32) -> Entry<L> {
        Entry { at, adds: [0; L], takes: [0; L] }
    }
}

impl<const L: usize> Deltas<L> {
    /// Those that are not over, and how many of them have been added.
    fn entries(&self) -> (&[Entry<L>], usize) {
        match self {
            Deltas::One { used, came, entry } => {
                (&std::slice::from_ref(entry)[..usize::from(*used)], usize::from(*came))
            }
            Deltas::Many { gone, came, entries } => (&entries[*gone as usize..], (came - gone) as usize),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        self.entries().0.len()
    }

    /// Reads what the next change is near to, see [`super::groups::warm`].
    pub fn touch(&self) -> i32 {
        match self {
            Deltas::One { entry, .. } => entry.at,
            Deltas::Many { entries, .. } => entries.last().map_or(0, |entry| entry.at),
        }
    }

    /// Adds `by` to one lane from a boundary on that is still ahead; true if the entry is new.
    pub fn add(&mut self, now: i32, at: i32, lane: usize, by: i64) -> bool {
        let (entry, new) = self.entry(now, at);
        entry.adds[lane] = { entry.adds[lane] }.wrapping_add(by);
        new
    }

    /// Takes `by` away from one lane, `span` boundaries behind `at`; true if the entry is new.
    pub fn take(&mut self, now: i32, at: i32, lane: usize, by: i64) -> bool {
        let (entry, new) = self.entry(now, at);
        entry.takes[lane] = { entry.takes[lane] }.wrapping_add(by);
        new
    }

    fn entry(&mut self, now: i32, at: i32) -> (&mut Entry<L>, bool) {
        let ahead = self.entries().0;
        let place = place_of(ahead, at);
        let new = ahead.get(place).is_none_or(|entry| entry.at != at);
        if new {
            self.insert(place, Entry::at(at), at <= now);
        }
        match self {
            Deltas::One { entry, .. } => (entry, new),
            Deltas::Many { gone, entries, .. } => (&mut entries[*gone as usize + place], new),
        }
    }

    fn insert(&mut self, place: usize, new: Entry<L>, has_come: bool) {
        match self {
            Deltas::One { used: used @ false, came, entry } => (*used, *came, *entry) = (true, has_come, new),
            Deltas::One { came, entry, .. } => {
                let mut entries = Vec::with_capacity(MANY);
                entries.push(*entry);
                entries.insert(place, new);
                *self = Deltas::Many { gone: 0, came: u32::from(*came) + u32::from(has_come), entries };
            }
            Deltas::Many { gone, came, entries } => {
                let first = *gone as usize;
                // Whichever side is shorter moves.
                if first > 0 && place < entries.len() - first - place {
                    entries.copy_within(first..first + place, first - 1);
                    entries[first - 1 + place] = new;
                    *gone -= 1;
                    *came -= u32::from(!has_come);
                } else {
                    entries.insert(first + place, new);
                    *came += u32::from(has_come);
                }
            }
        }
    }

    /// The first boundary of which there is an entry: it is over `span` later.
    #[cfg(test)]
    pub fn first(&self) -> i32 {
        self.entries().0.first().map_or(i32::MAX, |entry| entry.at)
    }

    /// The boundaries of which there are entries.
    pub fn boundaries(&self) -> impl DoubleEndedIterator<Item = i32> + '_ {
        self.entries().0.iter().map(|entry| entry.at)
    }

    /// Makes boundaries up to `slot` final: what comes and goes there is in `sums` from now on. `first` is what
    /// [`Deltas::first`] says, before and after: most boundaries end nothing, and the oldest entry is far from the newest.
    pub fn fold_until(&mut self, slot: i32, span: i32, first: &mut i32, sums: &mut [i64; L]) -> Gone {
        let (entries, had_come) = self.entries();
        let coming = entries[had_come..].iter().take_while(|entry| entry.at <= slot);
        let came = had_come + coming.map(|entry| add(sums, entry.adds)).count();
        let mut gone = Gone::default();
        if first.saturating_add(span) <= slot {
            let going = entries[..came].iter().take_while(|entry| entry.at.saturating_add(span) <= slot);
            for Entry { takes, .. } in going.copied() {
                take(sums, takes);
                gone.entries += 1;
                gone.first_lane += takes[0];
            }
            *first = entries.get(gone.entries).map_or(i32::MAX, |entry| entry.at);
        }
        let went = gone.entries;
        match self {
            Deltas::One { used, came: all, .. } => (*used, *all) = (*used && went == 0, came > went),
            Deltas::Many { gone: before, came: all, entries } => {
                *all = *before + came as u32;
                *before += went as u32;
                let over = *before as usize;
                if over == entries.len() {
                    *self = Deltas::default();
                } else if over >= MANY && 2 * over >= entries.len() {
                    entries.drain(..over);
                    *all -= over as u32;
                    *before = 0;
                }
            }
        }
        gone
    }

    /// The boundaries ahead at which anything changes.
    pub fn ahead(&self, span: i32, first: i32) -> Ahead<'_, L> {
        let (entries, came) = self.entries();
        Ahead { coming: &entries[came..], going: entries, first, span }
    }
}

/// Goes through what changes ahead.
pub struct Ahead<'a, const L: usize> {
    coming: &'a [Entry<L>],
    going: &'a [Entry<L>],
    /// Of `going`.
    first: i32,
    span: i32,
}

impl<const L: usize> Ahead<'_, L> {
    /// The next boundary at which anything changes.
    pub fn next(&self) -> Option<i32> {
        let comes = self.coming.first().map_or(i32::MAX, |entry| entry.at);
        // What goes first came before whatever comes.
        let next = comes.min(self.first.saturating_add(self.span));
        (next < i32::MAX).then_some(next)
    }

    /// Everything up to `slot` happens to `sums`.
    pub fn go_to(&mut self, slot: i32, sums: &mut [i64; L]) {
        while let [entry, rest @ ..] = self.coming
            && entry.at <= slot
        {
            add(sums, entry.adds);
            self.coming = rest;
        }
        while self.first.saturating_add(self.span) <= slot
            && let [entry, rest @ ..] = self.going
        {
            take(sums, entry.takes);
            self.first = rest.first().map_or(i32::MAX, |entry| entry.at);
            self.going = rest;
        }
    }
}

/// Where a boundary is or belongs. Rows come almost in order: theirs is mostly among the last.
fn place_of<const L: usize>(entries: &[Entry<L>], at: i32) -> usize {
    let near = entries.len().saturating_sub(NEAR);
    match entries[near..].iter().rposition(|entry| entry.at <= at) {
        Some(place) => near + place + usize::from(entries[near + place].at < at),
        None => entries[..near].partition_point(|entry| entry.at < at),
    }
}

fn add<const L: usize>(sums: &mut [i64; L], by: [i64; L]) {
    sums.iter_mut().zip(by).for_each(|(sum, by)| *sum = sum.wrapping_add(by));
}

fn take<const L: usize>(sums: &mut [i64; L], by: [i64; L]) {
    sums.iter_mut().zip(by).for_each(|(sum, by)| *sum = sum.wrapping_sub(by));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Against a map of what changes where.
    #[test]
    fn changes_are_kept_like_a_sorted_map() {
        for seed in 0..300 {
            let mut random = StdRng::seed_from_u64(seed);
            let span = random.random_range(1..40);
            let (mut deltas, mut map) = (Deltas::<2>::default(), BTreeMap::<i32, [i64; 2]>::new());
            let (mut now, mut sums, mut expected, mut first) = (0, [0; 2], [0; 2], i32::MAX);
            for _ in 0..400 {
                if random.random_bool(0.8) {
                    let near = random.random_bool(0.5);
                    let at = now + 1 + random.random_range(0..if near { 3 } else { 60 });
                    let (lane, by) = (random.random_range(0..2), random.random_range(-3..4));
                    deltas.add(now, at, lane, by);
                    map.entry(at).or_default()[lane] += by;
                    // Late: it goes before others that came with it.
                    let from = random.random_range((now + 1 - span).max(at - span)..=at);
                    deltas.take(now, from, lane, by);
                    map.entry(from + span).or_default()[lane] -= by;
                    first = first.min(at).min(from);
                } else {
                    now += random.random_range(1..20);
                    deltas.fold_until(now, span, &mut first, &mut sums);
                    let ahead = map.split_off(&(now + 1));
                    map.values().for_each(|by| add(&mut expected, *by));
                    map = ahead;
                    assert_eq!(sums, expected, "seed {seed}");
                }
                assert_eq!(first, deltas.first(), "seed {seed}");
                let (mut ahead, mut then, mut expected) = (deltas.ahead(span, first), sums, sums);
                let mut changes = map.iter().peekable();
                while let Some(next) = ahead.next() {
                    ahead.go_to(next, &mut then);
                    while let Some((_, by)) = changes.next_if(|(at, _)| **at <= next) {
                        add(&mut expected, *by);
                    }
                    assert_eq!(then, expected, "seed {seed}, boundary {next}");
                }
                assert_eq!(changes.next(), None, "seed {seed}");
            }
        }
    }
}
