//! The groups of an aggregating rule and their numbers over boundaries. A row changes its group where it is first and
//! last seen, an advance looks only at groups that change there: neither grows with window/slide.
//!
//! Every additive aggregate is one lane of [`Deltas`]; lane 0 counts the rows, so that a group exists while it is
//! positive. A distinct value adds one at the beginning of each run of boundaries that see it ([`Distinct`]) and takes one
//! away behind its end.
//!
//! A group with fewer rows than its HAVING takes at least sleeps: no boundary looks at it for what comes and goes. It is
//! brought up to date when it may have enough, and looked at once a window to see whether it is over. Most groups of most
//! rules never wake.

use ahash::RandomState;
use hashbrown::HashTable;

use super::agenda::Agenda;
use super::condition::Condition;
use super::deltas::{Deltas, Entry as Delta, Gone};
use super::distinct::{Distinct, Joined};
use super::extras::{Extras, Kept, Kinds};
use crate::fault::{self, Fault};

/// Slots are kept relative to the first one met: 2^31 slides of a second are 68 years.
pub const SLOTS_MAX: i64 = 1 << 30;

/// New groups, or members of bags, after which the budget is looked at.
const BUDGET_CHECK: usize = 1_024;

/// A group that wakes looks again wherever its rows still go, so that it sleeps only when a part of them is gone, one in so
/// many, and little else is left of them.
const SLEEPS: i32 = 4;

/// Members of so many bytes count as many.
const MEMBER_LARGE: usize = 16 << 10;

/// The lane that counts a group's rows.
pub const ROWS: usize = 0;

pub type Group = u32;

/// A row's boundaries, relative.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub enter: i32,
    pub leave: i32,
}

struct Slot<const L: usize> {
    key: Box<[u8]>,
    /// The boundary up to which changes are in `sums`. Nothing changed since that it was to be looked at for.
    folded: i32,
    /// Of `deltas`, at hand.
    first: i32,
    /// Until when somebody will look at it; [`AWAKE`] if that is wherever anything changes.
    arranged: i32,
    /// How many rows a boundary behind `folded` sees at most. Too many to count: [`i32::MAX`], for as long as it lives.
    rows: i32,
    sums: [i64; L],
    deltas: Deltas<L>,
}

const AWAKE: i32 = i32::MAX;

impl<const L: usize> Slot<L> {
    fn new(key: &[u8], now: i32) -> Slot<L> {
        Slot {
            key: key.into(),
            folded: now,
            first: i32::MAX,
            arranged: i32::MIN,
            rows: 0,
            sums: [0; L],
            deltas: Deltas::default(),
        }
    }

    fn is_awake(&self) -> bool {
        self.arranged == AWAKE
    }

    /// What comes and goes up to a boundary is in `sums` from now on; returns how many entries that took.
    fn fold_until(&mut self, slot: i32, span: i32) -> usize {
        self.folded = slot;
        let Gone { entries, first_lane } = self.deltas.fold_until(slot, span, &mut self.first, &mut self.sums);
        if self.rows < i32::MAX {
            self.rows -= first_lane as i32;
        }
        entries
    }

    /// Where the last of what is known of it is over.
    fn end(&self, span: i32) -> Option<i32> {
        self.deltas.boundaries().next_back().map(|at| at.saturating_add(span))
    }
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
    /// A row, before what its lanes take from it.
    fn add_row(&mut self, group: Group, seen: Seen);
    fn add(&mut self, group: Group, seen: Seen, lane: usize, value: i64);
    /// One value counted by a distinct lane.
    fn add_distinct(&mut self, group: Group, seen: Seen, lane: usize, value: &[u8]);
    fn add_least(&mut self, group: Group, seen: Seen, least: usize, value: i64);
    fn add_first(&mut self, group: Group, seen: Seen, first: usize, value: &[u8]);
    /// A value of a bag; false while more would exceed the budget.
    fn add_member(&mut self, group: Group, seen: Seen, bag: usize, value: &[u8]) -> bool;
    /// It has as many rows as the HAVING takes at least.
    fn may_hold(&self, group: Group) -> bool;
    /// Some groups, [`WARM`] at most, are about to be asked about.
    fn warm(&self, groups: &[Group]);
    /// The next boundary at which anything changes.
    fn next_change(&self) -> Option<i32>;
    /// Boundaries up to this one are final: there is no change left.
    fn reach(&mut self, slot: i32);
    /// Makes a boundary final and shows the groups that changed there, each once, but for those that sleep.
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

/// What groups need to know of their rule.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub kinds: Kinds,
    /// Boundaries that see a row which is not late.
    pub span: i32,
    /// Rows of a group that holds, at least.
    pub rows_min: i64,
    pub bytes_max: usize,
}

