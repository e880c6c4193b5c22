//! What groups have besides their sums: least and greatest values, first and last ones, lists.

use std::ops::Range;

use super::bags::Bag;
use super::extremes::Least;
use super::groups::{Group, Seen};
use super::values::{Value, Values};

/// A value of a bag and its boundaries, in a tree.
const MEMBER_BYTES: usize = 96;

/// How many of each a group has.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    pub leasts: usize,
    pub firsts: usize,
    /// By bag: as a set?
    pub bags: Vec<bool>,
}

/// Those of one group.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    pub leasts: &'a [Least<i64>],
    pub firsts: &'a [Least<Value>],
    pub bags: &'a [Bag],
}

/// Those of all groups, one behind the other.
pub struct Extras {
    kinds: Kinds,
    leasts: Vec<Least<i64>>,
    firsts: Vec<Least<Value>>,
    bags: Vec<Bag>,
    /// What is in the latter two.
    values: Values,
    /// In all bags.
    spans: usize,
}

fn places(group: Group, of_each: usize) -> Range<usize> {
    group as usize * of_each..(group as usize + 1) * of_each
}

impl Extras {
    pub fn new(kinds: Kinds) -> Extras {
        let (leasts, firsts, bags) = (Vec::new(), Vec::new(), Vec::new());
        Extras { kinds, leasts, firsts, bags, values: Values::default(), spans: 0 }
    }

    /// There is one more group.
    pub fn grow(&mut self) {
        self.leasts.extend((0..self.kinds.leasts).map(|_| Least::default()));
        self.firsts.extend((0..self.kinds.firsts).map(|_| Least::default()));
        self.bags.extend(self.kinds.bags.iter().map(|once| Bag::new(*once)));
    }

    /// Some of them are to be advanced often: what is ahead of them is not sorted.
    pub fn has_extremes(&self) -> bool {
        self.kinds.leasts > 0 || self.kinds.firsts > 0
    }

    pub fn add_least(&mut self, group: Group, least: usize, seen: Seen, value: i64, now: i32) {
        self.leasts[places(group, self.kinds.leasts)][least].add(seen.enter, seen.leave, value, now);
    }

    pub fn add_first(&mut self, group: Group, first: usize, seen: Seen, value: &[u8], now: i32) {
        let value = self.values.intern(value);
        self.firsts[places(group, self.kinds.firsts)][first].add(seen.enter, seen.leave, value, now);
    }

    pub fn add_member(&mut self, group: Group, bag: usize, seen: Seen, value: &[u8], now: i32) {
        let value = self.values.intern(value);
        let bag = &mut self.bags[places(group, self.kinds.bags.len())][bag];
        let before = bag.spans();
        bag.add(value, seen, now);
        self.spans = self.spans + bag.spans() - before;
    }

    pub fn of(&self, group: Group) -> Kept<'_> {
        Kept {
            leasts: &self.leasts[places(group, self.kinds.leasts)],
            firsts: &self.firsts[places(group, self.kinds.firsts)],
            bags: &self.bags[places(group, self.kinds.bags.len())],
        }
    }

    /// A group at a boundary that is final from now on.
    pub fn advance(&mut self, group: Group, slot: i32) -> Kept<'_> {
        self.leasts[places(group, self.kinds.leasts)].iter_mut().for_each(|least| least.advance(slot));
        self.firsts[places(group, self.kinds.firsts)].iter_mut().for_each(|first| first.advance(slot));
        self.of(group)
    }

    /// A group is over; another may have its number.
    pub fn forget(&mut self, group: Group) {
        self.leasts[places(group, self.kinds.leasts)].fill_with(Least::default);
        self.firsts[places(group, self.kinds.firsts)].fill_with(Least::default);
        for bag in &mut self.bags[places(group, self.kinds.bags.len())] {
            self.spans -= bag.clear();
        }
    }

    /// Of all bags what no boundary behind `now` sees.
    pub fn prune(&mut self, now: i32) {
        self.bags.iter_mut().for_each(|bag| bag.prune(now));
        self.spans = self.bags.iter().map(Bag::spans).sum();
        self.values.sweep();
    }

    pub fn spans(&self) -> usize {
        self.spans
    }

    pub fn bytes(&self) -> usize {
        self.leasts.capacity() * size_of::<Least<i64>>()
            + self.firsts.capacity() * size_of::<Least<Value>>()
            + self.bags.capacity() * size_of::<Bag>()
            + self.spans * MEMBER_BYTES
            + self.values.bytes()
    }
}
