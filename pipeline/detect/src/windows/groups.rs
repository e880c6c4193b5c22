//! The groups of an aggregating rule and their numbers over boundaries. A row changes its group where it is first and
//! last seen, an advance looks only at groups that change there: neither grows with window/slide.
//!
//! Every additive aggregate is one lane of [`Deltas`]; lane 0 counts the rows, so that a group exists while it is
//! positive. A counted distinct value is a run of boundaries at which any of its rows is seen: it adds one at the
//! beginning of each such run and takes one away behind its end.

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_map::{Entry, HashMap};

use super::agenda::Agenda;
use super::condition::Condition;
use super::deltas::{Deltas, Entry as Delta};
use super::extras::{Extras, Kept, Kinds};
use crate::fault::{self, Fault};

/// Slots are kept relative to the first one met: 2^31 slides of a second are 68 years.
pub const SLOTS_MAX: i64 = 1 << 30;

/// Distinct values that are no longer seen by any boundary are swept out when so many more have come.
const SWEEP_MIN: usize = 4_096;

/// New groups, or members of bags, after which the budget is looked at.
const BUDGET_CHECK: usize = 1_024;

/// Members of so many bytes count as many.
const MEMBER_LARGE: usize = 16 << 10;

pub type Group = u32;

/// A row's boundaries, relative.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub enter: i32,
    pub leave: i32,
}

struct Slot<const L: usize> {
    key: Box<[u8]>,
    /// The boundary at which it was last among the changed ones.
    visited: i32,
    /// Of `deltas`, at hand.
    first: i32,
    /// At the final boundary.
    sums: [i64; L],
    deltas: Deltas<L>,
}

/// A group at a boundary that is made final.
pub struct Visited<'a> {
    pub group: Group,
    pub sums: &'a [i64],
    pub kept: Kept<'a>,
    /// It has no row there or ahead.
    pub over: bool,
}