pub fn panes(lanes: usize, plan: Plan, now: i32) -> Box<dyn Panes> {
    match lanes {
        0..=1 => Box::new(Groups::<1>::new(plan, now)),
        2 => Box::new(Groups::<2>::new(plan, now)),
        3..=4 => Box::new(Groups::<4>::new(plan, now)),
        _ => Box::new(Groups::<LANES_MAX>::new(plan, now)),
    }
}

struct Groups<const L: usize> {
    index: HashTable<Group>,
    hasher: RandomState,
    slots: Vec<Slot<L>>,
    free: Vec<Group>,
    extras: Extras,
    agenda: Agenda,
    /// Boundaries that see a row which is not late.
    span: i32,
    /// Groups with fewer rows sleep.
    wakes: i32,
    /// Of the deltas of all groups.
    entries: usize,
    distinct: Distinct,
    now: i32,
    key_bytes: usize,
    bytes_max: usize,
    full: bool,
}

impl<const L: usize> Groups<L> {
    fn new(plan: Plan, now: i32) -> Self {
        let Plan { kinds, span, rows_min, bytes_max } = plan;
        Groups {
            index: HashTable::new(),
            hasher: RandomState::new(),
            slots: Vec::new(),
            free: Vec::new(),
            extras: Extras::new(kinds),
            agenda: Agenda::new(span),
            span,
            wakes: rows_min.clamp(0, i64::from(i32::MAX)) as i32,
            entries: 0,
            distinct: Distinct::new(),
            now,
            key_bytes: 0,
            bytes_max,
            full: false,
        }
    }

    /// Adds `by` from a boundary on.
    fn come(&mut self, group: Group, at: i32, lane: usize, by: i64) {
        let slot = &mut self.slots[group as usize];
        let changes = if at <= slot.folded {
            slot.sums[lane] = slot.sums[lane].wrapping_add(by);
            // Seen at the next final boundary at the earliest.
            self.now + 1
        } else if slot.deltas.add(slot.folded, at, lane, by) {
            slot.first = slot.first.min(at);
            self.entries += 1;
            at
        } else {
            return;
        };
        if slot.is_awake() {
            self.agenda.push(self.now, changes, group);
        }
    }

    /// Takes `by` away from a boundary on.
    fn go(&mut self, group: Group, at: i32, lane: usize, by: i64) {
        let slot = &mut self.slots[group as usize];
        let came = at.saturating_sub(self.span);
        let changes = if at <= slot.folded {
            slot.sums[lane] = slot.sums[lane].wrapping_sub(by);
            self.now + 1
        } else if slot.deltas.take(slot.folded, came, lane, by) {
            slot.first = slot.first.min(came);
            self.entries += 1;
            came
        } else {
            return;
        };
        if slot.is_awake() {
            self.agenda.push(self.now, changes, group);
        }
    }

    /// What came and went while a group slept is in its sums from now on.
    fn catch_up(&mut self, group: Group) {
        let slot = &mut self.slots[group as usize];
        if slot.folded < self.now {
            self.entries -= slot.fold_until(self.now, self.span);
            self.extras.advance(group, self.now);
        }
    }

