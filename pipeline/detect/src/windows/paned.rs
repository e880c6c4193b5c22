//! A rule kept as panes: rows change their groups' numbers as they come; a boundary looks only at groups that change
//! there, and builds rows only for those that may pass the HAVING.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ahash::RandomState;
use datafusion::error::{DataFusionError, Result};
use event::Micros;
use hashbrown::hash_map::HashMap;

use super::feeds::{Feeds, evaluate_all};
use super::groups::{Group, Panes, Plan, ROWS, SLOTS_MAX, Seen, WARM, panes};
use super::input::Sifted;
use super::keys::Keys;
use super::looks::Looks;
use super::shape::Shape;
use super::slots::{Slots, Span};
use super::{Ahead, Changes, Fed};
use crate::oracle::{self, Entity, Held};
use crate::program::{Selected, run_steps};
use crate::rule::Rule;

pub struct Paned {
    rule: Arc<Rule>,
    shape: Arc<Shape>,
    panes: Box<dyn Panes>,
    /// Boundary numbers are kept relative to this one.
    zero: Option<i64>,
    /// The final boundary while there is no such number.
    reached: Option<i64>,
    /// By group.
    marks: Vec<Mark>,
    /// Groups to be looked at ahead of the final boundary.
    watched: Vec<Group>,
    /// Groups that hold at the final boundary, and their entities.
    holding: HashMap<Group, Arc<Entity>, RandomState>,
    /// How many groups hold, by entity.
    entities: BTreeMap<Arc<Entity>, usize>,
    /// The last boundary that first sees any row.
    head: i32,
    bytes_max: usize,
    scratch: Vec<u8>,
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

/// Boundaries made final together: looking at what changed at each of them costs one evaluation.
struct Pass {
    slots: Vec<i32>,
    /// By slot.
    events: Vec<(i32, Group, What)>,
    looks: Looks,
    /// Groups without rows.
    over: Vec<Group>,
}

enum What {
    /// It may hold: the number of the look that tells.
    Look(usize),
    /// It no longer passes.
    Ended,
    /// For what was found ahead of time.
    Changed,
}

impl Pass {
    fn of(shape: &Shape) -> Pass {
        Pass { slots: Vec::new(), events: Vec::new(), looks: Looks::of(shape), over: Vec::new() }
    }
}

/// What looks found.
struct Answers {
    held: Vec<Option<Held>>,
    nulls: u64,
    failed: Option<DataFusionError>,
}

impl Paned {
    pub fn new(rule: Arc<Rule>, shape: Arc<Shape>, bytes_max: usize) -> Paned {
        let panes = panes(shape.lanes, plan(&rule, &shape, bytes_max), i32::MIN / 2);
        Paned {
            rule,
            shape,
            panes,
            zero: None,
            reached: None,
            marks: Vec::new(),
            watched: Vec::new(),
            holding: HashMap::with_hasher(RandomState::new()),
            entities: BTreeMap::new(),
            head: i32::MIN,
            bytes_max,
            scratch: Vec::new(),
        }
    }

    pub fn part(&self, table: &str) -> Option<usize> {
        self.shape.parts.iter().position(|p| p.input.table == table)
    }

    /// The final boundary is `slot`, before any row came.
    pub fn begin(&mut self, slot: i64) {
        self.zero = Some(slot);
        self.panes = panes(self.shape.lanes, plan(&self.rule, &self.shape, self.bytes_max), 0);
    }

    fn relative(&self, slot: i64) -> Option<i32> {
        let relative = slot.checked_sub(self.zero?)?;
        (relative.abs() < SLOTS_MAX).then_some(relative as i32)
    }

    fn absolute(&self, slot: i32) -> i64 {
        self.zero.unwrap_or(0) + i64::from(slot)
    }

    /// Rows into their groups. What a row's group might now fulfil ahead of the final boundary is noted for [`Paned::ahead`].
    pub fn feed(&mut self, part: usize, sifted: &Sifted, watch: bool, fed: &mut Fed) -> Result<()> {
        let shape = self.shape.clone();
        let part = &shape.parts[part];
        let rows = sifted.rows.num_rows();
        if rows == 0 {
            return Ok(());
        }
        if self.zero.is_none() {
            // Only a number to count from: rows may still come before it.
            self.zero = sifted.spans.iter().filter(|s| s.is_seen()).map(|s| s.enter).min();
            if let Some(slot) = self.reached.and_then(|slot| self.relative(slot)) {
                self.panes.reach(slot);
            }
        }
        let keys = shape.codec.read(&evaluate_all(&part.keys, &sifted.rows)?)?;
        let feeds = Feeds::of(&shape, part, &sifted.rows)?;
        let (mut placed, mut groups) = (Vec::with_capacity(WARM), Vec::with_capacity(WARM));
        for from in (0..rows).step_by(WARM) {
            placed.clear();
            self.place(from..(from + WARM).min(rows), &sifted.spans, &keys, fed, &mut placed);
            groups.clear();
            groups.extend(placed.iter().map(|(_, group, _)| *group));
            self.panes.warm(&groups);
            for (row, group, seen) in placed.iter().copied() {
                fed.kept += 1;
                self.panes.add_row(group, seen);
                if !feeds.add(self.panes.as_mut(), group, seen, row, &mut self.scratch) {
                    fed.refused += 1;
                }
                if watch {
                    self.watch(group, seen.enter);
                }
                self.head = self.head.max(seen.enter);
            }
        }
        Ok(())
    }

