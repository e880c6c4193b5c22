//! The groups of an aggregating rule and their numbers over boundaries. A row changes its group where it is first and
//! last seen, an advance looks only at groups that change there: neither grows with window/slide.
//!
//! Every additive aggregate is one lane of [`Deltas`]; lane 0 counts the rows, so that a group exists while it is
//! positive. A counted distinct value is a run of boundaries at which any of its rows is seen: it adds one at the
//! beginning of each such run and takes one away behind its end.

use std::collections::{BTreeMap, VecDeque};

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_map::{Entry, HashMap};

use super::bags::Bag;
use super::condition::Condition;
use super::deltas::{Deltas, add};
use super::extremes::Least;
use super::values::{Value, Values};
use crate::fault::{self, Fault};

/// Slots are kept relative to the first one met: 2^31 slides of a second are 68 years.
pub const SLOTS_MAX: i64 = 1 << 30;

/// Distinct values that are no longer seen by any boundary are swept out when so many more have come.
const SWEEP_MIN: usize = 4_096;

/// New groups, or members of bags, after which the budget is looked at.
const BUDGET_CHECK: usize = 1_024;

/// A value of a bag and its boundaries, in a tree.
const MEMBER_BYTES: usize = 96;

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

/// What a group has besides its sums.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    pub leasts: &'a [Least<i64>],
    pub firsts: &'a [Least<Value>],
    pub bags: &'a [Bag],
}

/// How many of each a group has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub lanes: usize,
    pub leasts: usize,
    pub firsts: usize,
    pub bags: usize,
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
    /// A value of a bag, `once` if that is a set; false when a new one would exceed the budget.
    fn add_member(&mut self, group: Group, seen: Seen, bag: usize, value: &[u8], once: bool) -> bool;
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

/// Lanes beyond which a rule is evaluated another way.
pub const LANES_MAX: usize = 8;