    /// A row was added to a group: it may wake.
    fn count_row(&mut self, group: Group, seen: Seen) {
        let slot = &mut self.slots[group as usize];
        slot.rows = slot.rows.saturating_add(i32::from(seen.leave >= slot.folded));
        if slot.is_awake() {
            return;
        }
        if slot.rows >= self.wakes {
            self.catch_up(group);
        }
        let now = self.now;
        let slot = &mut self.slots[group as usize];
        if slot.rows >= self.wakes {
            slot.arranged = AWAKE;
            if seen.enter <= now {
                self.agenda.push(now, now + 1, group);
            }
            let from = if fault::is(Fault::WokenHalf) { seen.enter } else { i32::MIN };
            slot.deltas.boundaries().filter(|at| *at >= from).for_each(|at| self.agenda.push(now, at, group));
        } else if slot.arranged <= now {
            self.arrange(group);
        }
    }

    /// A group that sleeps is looked at where the last of what is known of it is over.
    fn arrange(&mut self, group: Group) {
        let next = self.now + 1;
        let slot = &mut self.slots[group as usize];
        slot.arranged = slot.end(self.span).map_or(next, |end| end.max(next));
        self.agenda.push(self.now, slot.arranged.saturating_sub(self.span), group);
    }

    fn tidy(&mut self) {
        self.distinct.sweep(self.now);
        if self.full {
            // Nothing is added to bags meanwhile, so that they would not look for what is over by themselves.
            self.extras.prune(self.now);
            self.full = self.bytes() > self.bytes_max;
        }
    }
}