    /// The groups of some rows, and what sees them.
    fn place(
        &mut self,
        rows: Range<usize>,
        spans: &[Span],
        keys: &Keys,
        fed: &mut Fed,
        placed: &mut Vec<(usize, Group, Seen)>,
    ) {
        for row in rows.filter(|row| spans[*row].is_seen()) {
            let (Some(enter), Some(leave)) = (self.relative(spans[row].enter), self.relative(spans[row].leave)) else {
                fed.out_of_range += 1;
                continue;
            };
            self.scratch.clear();
            keys.write(row, &mut self.scratch);
            match self.panes.group(&self.scratch) {
                Some(group) => placed.push((row, group, Seen { enter, leave })),
                None => fed.refused += 1,
            }
        }
    }

    fn mark(&mut self, group: Group) -> &mut Mark {
        mark(&mut self.marks, group)
    }

    fn watch(&mut self, group: Group, from: i32) {
        if !self.panes.may_hold(group) {
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

    pub fn next_change(&self) -> Option<i64> {
        self.panes.next_change().map(|slot| self.absolute(slot))
    }

    /// Makes the boundaries up to `to` final at which something changes, `budget` of them at most, and says of each what became
    /// different. What could not be evaluated is left out there; the error is the first reason.
    pub fn step(&mut self, to: i64, budget: usize, watch: bool, told: &mut dyn FnMut(i64, Changes)) -> Result<usize> {
        let (mut steps, mut failed) = (0, None);
        let mut pass = Pass::of(&self.shape);
        while steps < budget
            && let Some(slot) = self.panes.next_change().filter(|slot| self.absolute(*slot) <= to)
        {
            steps += 1;
            self.advance(slot, &mut pass);
            if pass.looks.are_many() {
                failed = failed.or(self.settle(&mut pass, watch, told));
            }
        }
        if self.zero.is_none() {
            self.reached = Some(to);
        } else if self.panes.next_change().is_none_or(|slot| self.absolute(slot) > to)
            && let Some(slot) = self.relative(to)
        {
            self.panes.reach(slot);
        }
        failed = failed.or(self.settle(&mut pass, watch, told));
        failed.map_or(Ok(steps), Err)
    }

    /// The numbers of the groups that change at a boundary, and what is to be looked at there.
    fn advance(&mut self, slot: i32, pass: &mut Pass) {
        let (shape, marks) = (&self.shape, &mut self.marks);
        self.panes.advance(slot, &mut |visited| {
            let group = visited.group;
            let passes = visited.sums[ROWS] > 0 && shape.having.holds(visited.sums);
            let mark = mark(marks, group);
            let passed = std::mem::replace(&mut mark.passes, passes);
            let what = match (passed, passes) {
                (true, true) if shape.exact => None,
                (_, true) => Some(What::Look(pass.looks.add(group, slot, visited.sums, visited.kept))),
                (true, false) => Some(What::Ended),
                (false, false) => None,
            };
            if let Some(what) = what.or(mark.early.then_some(What::Changed)) {
                pass.events.push((slot, group, what));
            }
            if visited.over {
                pass.over.push(group);
            }
        });
        pass.slots.push(slot);
    }

    /// Evaluates what a pass has to look at, all at once, and goes through its boundaries with the answers.
    fn settle(&mut self, pass: &mut Pass, watch: bool, told: &mut dyn FnMut(i64, Changes)) -> Option<DataFusionError> {
        let Answers { mut held, mut nulls, failed } = self.look(&pass.looks);
        let mut events = std::mem::take(&mut pass.events).into_iter().peekable();
        for slot in std::mem::take(&mut pass.slots) {
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
            if watch {
                // What was hidden behind it may hold further ahead.
                hidden.into_iter().for_each(|group| self.watch(group, slot + 1));
            }
            told(self.absolute(slot), changes);
        }
        pass.looks.clear();
        for group in std::mem::take(&mut pass.over) {
            if !self.mark(group).holds && self.panes.release(group) {
                *self.mark(group) = Mark { watched: self.mark(group).watched, ..Mark::default() };
            }
        }
        failed
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

    /// Where groups that were just fed would hold, ahead of the final boundary: the earliest boundary of each.
    pub fn ahead(&mut self, ahead: &mut Vec<Ahead>) -> Result<()> {
        let (mut slots, mut looks) = (Vec::new(), Looks::of(&self.shape));
        let (mut found, mut failed) = (BTreeMap::new(), None);
        let now = self.panes.now();
        let watched = std::mem::take(&mut self.watched);
        for groups in watched.chunks(WARM) {
            self.panes.warm(groups);
            for group in groups.iter().copied() {
                let mark = &mut self.marks[group as usize];
                let Some(from) = mark.watched.take().filter(|_| !mark.holds && !mark.early) else { continue };
                slots.clear();
                let (from, all) = (from.max(now + 1), !self.shape.exact);
                self.panes.passing(group, from, self.head, &self.shape.having, all, &mut slots);
                for slot in &slots {
                    self.panes.at(group, *slot, &mut |sums, kept| {
                        looks.add(group, *slot, sums, kept);
                    });
                    if looks.are_many() {
                        failed = failed.or(self.find(&mut looks, &mut found));
                    }
                }
            }
        }
        failed = failed.or(self.find(&mut looks, &mut found));
        for (group, (slot, held)) in found {
            self.mark(group).early = true;
            ahead.push(Ahead { slot: self.absolute(slot), held });
        }
        failed.map_or(Ok(()), Err)
    }

    /// Of each group the earliest boundary at which it holds.
    fn find(&self, looks: &mut Looks, found: &mut BTreeMap<Group, (i32, Held)>) -> Option<DataFusionError> {
        let Answers { held, failed, .. } = self.look(looks);
        for ((group, slot), held) in looks.places().iter().zip(held) {
            if let Some(held) = held
                && found.get(group).is_none_or(|(have, _)| slot < have)
            {
                found.insert(*group, (*slot, held));
            }
        }
        looks.clear();
        failed
    }

    /// All groups, for an early look at a state that was just rebuilt.
    pub fn watch_all(&mut self) {
        let from = self.panes.now() + 1;
        self.panes.all().into_iter().for_each(|group| self.watch(group, from));
    }

    /// The rows of the SELECT, one or none for each look. Should they fail together, each is tried alone.
    fn look(&self, looks: &Looks) -> Answers {
        let mut answers = Answers { held: vec![None; looks.len()], nulls: 0, failed: None };
        if let Err(error) = self.look_at(looks, 0..looks.len(), &mut answers) {
            answers.nulls = 0;
            answers.failed = Some(error);
            for n in 0..looks.len() {
                answers.held[n] = None;
                drop(self.look_at(looks, n..n + 1, &mut answers));
            }
        }
        answers
    }

    fn look_at(&self, looks: &Looks, which: Range<usize>, answers: &mut Answers) -> Result<()> {
        if which.is_empty() {
            return Ok(());
        }
        let rows = looks.aggregated(&self.shape, which.clone(), &|group| self.panes.key(group))?;
        let Selected { rows, from } = run_steps(&self.shape.rest, &rows)?;
        let places = &looks.places()[which.clone()];
        let at: Vec<Micros> = from.iter().map(|row| self.boundary(places[*row as usize].1)).collect();
        for (row, one) in oracle::held_rows(&self.rule, &rows, &at, &mut answers.nulls)? {
            answers.held[which.start + from[row] as usize] = Some(one);
        }
        Ok(())
    }

    fn boundary(&self, slot: i32) -> Micros {
        let every = self.rule.window.map_or(1, |w| w.every_us);
        self.absolute(slot).saturating_mul(every)
    }

    pub fn bytes(&self) -> usize {
        self.panes.bytes() + self.holding.len() * 64 + self.marks.capacity() * size_of::<Mark>()
    }
}

fn plan(rule: &Rule, shape: &Shape, bytes_max: usize) -> Plan {
    let slides = rule.window.map_or(1, |window| Slots::of(window).panes());
    Plan { kinds: shape.kinds(), span: slides.min(SLOTS_MAX) as i32, rows_min: shape.having.rows_min(), bytes_max }
}

fn mark(marks: &mut Vec<Mark>, group: Group) -> &mut Mark {
    let at = group as usize;
    if at >= marks.len() {
        marks.resize((at + 1).next_power_of_two(), Mark::default());
    }
    &mut marks[at]
}
