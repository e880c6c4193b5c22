//! One rule over panes, which it may share with others: which groups hold for it, and what became different.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ahash::RandomState;
use datafusion::error::{DataFusionError, Result};
use event::Micros;
use hashbrown::hash_map::HashMap;

use super::groups::{Group, Panes, ROWS, Visited, WARM};
use super::looks::Looks;
use super::shape::Shape;
use super::{Ahead, Changes};
use crate::oracle::{self, Entity, Held};
use crate::program::{Selected, run_steps};
use crate::rule::Rule;

pub struct Judge {
    rule: Arc<Rule>,
    shape: Arc<Shape>,
    /// It looks ahead of the final boundary.
    early: bool,
    /// By group.
    marks: Vec<Mark>,
    /// Groups to be looked at ahead of the final boundary.
    watched: Vec<Group>,
    /// Groups that hold at the final boundary, and their entities.
    holding: HashMap<Group, Arc<Entity>, RandomState>,
    /// How many groups hold, by entity.
    entities: BTreeMap<Arc<Entity>, usize>,
    /// Of the boundaries that are being made final, by boundary.
    events: Vec<(i32, Group, What)>,
    looks: Looks,
    /// Why something could not be evaluated, the first reason.
    failed: Option<DataFusionError>,
}

/// Where a group stands.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Passes the HAVING at the final boundary.
    passes: bool,
    /// Its entity holds at the final boundary.
    holds: bool,
    /// An early look found it to hold ahead.
    early: bool,
    /// From this boundary on it is to be looked at.
    watched: Option<i32>,
}

enum What {
    /// It may hold: the number of the look that tells.
    Look(usize),
    /// It no longer passes.
    Ended,
    /// For what was found ahead of time.
    Changed,
}

/// What looks found.
struct Answers {
    held: Vec<Option<Held>>,
    nulls: u64,
    failed: Option<DataFusionError>,
}

/// The panes, and the boundary from which theirs are counted.
#[derive(Clone, Copy)]
pub struct Over<'a> {
    pub panes: &'a dyn Panes,
    pub zero: i64,
}

impl Judge {
    /// `rule` has panes.
    pub fn new(rule: &Arc<Rule>) -> Judge {
        let shape = rule.windowed().panes().clone();
        Judge {
            rule: rule.clone(),
            early: rule.windowed().early.is_ok(),
            marks: Vec::new(),
            watched: Vec::new(),
            holding: HashMap::with_hasher(RandomState::new()),
            entities: BTreeMap::new(),
            events: Vec::new(),
            looks: Looks::of(&shape),
            failed: None,
            shape,
        }
    }

    pub fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    /// How many rows a group has at least that holds.
    pub fn rows_min(&self) -> i64 {
        self.shape.having.rows_min()
    }

    pub fn take_failure(&mut self) -> Option<DataFusionError> {
        self.failed.take()
    }

    fn mark(&mut self, group: Group) -> &mut Mark {
        let at = group as usize;
        if at >= self.marks.len() {
            self.marks.resize((at + 1).next_power_of_two(), Mark::default());
        }
        &mut self.marks[at]
    }

    /// A group has to be looked at ahead of the final boundary, `from` a boundary on.
    pub fn watch(&mut self, panes: &dyn Panes, group: Group, from: i32) {
        if !self.early || !panes.may_hold(group) {
            return;
        }
        let mark = self.mark(group);
        if mark.holds || mark.early {
            return;
        }
        match &mut mark.watched {
            Some(have) => *have = (*have).min(from),
            none => {
                *none = Some(from);
                self.watched.push(group);
            }
        }
    }

    /// A group that changed at a boundary that is made final.
    pub fn visit(&mut self, slot: i32, visited: &Visited<'_>) {
        let passes = visited.sums[ROWS] > 0 && self.shape.having.holds(visited.sums);
        let exact = self.shape.exact;
        let mark = self.mark(visited.group);
        let passed = std::mem::replace(&mut mark.passes, passes);
        let early = mark.early;
        let what = match (passed, passes) {
            (true, true) if exact => None,
            (_, true) => Some(What::Look(self.looks.add(visited.group, slot, visited.sums, visited.kept))),
            (true, false) => Some(What::Ended),
            (false, false) => None,
        };
        if let Some(what) = what.or(early.then_some(What::Changed)) {
            self.events.push((slot, visited.group, what));
        }
    }

    /// Time to settle what was visited.
    pub fn has_many_looks(&self) -> bool {
        self.looks.are_many()
    }