/// Reads a little of each of some groups that are about to be looked at. They lie anywhere in memory: read one after the
/// other by work that depends on what was read, each is waited for; read by this, they come at the same time.
fn warm<const L: usize>(slots: &[Slot<L>], groups: &[Group]) {
    let all = groups.iter().fold(0, |all, group| all ^ slots[*group as usize].deltas.touch());
    std::hint::black_box(all);
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
        let slot = Slot::new(key, self.now);
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

    fn add_row(&mut self, group: Group, seen: Seen) {
        // A group that sleeps need not be up to date, but what is not a sum is looked through at each row.
        if self.slots[group as usize].is_awake() || self.extras.has_extremes() {
            self.catch_up(group);
        }
        self.add(group, seen, ROWS, 1);
        self.count_row(group, seen);
    }

    fn add(&mut self, group: Group, seen: Seen, lane: usize, value: i64) {
        self.come(group, seen.enter, lane, value);
        let behind = seen.leave + i32::from(!fault::is(Fault::ClosedTwice));
        self.go(group, behind, lane, value);
    }

    fn add_distinct(&mut self, group: Group, seen: Seen, lane: usize, value: &[u8]) {
        match self.distinct.add((group, lane), value, (seen.enter, seen.leave), self.now) {
            Joined::Nothing => {}
            Joined::New => {
                self.come(group, seen.enter, lane, 1);
                self.go(group, seen.leave + 1, lane, 1);
            }
            Joined::Longer { from, to } => {
                self.go(group, from + 1, lane, -1);
                self.go(group, to + 1, lane, 1);
            }
            Joined::Among { met, joined } => {
                for (first, last) in met {
                    self.come(group, first, lane, -1);
                    self.go(group, last + 1, lane, -1);
                }
                self.come(group, joined.0, lane, 1);
                self.go(group, joined.1 + 1, lane, 1);
            }
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

    fn may_hold(&self, group: Group) -> bool {
        self.slots[group as usize].is_awake()
    }

    fn reach(&mut self, slot: i32) {
        if slot > self.now {
            self.now = slot;
            self.agenda.pass(slot);
            self.tidy();
        }
    }

    fn advance(&mut self, slot: i32, visit: &mut dyn FnMut(Visited<'_>)) {
        self.now = self.now.max(slot);
        let (slots, extras, entries, span) = (&mut self.slots, &mut self.extras, &mut self.entries, self.span);
        let few = self.wakes - self.wakes / SLEEPS;
        let mut again = Vec::new();
        self.agenda.take_until(slot, |groups| {
            for groups in groups.chunks(WARM) {
                warm(slots, groups);
                for group in groups.iter().copied() {
                    let held = &mut slots[group as usize];
                    // A group's number may have been used again since.
                    if held.folded == slot {
                        continue;
                    }
                    *entries -= held.fold_until(slot, span);
                    let kept = extras.advance(group, slot);
                    if held.is_awake() && held.rows < few && held.deltas.len() <= 2 * few as usize {
                        held.arranged = held.end(span).unwrap_or(slot);
                    } else if held.arranged <= slot && !held.deltas.is_empty() {
                        again.push(group);
                    }
                    let ahead = !held.deltas.is_empty() && !fault::is(Fault::ForgottenEarly);
                    let over = held.sums[ROWS] <= 0 && !ahead;
                    visit(Visited { group, sums: &held.sums, kept, over });
                }
            }
        });
        again.into_iter().for_each(|group| self.arrange(group));
        self.tidy();
    }

    fn release(&mut self, group: Group) -> bool {
        let slot = &mut self.slots[group as usize];
        let ahead = !slot.deltas.is_empty() && !fault::is(Fault::ForgottenEarly);
        if slot.sums[ROWS] > 0 || ahead || slot.key.is_empty() {
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
        held.deltas.ahead(self.span, held.first).go_to(slot, &mut sums);
        show(&sums, self.extras.of(group));
    }

    fn passing(&self, group: Group, from: i32, to: i32, condition: &Condition, all: bool, into: &mut Vec<i32>) {
        let held = &self.slots[group as usize];
        let mut sums = held.sums;
        let mut ahead = held.deltas.ahead(self.span, held.first);
        let mut at = from;
        loop {
            ahead.go_to(at, &mut sums);
            if sums[ROWS] > 0 && condition.holds(&sums) {
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

    /// What tables and keys take; what groups of several entries have on the heap is estimated.
    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<L>>()
            + self.key_bytes
            + self.index.capacity() * 5
            + self.extras.bytes()
            + self.agenda.bytes()
            + self.entries * size_of::<Delta<L>>() * 3 / 2
            + self.distinct.bytes()
    }

    fn now(&self) -> i32 {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::condition::Compare;
    use super::*;

    /// A group that lives on must not be shut out of its own lists for good.
    #[test]
    fn lists_that_are_full_take_values_again_when_others_are_over() {
        const MAX: usize = 1 << 20;
        let kinds = Kinds { bags: vec![true], ..Kinds::default() };
        let mut panes = panes(1, Plan { kinds, span: 10, rows_min: 0, bytes_max: MAX }, 0);
        let group = panes.group(b"hot").expect("there is room");
        let add = |panes: &mut dyn Panes, slot: i32, n: u32| {
            let seen = Seen { enter: slot, leave: slot + 9 };
            panes.add_row(group, seen);
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

    /// Against the rows themselves: wherever a group has as many rows as it takes, or had them just before, what changes is
    /// seen, and what is seen is right.
    #[test]
    fn groups_that_sleep_miss_nothing() {
        for seed in 0..2_000 {
            let mut random = StdRng::seed_from_u64(seed);
            let (span, rows_min) = (random.random_range(1..20), random.random_range(0..7));
            let plan = Plan { span, rows_min, bytes_max: usize::MAX, ..Plan::default() };
            let (mut panes, mut rows, mut now, mut last) = (panes(1, plan, 0), Vec::<Seen>::new(), 0, 0);
            let condition = Condition::Compare { lane: ROWS, op: Compare::GreaterOrEqual, to: rows_min };
            for _ in 0..200 {
                if random.random_bool(0.6) {
                    let enter = (now + random.random_range(-2..8)).max(0);
                    // Late: it goes before others that came with it.
                    let leave = enter.max(now + 1) + random.random_range(0..span);
                    let seen = Seen { enter, leave: leave.min(enter + span - 1) };
                    let group = panes.group(b"a").expect("there is room");
                    panes.add_row(group, seen);
                    rows.push(seen);
                    let ahead = now + random.random_range(1..30);
                    let count =
                        |slot| rows.iter().filter(|seen| seen.enter <= slot && slot <= seen.leave).count() as i64;
                    panes.at(group, ahead, &mut |sums, _| assert_eq!(sums[ROWS], count(ahead), "seed {seed}"));
                    let mut passing = Vec::new();
                    panes.passing(group, now + 1, i32::MAX, &condition, false, &mut passing);
                    let expected = (now + 1..now + 100).find(|slot| count(*slot) > 0 && count(*slot) >= rows_min);
                    assert_eq!(passing.first().copied(), expected, "seed {seed}");
                    assert!(panes.may_hold(group) || expected.is_none(), "seed {seed}");
                    continue;
                }
                let to = now + random.random_range(1..12);
                let mut seen_at = BTreeMap::new();
                while let Some(slot) = panes.next_change().filter(|slot| *slot <= to) {
                    let mut over = None;
                    panes.advance(slot, &mut |visited| {
                        seen_at.insert(slot, visited.sums[ROWS]);
                        over = visited.over.then_some(visited.group);
                    });
                    over.map(|group| panes.release(group));
                }
                panes.reach(to);
                for slot in now + 1..=to {
                    let count = rows.iter().filter(|seen| seen.enter <= slot && slot <= seen.leave).count() as i64;
                    let seen = seen_at.get(&slot);
                    assert!(
                        seen.is_none_or(|seen| *seen == count),
                        "seed {seed}, boundary {slot}: {seen:?}, not {count}"
                    );
                    let matters = count != last && count.max(last) >= rows_min;
                    assert!(seen.is_some() || !matters, "seed {seed}, boundary {slot}: {last}, then {count}");
                    last = count;
                }
                now = to;
            }
            while let Some(slot) = panes.next_change() {
                assert!(slot <= now + 10 + span, "seed {seed}: nothing is that far away");
                let mut over = None;
                panes.advance(slot, &mut |visited| over = visited.over.then_some(visited.group));
                over.map(|group| panes.release(group));
            }
            assert_eq!(panes.all(), Vec::<Group>::new(), "seed {seed}: what is over is forgotten");
        }
    }

    #[test]
    fn a_group_of_few_rows_is_looked_at_once_a_window() {
        let plan = Plan { span: 1_000, rows_min: 12, bytes_max: usize::MAX, ..Plan::default() };
        let mut panes = panes(1, plan, 0);
        let (mut looks, group) = (0, panes.group(b"a").expect("there is room"));
        // Ten in a window, for ten windows.
        for slot in (1..10_000).step_by(100) {
            panes.add_row(group, Seen { enter: slot, leave: slot + 999 });
            assert!(!panes.may_hold(group));
            while let Some(change) = panes.next_change().filter(|change| *change <= slot) {
                panes.advance(change, &mut |_| looks += 1);
            }
            panes.reach(slot);
        }
        assert!((10..=21).contains(&looks), "{looks} looks");
        // Two more at once.
        (0..2).for_each(|_| panes.add_row(group, Seen { enter: 9_902, leave: 10_901 }));
        assert!(panes.may_hold(group));
    }

    /// Late rows leave long before what is known of them is over.
    #[test]
    fn waking_again_and_again_takes_no_more_room() {
        let plan = Plan { span: 6_000, rows_min: 2, bytes_max: usize::MAX, ..Plan::default() };
        let mut panes = panes(1, plan, 0);
        for slot in (1..30_000).step_by(4) {
            let group = panes.group(b"a").expect("there is room");
            (0..2).for_each(|_| panes.add_row(group, Seen { enter: slot, leave: slot + 1 }));
            assert!(panes.may_hold(group));
            while let Some(change) = panes.next_change().filter(|change| *change <= slot + 2) {
                panes.advance(change, &mut |_| {});
            }
            panes.reach(slot + 2);
        }
        assert!(panes.bytes() < 1 << 20, "{} bytes", panes.bytes());
    }
}
