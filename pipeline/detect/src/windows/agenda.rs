//! Which groups are to be looked at at which boundary: where something comes, and `span` boundaries later, where it goes.

use std::collections::{BTreeMap, VecDeque};

use super::groups::Group;
use crate::fault::{self, Fault};

/// Boundaries ahead that have a place of their own; those further on are kept sorted.
const NEAR: usize = 16_384;

/// So many lists that are over are kept for those to come.
const SPARE: usize = 8;

/// Groups are in it repeatedly, and also at boundaries where nothing of theirs changes.
#[derive(Default)]
pub struct Agenda {
    span: i32,
    /// Of boundaries `base`, `base + 1`, …
    near: VecDeque<Vec<Group>>,
    base: i32,
    far: BTreeMap<i32, Vec<Group>>,
    /// Of boundaries that have been: ascending.
    past: VecDeque<(i32, Vec<Group>)>,
    /// Empty lists that have room.
    spare: Vec<Vec<Group>>,
    entries: usize,
}

impl Agenda {
    pub fn new(span: i32) -> Agenda {
        Agenda { span, ..Agenda::default() }
    }

    /// Something of a group comes at a boundary, ahead of `now`, or came less than a span ago.
    pub fn push(&mut self, now: i32, at: i32, group: Group) {
        self.entries += 1;
        if at <= now {
            match self.past.binary_search_by_key(&at, |(at, _)| *at) {
                Ok(place) => self.past[place].1.push(group),
                Err(place) => self.past.insert(place, (at, vec![group])),
            }
            return;
        }
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
        let groups = &mut self.near[place];
        if groups.capacity() == 0 {
            *groups = self.spare.pop().unwrap_or_default();
        }
        groups.push(group);
    }

    /// The next boundary at which somebody is to be looked at.
    pub fn first(&self) -> Option<i32> {
        let goes = self.past.front().map(|(at, _)| at.saturating_add(self.span));
        [self.comes(), goes].into_iter().flatten().min()
    }

    fn comes(&self) -> Option<i32> {
        let near = self.near.iter().position(|groups| !groups.is_empty()).map(|n| self.base + n as i32);
        let far = self.far.first_key_value().map(|(at, _)| *at);
        [near, far].into_iter().flatten().min()
    }

    /// The groups of a boundary ahead, and of none before it.
    fn take(&mut self, at: i32) -> Vec<Group> {
        let mut taken = self.far.remove(&at).unwrap_or_default();
        while !self.near.is_empty() && self.base <= at {
            let mut groups = self.near.pop_front().expect("it is not empty");
            self.base += 1;
            match taken.is_empty() {
                true => taken = groups,
                false => taken.append(&mut groups),
            }
        }
        taken
    }

    /// Everybody who is to be looked at up to a boundary.
    pub fn take_until(&mut self, slot: i32, mut each: impl FnMut(&[Group])) {
        while let Some(at) = self.comes().filter(|at| *at <= slot) {
            let groups = self.take(at);
            each(&groups);
            self.past.push_back((at, groups));
        }
        while let Some((_, mut groups)) = self.past.pop_front_if(|(at, _)| at.saturating_add(self.span) <= slot) {
            self.entries -= groups.len();
            if !fault::is(Fault::ExpiryNotSeen) {
                each(&groups);
            }
            if self.spare.len() < SPARE {
                groups.clear();
                self.spare.push(groups);
            }
        }
    }

    /// Boundaries up to `slot` are over, at which nobody was to be looked at.
    pub fn pass(&mut self, slot: i32) {
        while self.base <= slot
            && let Some(nobody) = self.near.pop_front()
        {
            debug_assert!(nobody.is_empty(), "boundary {} was not looked at", self.base);
            self.base += 1;
        }
    }

    pub fn bytes(&self) -> usize {
        self.entries * 6 + (self.near.len() + 3 * self.far.len() + self.past.len()) * 32
    }
}