/// What [`Groups`] of any number of lanes can do.
pub trait Panes: Send + Sync {
    /// The group of a key, made if there is none; `None` when a new one would exceed the budget.
    fn group(&mut self, key: &[u8]) -> Option<Group>;
    fn add(&mut self, group: Group, seen: Seen, lane: usize, value: i64);
    /// One value counted by a distinct lane.
    fn add_distinct(&mut self, group: Group, seen: Seen, lane: usize, value: &[u8]);
    fn add_least(&mut self, group: Group, seen: Seen, least: usize, value: i64);
    fn add_first(&mut self, group: Group, seen: Seen, first: usize, value: &[u8]);
    /// A value of a bag; false while more would exceed the budget.
    fn add_member(&mut self, group: Group, seen: Seen, bag: usize, value: &[u8]) -> bool;
    /// Some groups, [`WARM`] at most, are about to be asked about.
    fn warm(&self, groups: &[Group]);
    /// The next boundary at which anything changes.
    fn next_change(&self) -> Option<i32>;
    /// Makes a boundary final and shows the groups that changed there, each once.
    fn advance(&mut self, slot: i32, visit: &mut dyn FnMut(Visited<'_>));
    /// Forgets a group if no boundary sees it any more.
    fn release(&mut self, group: Group) -> bool;
    /// A group's lanes at the final boundary or ahead of it, and what else it has.
    fn at(&self, group: Group, slot: i32, show: &mut dyn FnMut(&[i64], Kept<'_>));
    /// The boundaries in `from..=to`, those at which something changes and `from` itself, at which the condition holds; the
    /// first of them, or all.
    fn passing(&self, group: Group, from: i32, to: i32, condition: &Condition, all: bool, into: &mut Vec<i32>);
    fn key(&self, group: Group) -> &[u8];
    fn all(&self) -> Vec<Group>;
    fn bytes(&self) -> usize;
    /// Where the final boundary is.
    fn now(&self) -> i32;
}

/// So many groups are fetched into the cache ahead of being looked at.
pub const WARM: usize = 16;

/// Lanes beyond which a rule is evaluated another way.
pub const LANES_MAX: usize = 8;

/// Groups of a rule whose window takes `span` slides.
pub fn panes(lanes: usize, kinds: Kinds, span: i32, now: i32, bytes_max: usize) -> Box<dyn Panes> {
    match lanes {
        0..=1 => Box::new(Groups::<1>::new(kinds, span, now, bytes_max)),
        2 => Box::new(Groups::<2>::new(kinds, span, now, bytes_max)),
        3..=4 => Box::new(Groups::<4>::new(kinds, span, now, bytes_max)),
        _ => Box::new(Groups::<LANES_MAX>::new(kinds, span, now, bytes_max)),
    }
}

/// Boundaries at which one distinct value of one group is seen, as runs.
type Run = (i32, i32);

struct Groups<const L: usize> {
    index: HashTable<Group>,
    hasher: RandomState,
    /// Values of distinct lanes by two independent hashes: 128 keyed bits stand for group, lane and value.
    value_hashers: (RandomState, RandomState),
    slots: Vec<Slot<L>>,
    free: Vec<Group>,
    extras: Extras,
    agenda: Agenda,
    /// Boundaries that see a row which is not late.
    span: i32,
    values: HashMap<u128, Run, RandomState>,
    /// Earlier runs of a value that has several.
    earlier: HashMap<u128, Vec<Run>, RandomState>,
    sweep_at: usize,
    now: i32,
    key_bytes: usize,
    bytes_max: usize,
    full: bool,
}

impl<const L: usize> Groups<L> {
    fn new(kinds: Kinds, span: i32, now: i32, bytes_max: usize) -> Self {
        Groups {
            index: HashTable::new(),
            hasher: RandomState::new(),
            value_hashers: (RandomState::new(), RandomState::new()),
            slots: Vec::new(),
            free: Vec::new(),
            extras: Extras::new(kinds),
            agenda: Agenda::new(span),
            span,
            values: HashMap::with_hasher(RandomState::new()),
            earlier: HashMap::with_hasher(RandomState::new()),
            sweep_at: SWEEP_MIN,
            now,
            key_bytes: 0,
            bytes_max,
            full: false,
        }
    }

    /// Adds `by` from a boundary on.
    fn come(&mut self, group: Group, at: i32, lane: usize, by: i64) {
        let slot = &mut self.slots[group as usize];
        if at <= self.now {
            slot.sums[lane] = slot.sums[lane].wrapping_add(by);
            // Seen at the next final boundary at the earliest.
            self.agenda.push(self.now, self.now + 1, group);
        } else if slot.deltas.add(self.now, at, lane, by) {
            slot.first = slot.first.min(at);
            self.agenda.push(self.now, at, group);
        }
    }

    /// Takes `by` away from a boundary on.
    fn go(&mut self, group: Group, at: i32, lane: usize, by: i64) {
        let slot = &mut self.slots[group as usize];
        let came = at.saturating_sub(self.span);
        if at <= self.now {
            slot.sums[lane] = slot.sums[lane].wrapping_sub(by);
            self.agenda.push(self.now, self.now + 1, group);
        } else if slot.deltas.take(self.now, came, lane, by) {
            slot.first = slot.first.min(came);
            self.agenda.push(self.now, came, group);
        }
    }

    fn value_id(&self, group: Group, lane: usize, value: &[u8]) -> u128 {
        let group = if fault::is(Fault::ValueOfAnyGroup) { 0 } else { group };
        let of = |hasher: &RandomState| hasher.hash_one((group, lane as u32, value));
        (u128::from(of(&self.value_hashers.0)) << 64) | u128::from(of(&self.value_hashers.1))
    }

    /// Joins a run to those of its value that it meets, and returns how the count changes where.
    fn join(&mut self, id: u128, run: Run) -> Joined {
        let now = self.now;
        match self.values.entry(id) {
            Entry::Vacant(vacant) => {
                vacant.insert(run);
                Joined::New
            }
            Entry::Occupied(mut have) => {
                let (first, last) = *have.get();
                if first <= run.0 && run.1 <= last {
                    return Joined::Nothing;
                }
                let several = self.earlier.contains_key(&id);
                if last <= now && !several {
                    // Long gone: no boundary ahead sees it.
                    have.insert(run);
                    return Joined::New;
                }
                if !several && first <= run.0 && run.0 <= last + 1 {
                    if fault::is(Fault::DistinctNotProlonged) {
                        return Joined::Nothing;
                    }
                    have.insert((first, run.1));
                    return Joined::Longer { from: last, to: run.1 };
                }
                Joined::Among
            }
        }
    }

    /// The general case: all runs of a value, those that meet the new one joined with it.
    fn join_among(&mut self, group: Group, lane: usize, id: u128, run: Run) {
        let mut runs = self.earlier.remove(&id).unwrap_or_default();
        runs.extend(self.values.remove(&id));
        let now = self.now;
        runs.retain(|(_, last)| *last > now);
        let meets = |a: &Run| a.0 <= run.1 + 1 && run.0 <= a.1 + 1;
        let (met, mut apart): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(meets);
        let joined = met.iter().fold(run, |j, m| (j.0.min(m.0), j.1.max(m.1)));
        for (first, last) in &met {
            self.come(group, *first, lane, -1);
            self.go(group, last + 1, lane, -1);
        }
        self.come(group, joined.0, lane, 1);
        self.go(group, joined.1 + 1, lane, 1);
        apart.push(joined);
        apart.sort_unstable();
        let latest = apart.pop().expect("at least the new run");
        self.values.insert(id, latest);
        if !apart.is_empty() {
            self.earlier.insert(id, apart);
        }
    }

    fn sweep(&mut self) {
        if self.values.len() < self.sweep_at {
            return;
        }
        let now = self.now;
        self.values.retain(|_, (_, last)| *last > now);
        let values = &self.values;
        self.earlier.retain(|id, runs| {
            runs.retain(|(_, last)| *last > now);
            !runs.is_empty() && values.contains_key(id)
        });
        self.sweep_at = (self.values.len() * 2).max(SWEEP_MIN);
        if self.values.capacity() > 4 * self.sweep_at {
            self.values.shrink_to(self.sweep_at);
        }
    }
}

/// Reads a little of each of some groups that are about to be looked at. They lie anywhere in memory: read one after the
/// other by work that depends on what was read, each is waited for; read by this, they come at the same time.
fn warm<const L: usize>(slots: &[Slot<L>], groups: &[Group]) {
    let all = groups.iter().fold(0, |all, group| all ^ slots[*group as usize].deltas.touch());
    std::hint::black_box(all);
}

enum Joined {
    Nothing,
    New,
    Longer { from: i32, to: i32 },
    Among,
}

impl<const L: usize> Panes for Groups<L> {
    fn group(&mut self, key: &[u8]) -> Option<Group> {
        let hash = self.hasher.hash_one(key);
        if let Some(group) = self.index.find(hash, |g| &*self.slots[*g as usize].key == key) {
            return Some(*group);
        }
        // Only new groups are refused: those that are there go on counting.
        if self.full && self.free.is_empty() {
            return None;
        }
        let slot =
            Slot { key: key.into(), visited: i32::MIN, first: i32::MAX, sums: [0; L], deltas: Deltas::default() };
        let group = match self.free.pop() {
            Some(group) => {
                self.slots[group as usize] = slot;
                group
            }
            None => {
                self.slots.push(slot);
                self.extras.grow();
                if self.slots.len().is_multiple_of(BUDGET_CHECK) {
                    self.full = self.bytes() > self.bytes_max;
                }
                (self.slots.len() - 1) as Group
            }
        };
        self.key_bytes += key.len();
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, group, |g| hasher.hash_one(&*slots[*g as usize].key));
        Some(group)
    }

    fn add(&mut self, group: Group, seen: Seen, lane: usize, value: i64) {
        self.come(group, seen.enter, lane, value);
        let behind = seen.leave + i32::from(!fault::is(Fault::ClosedTwice));
        self.go(group, behind, lane, value);
    }

    fn add_distinct(&mut self, group: Group, seen: Seen, lane: usize, value: &[u8]) {
        let id = self.value_id(group, lane, value);
        match self.join(id, (seen.enter, seen.leave)) {
            Joined::Nothing => {}
            Joined::New => {
                self.come(group, seen.enter, lane, 1);
                self.go(group, seen.leave + 1, lane, 1);
            }
            Joined::Longer { from, to } => {
                self.go(group, from + 1, lane, -1);
                self.go(group, to + 1, lane, 1);
            }
            Joined::Among => self.join_among(group, lane, id, (seen.enter, seen.leave)),
        }
    }

    fn add_least(&mut self, group: Group, seen: Seen, least: usize, value: i64) {
        self.extras.add_least(group, least, seen, value, self.now);
    }

    fn add_first(&mut self, group: Group, seen: Seen, first: usize, value: &[u8]) {
        self.extras.add_first(group, first, seen, value, self.now);
    }

    fn add_member(&mut self, group: Group, seen: Seen, bag: usize, value: &[u8]) -> bool {
        if self.full {
            return false;
        }
        self.extras.add_member(group, bag, seen, value, self.now);
        if self.extras.spans().is_multiple_of(BUDGET_CHECK) || value.len() >= MEMBER_LARGE {
            self.full = self.bytes() > self.bytes_max;
        }
        true
    }

    fn warm(&self, groups: &[Group]) {
        warm(&self.slots, groups);
    }

    fn next_change(&self) -> Option<i32> {
        self.agenda.first()
    }

    fn advance(&mut self, slot: i32, visit: &mut dyn FnMut(Visited<'_>)) {
        self.now = self.now.max(slot);
        let (slots, extras, span) = (&mut self.slots, &mut self.extras, self.span);
        self.agenda.take_until(slot, |groups| {
            for groups in groups.chunks(WARM) {
                warm(slots, groups);
                for group in groups.iter().copied() {
                    let held = &mut slots[group as usize];
                    // A group's number may have been used again since.
                    if std::mem::replace(&mut held.visited, slot) == slot {
                        continue;
                    }
                    held.deltas.fold_until(slot, span, &mut held.first, &mut held.sums);
                    let kept = extras.advance(group, slot);
                    let ahead = !held.deltas.is_empty() && !fault::is(Fault::ForgottenEarly);
                    let over = held.sums[0] <= 0 && !ahead;
                    visit(Visited { group, sums: &held.sums, kept, over });
                }
            }
        });
        self.sweep();
        if self.full {
            // Nothing is added to bags meanwhile, so that they would not look for what is over by themselves.
            self.extras.prune(self.now);
            self.full = self.bytes() > self.bytes_max;
        }
    }

    fn release(&mut self, group: Group) -> bool {
        let slot = &mut self.slots[group as usize];
        let ahead = !slot.deltas.is_empty() && !fault::is(Fault::ForgottenEarly);
        if slot.sums[0] > 0 || ahead || slot.key.is_empty() {
            return false;
        }
        let key = std::mem::take(&mut slot.key);
        let hash = self.hasher.hash_one(&*key);
        if let Ok(entry) = self.index.find_entry(hash, |g| *g == group) {
            entry.remove();
        }
        self.key_bytes -= key.len();
        self.extras.forget(group);
        self.free.push(group);
        true
    }

    fn at(&self, group: Group, slot: i32, show: &mut dyn FnMut(&[i64], Kept<'_>)) {
        let held = &self.slots[group as usize];
        let mut sums = held.sums;
        if slot > self.now {
            held.deltas.ahead(self.span, held.first).go_to(slot, &mut sums);
        }
        show(&sums, self.extras.of(group));
    }

    fn passing(&self, group: Group, from: i32, to: i32, condition: &Condition, all: bool, into: &mut Vec<i32>) {
        let held = &self.slots[group as usize];
        let mut sums = held.sums;
        let mut ahead = held.deltas.ahead(self.span, held.first);
        let mut at = from;
        loop {
            ahead.go_to(at, &mut sums);
            if sums[0] > 0 && condition.holds(&sums) {
                into.push(at);
                if !all {
                    return;
                }
            }
            match ahead.next() {
                Some(slot) if slot <= to => at = slot,
                _ => return,
            }
        }
    }

    fn key(&self, group: Group) -> &[u8] {
        &self.slots[group as usize].key
    }

    fn all(&self) -> Vec<Group> {
        (0..self.slots.len() as Group).filter(|g| !self.slots[*g as usize].key.is_empty()).collect()
    }

    /// What tables and keys take; what groups of several entries have on the heap is estimated by the agenda.
    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<L>>()
            + self.key_bytes
            + self.index.capacity() * 5
            + self.extras.bytes()
            + self.agenda.bytes()
            + self.agenda.entries() * size_of::<Delta<L>>() * 3 / 2
            + self.values.capacity() * (size_of::<(u128, Run)>() + 1)
            + self.earlier.len() * 64
    }

    fn now(&self) -> i32 {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group that lives on must not be shut out of its own lists for good.
    #[test]
    fn lists_that_are_full_take_values_again_when_others_are_over() {
        const MAX: usize = 1 << 20;
        let mut panes = panes(1, Kinds { bags: vec![true], ..Kinds::default() }, 10, 0, MAX);
        let group = panes.group(b"hot").expect("there is room");
        let add = |panes: &mut dyn Panes, slot: i32, n: u32| {
            let seen = Seen { enter: slot, leave: slot + 9 };
            panes.add(group, seen, 0, 1);
            panes.add_member(group, seen, 0, &n.to_be_bytes())
        };
        let refused = (0..50_000).filter(|n| !add(panes.as_mut(), 1, *n)).count();
        assert!(refused > 0 && panes.bytes() < 2 * MAX, "{refused} refused, {} bytes", panes.bytes());
        for slot in 2..=20 {
            add(panes.as_mut(), slot, 100_000);
            panes.advance(slot, &mut |_| {});
        }
        assert!(panes.bytes() < MAX, "{} bytes", panes.bytes());
        assert!(add(panes.as_mut(), 21, 100_001), "the first values have left");
        let mut members = 0;
        panes.at(group, 21, &mut |_, kept| members = kept.bags[0].at(21).map_or(0, |all| all.len()));
        assert_eq!(members, 2);
    }
}