pub fn panes(sizes: Sizes, now: i32, bytes_max: usize) -> Box<dyn Panes> {
    match sizes.lanes {
        0..=1 => Box::new(Groups::<1>::new(sizes, now, bytes_max)),
        2 => Box::new(Groups::<2>::new(sizes, now, bytes_max)),
        3..=4 => Box::new(Groups::<4>::new(sizes, now, bytes_max)),
        _ => Box::new(Groups::<LANES_MAX>::new(sizes, now, bytes_max)),
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
    sizes: Sizes,
    /// Of all groups, one behind the other; so are the next two.
    leasts: Vec<Least<i64>>,
    firsts: Vec<Least<Value>>,
    bags: Vec<Bag>,
    /// What is in `firsts` and `bags`.
    kept: Values,
    /// In all bags.
    spans: usize,
    agenda: Agenda,
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
    fn new(sizes: Sizes, now: i32, bytes_max: usize) -> Self {
        Groups {
            index: HashTable::new(),
            hasher: RandomState::new(),
            value_hashers: (RandomState::new(), RandomState::new()),
            slots: Vec::new(),
            free: Vec::new(),
            sizes,
            leasts: Vec::new(),
            firsts: Vec::new(),
            bags: Vec::new(),
            kept: Values::default(),
            spans: 0,
            agenda: Agenda::default(),
            values: HashMap::with_hasher(RandomState::new()),
            earlier: HashMap::with_hasher(RandomState::new()),
            sweep_at: SWEEP_MIN,
            now,
            key_bytes: 0,
            bytes_max,
            full: false,
        }
    }

    fn change(&mut self, group: Group, at: i32, lane: usize, by: i64) {
        let slot = &mut self.slots[group as usize];
        if at <= self.now {
            slot.sums[lane] = slot.sums[lane].wrapping_add(by);
            // Seen at the next final boundary at the earliest.
            self.agenda.push(self.now, self.now + 1, group);
        } else if slot.deltas.add(at, lane, by) && !(by < 0 && fault::is(Fault::ExpiryNotSeen)) {
            self.agenda.push(self.now, at, group);
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
            self.change(group, *first, lane, -1);
            self.change(group, last + 1, lane, 1);
        }
        self.change(group, joined.0, lane, 1);
        self.change(group, joined.1 + 1, lane, -1);
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

/// Boundaries ahead that have a place of their own; those further on are kept sorted.
const NEAR: usize = 16_384;

/// Which groups change at which boundary, with repetitions.
#[derive(Default)]
struct Agenda {
    /// Of boundaries `base`, `base + 1`, …
    near: VecDeque<Vec<Group>>,
    base: i32,
    far: BTreeMap<i32, Vec<Group>>,
    entries: usize,
}

impl Agenda {
    fn push(&mut self, now: i32, at: i32, group: Group) {
        self.entries += 1;
        if self.near.is_empty() {
            self.base = at.min(now.saturating_add(1)).max(at - NEAR as i32 / 2);
        }
        // Wrapping: boundaries long before the base are as far away as those long behind it.
        let place = at.wrapping_sub(self.base) as u32 as usize;
        if place >= NEAR {
            return self.far.entry(at).or_default().push(group);
        }
        if place >= self.near.len() {
            self.near.resize_with(place + 1, Vec::new);
        }
        self.near[place].push(group);
    }

    fn first(&self) -> Option<i32> {
        let near = self.near.iter().position(|groups| !groups.is_empty()).map(|n| self.base + n as i32);
        let far = self.far.first_key_value().map(|(at, _)| *at);
        match (near, far) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn take_until(&mut self, slot: i32, mut each: impl FnMut(Group)) {
        while let Some(entry) = self.far.first_entry() {
            if *entry.key() > slot {
                break;
            }
            let groups = entry.remove();
            self.entries -= groups.len();
            groups.into_iter().for_each(&mut each);
        }
        while !self.near.is_empty() && self.base <= slot {
            let groups = self.near.pop_front().expect("it is not empty");
            self.base += 1;
            self.entries -= groups.len();
            groups.into_iter().for_each(&mut each);
        }
    }

    fn bytes(&self) -> usize {
        self.entries * 6 + (self.near.len() + 3 * self.far.len()) * 24
    }
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
        let slot = Slot { key: key.into(), visited: i32::MIN, sums: [0; L], deltas: Deltas::default() };
        let group = match self.free.pop() {
            Some(group) => {
                self.slots[group as usize] = slot;
                group
            }
            None => {
                self.slots.push(slot);
                let groups = self.slots.len();
                self.leasts.resize_with(groups * self.sizes.leasts, Least::default);
                self.firsts.resize_with(groups * self.sizes.firsts, Least::default);
                self.bags.resize_with(groups * self.sizes.bags, Bag::default);
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
        self.change(group, seen.enter, lane, value);
        let behind = seen.leave + i32::from(!fault::is(Fault::ClosedTwice));
        self.change(group, behind, lane, value.wrapping_neg());
    }

    fn add_distinct(&mut self, group: Group, seen: Seen, lane: usize, value: &[u8]) {
        let id = self.value_id(group, lane, value);
        match self.join(id, (seen.enter, seen.leave)) {
            Joined::Nothing => {}
            Joined::New => {
                self.change(group, seen.enter, lane, 1);
                self.change(group, seen.leave + 1, lane, -1);
            }
            Joined::Longer { from, to } => {
                self.change(group, from + 1, lane, 1);
                self.change(group, to + 1, lane, -1);
            }
            Joined::Among => self.join_among(group, lane, id, (seen.enter, seen.leave)),
        }
    }

    fn add_least(&mut self, group: Group, seen: Seen, least: usize, value: i64) {
        let now = self.now;
        self.leasts[group as usize * self.sizes.leasts + least].add(seen.enter, seen.leave, value, now);
    }

    fn add_first(&mut self, group: Group, seen: Seen, first: usize, value: &[u8]) {
        let value = self.kept.intern(value);
        self.firsts[group as usize * self.sizes.firsts + first].add(seen.enter, seen.leave, value, self.now);
    }

    fn add_member(&mut self, group: Group, seen: Seen, bag: usize, value: &[u8], once: bool) -> bool {
        if self.full {
            return false;
        }
        let value = self.kept.intern(value);
        let bag = &mut self.bags[group as usize * self.sizes.bags + bag];
        let before = bag.spans();
        bag.add(value, seen, self.now, once);
        self.spans = self.spans + bag.spans() - before;
        if bag.spans() > before && self.spans.is_multiple_of(BUDGET_CHECK) {
            self.full = self.bytes() > self.bytes_max;
        }
        true
    }

    fn next_change(&self) -> Option<i32> {
        self.agenda.first()
    }

    fn advance(&mut self, slot: i32, visit: &mut dyn FnMut(Visited<'_>)) {
        self.now = self.now.max(slot);
        let (slots, sizes, bags) = (&mut self.slots, self.sizes, &self.bags);
        let (all_leasts, all_firsts) = (&mut self.leasts, &mut self.firsts);
        self.agenda.take_until(slot, |group| {
            let g = group as usize;
            let held = &mut slots[g];
            // A group's number may have been used again since.
            if std::mem::replace(&mut held.visited, slot) == slot {
                return;
            }
            held.deltas.fold_until(slot, &mut held.sums);
            let leasts = &mut all_leasts[g * sizes.leasts..(g + 1) * sizes.leasts];
            leasts.iter_mut().for_each(|least| least.advance(slot));
            let firsts = &mut all_firsts[g * sizes.firsts..(g + 1) * sizes.firsts];
            firsts.iter_mut().for_each(|first| first.advance(slot));
            let kept = Kept { leasts, firsts, bags: &bags[g * sizes.bags..(g + 1) * sizes.bags] };
            let ahead = !held.deltas.is_empty() && !fault::is(Fault::ForgottenEarly);
            let over = held.sums[0] <= 0 && !ahead;
            visit(Visited { group, sums: &held.sums, kept, over });
        });
        self.sweep();
        self.full = self.full && self.bytes() > self.bytes_max;
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
        let g = group as usize;
        let sizes = self.sizes;
        self.leasts[g * sizes.leasts..(g + 1) * sizes.leasts].fill_with(Least::default);
        self.firsts[g * sizes.firsts..(g + 1) * sizes.firsts].fill_with(Least::default);
        for bag in &mut self.bags[g * sizes.bags..(g + 1) * sizes.bags] {
            self.spans -= std::mem::take(bag).spans();
        }
        self.free.push(group);
        true
    }

    fn at(&self, group: Group, slot: i32, show: &mut dyn FnMut(&[i64], Kept<'_>)) {
        let g = group as usize;
        let held = &self.slots[g];
        let mut sums = held.sums;
        if slot > self.now {
            held.deltas.changes().iter().take_while(|(at, _)| *at <= slot).for_each(|(_, by)| add(&mut sums, by));
        }
        let sizes = self.sizes;
        let kept = Kept {
            leasts: &self.leasts[g * sizes.leasts..(g + 1) * sizes.leasts],
            firsts: &self.firsts[g * sizes.firsts..(g + 1) * sizes.firsts],
            bags: &self.bags[g * sizes.bags..(g + 1) * sizes.bags],
        };
        show(&sums, kept);
    }

    fn passing(&self, group: Group, from: i32, to: i32, condition: &Condition, all: bool, into: &mut Vec<i32>) {
        let held = &self.slots[group as usize];
        let mut sums = held.sums;
        let mut ahead = held.deltas.changes();
        let mut at = from;
        loop {
            while let [(slot, by), rest @ ..] = ahead
                && *slot <= at
            {
                add(&mut sums, by);
                ahead = rest;
            }
            if sums[0] > 0 && condition.holds(&sums) {
                into.push(at);
                if !all {
                    return;
                }
            }
            match ahead.first() {
                Some((slot, _)) if *slot <= to => at = *slot,
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

    /// What tables and keys take; what hot groups have on the heap is estimated by the agenda's entries.
    fn bytes(&self) -> usize {
        let agenda = self.agenda.bytes();
        self.slots.capacity() * size_of::<Slot<L>>()
            + self.key_bytes
            + self.index.capacity() * 5
            + self.leasts.capacity() * size_of::<Least<i64>>()
            + self.firsts.capacity() * size_of::<Least<Value>>()
            + self.bags.capacity() * size_of::<Bag>()
            + self.spans * MEMBER_BYTES
            + self.kept.bytes()
            + agenda
            + agenda / 4 * size_of::<(i32, [i64; L])>()
            + self.values.capacity() * (size_of::<(u128, Run)>() + 1)
            + self.earlier.len() * 64
    }

    fn now(&self) -> i32 {
        self.now
    }
}