    /// Evaluates what there is to look at, all at once, and goes through the boundaries with the answers.
    pub fn settle(&mut self, over: Over<'_>, slots: &[i32], told: &mut dyn FnMut(i32, Changes)) {
        let Answers { mut held, mut nulls, failed } = self.look(over, &self.looks);
        self.failed = self.failed.take().or(failed);
        let mut events = std::mem::take(&mut self.events).into_iter().peekable();
        for slot in slots.iter().copied() {
            let mut changes = Changes { null_entities: std::mem::take(&mut nulls), ..Changes::default() };
            let (mut began, mut ended, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
            while let Some((_, group, what)) = events.next_if(|(at, ..)| *at == slot) {
                let mark = self.mark(group);
                let (held_before, was_early) = (mark.holds, std::mem::take(&mut mark.early));
                let now = match what {
                    What::Look(look) => held[look].take(),
                    What::Ended => None,
                    What::Changed if held_before => continue,
                    What::Changed => None,
                };
                mark.holds = now.is_some();
                match now {
                    Some(held) if !held_before => began.push((group, held)),
                    Some(_) => {}
                    None => {
                        if held_before {
                            ended.push(group);
                        }
                        if held_before || was_early {
                            hidden.push(group);
                        }
                    }
                }
            }
            self.come_and_go(began, ended, &mut changes);
            // What was hidden behind it may hold further ahead.
            hidden.into_iter().for_each(|group| self.watch(over.panes, group, slot + 1));
            told(slot, changes);
        }
        self.looks.clear();
    }

    pub fn holds(&self, group: Group) -> bool {
        self.marks.get(group as usize).is_some_and(|mark| mark.holds)
    }

    /// A group is no more.
    pub fn forget(&mut self, group: Group) {
        if let Some(mark) = self.marks.get_mut(group as usize) {
            *mark = Mark { watched: mark.watched, ..Mark::default() };
        }
    }

    /// Groups into and out of what holds; several may be of one entity.
    fn come_and_go(&mut self, began: Vec<(Group, Held)>, ended: Vec<Group>, changes: &mut Changes) {
        if began.is_empty() && ended.is_empty() {
            return;
        }
        let mut before: BTreeMap<Arc<Entity>, bool> = BTreeMap::new();
        let mut new: BTreeMap<Arc<Entity>, Held> = BTreeMap::new();
        for group in ended {
            let entity = self.holding.remove(&group).expect("it held");
            let count = self.entities.get_mut(&entity).expect("one of its groups held");
            *count -= 1;
            if *count == 0 {
                self.entities.remove(&entity);
            }
            before.insert(entity, true);
        }
        for (group, held) in began {
            let entity = Arc::new(held.entity.clone());
            let count = self.entities.entry(entity.clone()).or_insert(0);
            before.entry(entity.clone()).or_insert(*count > 0);
            *count += 1;
            self.holding.insert(group, entity.clone());
            oracle::join(&mut new, entity, held);
        }
        for (entity, held) in before {
            match (held, self.entities.contains_key(&entity)) {
                (false, true) => changes.began.extend(new.remove(&entity)),
                (true, false) => changes.ended.push(entity.as_ref().clone()),
                _ => {}
            }
        }
    }

    /// Where groups that were just fed would hold, ahead of the final boundary: the earliest boundary of each. `head` is the
    /// last that first sees any row.
    pub fn ahead(&mut self, over: Over<'_>, head: i32, ahead: &mut Vec<Ahead>) {
        let (mut slots, mut looks) = (Vec::new(), Looks::of(&self.shape));
        let mut found = BTreeMap::new();
        let now = over.panes.now();
        let watched = std::mem::take(&mut self.watched);
        for groups in watched.chunks(WARM) {
            over.panes.warm(groups);
            for group in groups.iter().copied() {
                let mark = &mut self.marks[group as usize];
                let Some(from) = mark.watched.take().filter(|_| !mark.holds && !mark.early) else { continue };
                slots.clear();
                let (from, all) = (from.max(now + 1), !self.shape.exact);
                over.panes.passing(group, from, head, &self.shape.having, all, &mut slots);
                for slot in &slots {
                    over.panes.at(group, *slot, &mut |sums, kept| {
                        looks.add(group, *slot, sums, kept);
                    });
                    if looks.are_many() {
                        self.find(over, &mut looks, &mut found);
                    }
                }
            }
        }
        self.find(over, &mut looks, &mut found);
        for (group, (slot, held)) in found {
            self.mark(group).early = true;
            ahead.push(Ahead { slot: over.zero + i64::from(slot), held });
        }
    }

    /// Of each group the earliest boundary at which it holds.
    fn find(&mut self, over: Over<'_>, looks: &mut Looks, found: &mut BTreeMap<Group, (i32, Held)>) {
        let Answers { held, failed, .. } = self.look(over, looks);
        self.failed = self.failed.take().or(failed);
        for ((group, slot), held) in looks.places().iter().zip(held) {
            if let Some(held) = held
                && found.get(group).is_none_or(|(have, _)| slot < have)
            {
                found.insert(*group, (*slot, held));
            }
        }
        looks.clear();
    }

    /// The rows of the SELECT, one or none for each look. Should they fail together, each is tried alone.
    fn look(&self, over: Over<'_>, looks: &Looks) -> Answers {
        let mut answers = Answers { held: vec![None; looks.len()], nulls: 0, failed: None };
        if let Err(error) = self.look_at(over, looks, 0..looks.len(), &mut answers) {
            answers.nulls = 0;
            answers.failed = Some(error);
            for n in 0..looks.len() {
                answers.held[n] = None;
                drop(self.look_at(over, looks, n..n + 1, &mut answers));
            }
        }
        answers
    }

    fn look_at(&self, over: Over<'_>, looks: &Looks, which: Range<usize>, answers: &mut Answers) -> Result<()> {
        if which.is_empty() {
            return Ok(());
        }
        let rows = looks.aggregated(&self.shape, which.clone(), &|group| over.panes.key(group))?;
        let Selected { rows, from } = run_steps(&self.shape.rest, &rows)?;
        let places = &looks.places()[which.clone()];
        let every = self.rule.windowed().window.every_us;
        let boundary = |slot: i32| -> Micros { (over.zero + i64::from(slot)).saturating_mul(every) };
        let at: Vec<Micros> = from.iter().map(|row| boundary(places[*row as usize].1)).collect();
        for (row, one) in oracle::held_rows(&self.rule, &rows, &at, &mut answers.nulls)? {
            answers.held[which.start + from[row] as usize] = Some(one);
        }
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        self.holding.len() * 64 + self.marks.capacity() * size_of::<Mark>()
    }
}
