//! Rules kept as panes: rows change their groups' numbers as they come; a boundary looks only at groups that change there,
//! and builds rows only for those that may pass the HAVING. Rules of one family, see [`super::family`], have one set of
//! panes; what each makes of them is its [`Judge`]'s.

use std::ops::Range;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};

use super::feeds::{Feeds, evaluate_all};
use super::groups::{Group, Panes, Plan, SLOTS_MAX, Seen, WARM, panes};
use super::input::{Failed, Sifted, both};
use super::judge::{Judge, Over};
use super::keys::Keys;
use super::shape::Shape;
use super::slots::{Slots, Span};
use super::{Ahead, Changes, Fed};
use crate::fault::{self, Fault};
use crate::rule::Rule;

pub struct Paned {
    /// Of what the rules have in common.
    shape: Arc<Shape>,
    slots: Slots,
    panes: Box<dyn Panes>,
    /// At least one.
    judges: Vec<Judge>,
    /// Boundary numbers are kept relative to this one.
    zero: Option<i64>,
    /// The final boundary while there is no such number.
    reached: Option<i64>,
    /// The last boundary that first sees any row.
    head: i32,
    bytes_max: usize,
    scratch: Vec<u8>,
}

/// Boundaries made final together: looking at what changed at each of them costs one evaluation.
#[derive(Default)]
struct Pass {
    slots: Vec<i32>,
    /// Groups without rows.
    over: Vec<Group>,
}

impl Paned {
    /// `rules` are one family.
    pub fn new(rules: &[Arc<Rule>], slots: Slots, bytes_max: usize) -> Paned {
        let shape = rules[0].windowed().panes().clone();
        let judges: Vec<Judge> = rules.iter().map(Judge::new).collect();
        let panes = panes(shape.lanes, plan(&shape, &judges, slots, bytes_max), i32::MIN / 2);
        Paned { shape, slots, panes, judges, zero: None, reached: None, head: i32::MIN, bytes_max, scratch: Vec::new() }
    }

    pub fn part(&self, table: &str) -> Option<usize> {
        self.shape.parts.iter().position(|p| p.input.table == table)
    }

    /// The final boundary is `slot`, before any row came.
    pub fn begin(&mut self, slot: i64) {
        self.zero = Some(slot);
        self.panes = panes(self.shape.lanes, plan(&self.shape, &self.judges, self.slots, self.bytes_max), 0);
    }

    /// Of the rules, only those go on here.
    pub fn retain(&mut self, stays: impl Fn(&Rule) -> bool) {
        self.judges.retain(|judge| stays(judge.rule()));
    }

    fn relative(&self, slot: i64) -> Option<i32> {
        let relative = slot.checked_sub(self.zero?)?;
        (relative.abs() < SLOTS_MAX).then_some(relative as i32)
    }

    fn absolute(&self, slot: i32) -> i64 {
        self.zero.unwrap_or(0) + i64::from(slot)
    }

    /// Rows into their groups. What a row's group might now fulfil ahead of the final boundary is noted for [`Paned::ahead`].
    pub fn feed(&mut self, part: usize, sifted: &Sifted, watch: bool, fed: &mut Fed) -> Result<Failed> {
        if sifted.rows.num_rows() == 0 {
            return Ok(None);
        }
        if self.zero.is_none() {
            // Only a number to count from: rows may still come before it.
            self.zero = sifted.spans.iter().filter(|s| s.is_seen()).map(|s| s.enter).min();
            if let Some(slot) = self.reached.and_then(|slot| self.relative(slot)) {
                self.panes.reach(slot);
            }
        }
        self.feed_around_errors(part, &sifted.rows, &sifted.spans, watch, fed)
    }

    /// As in [`super::input::Part`], rows whose key or values cannot be computed are left out, and only those.
    fn feed_around_errors(
        &mut self,
        part: usize,
        rows: &RecordBatch,
        spans: &[Span],
        watch: bool,
        fed: &mut Fed,
    ) -> Result<Failed> {
        let error = match self.read(part, rows) {
            Ok((keys, feeds)) => {
                self.add(&keys, &feeds, spans, watch, fed);
                return Ok(None);
            }
            Err(error) => error,
        };
        let count = rows.num_rows();
        if count <= 1 {
            self.read(part, &rows.slice(0, 0))?;
            return Ok(Some((count as u64, error.strip_backtrace())));
        }
        let half = count / 2;
        let left = self.feed_around_errors(part, &rows.slice(0, half), &spans[..half], watch, fed)?;
        let right = self.feed_around_errors(part, &rows.slice(half, count - half), &spans[half..], watch, fed)?;
        Ok(both(left, right))
    }

    /// What rows have to do with groups.
    fn read(&self, part: usize, rows: &RecordBatch) -> Result<(Keys, Feeds)> {
        let part = &self.shape.parts[part];
        let keys = self.shape.codec.read(&evaluate_all(&part.keys, rows)?)?;
        Ok((keys, Feeds::of(&self.shape, part, rows)?))
    }

    fn add(&mut self, keys: &Keys, feeds: &Feeds, spans: &[Span], watch: bool, fed: &mut Fed) {
        let rows = spans.len();
        let (mut placed, mut groups) = (Vec::with_capacity(WARM), Vec::with_capacity(WARM));
        for from in (0..rows).step_by(WARM) {
            placed.clear();
            self.place(from..(from + WARM).min(rows), spans, keys, fed, &mut placed);
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
                    self.judges.iter_mut().for_each(|judge| judge.watch(self.panes.as_ref(), group, seen.enter));
                }
                self.head = self.head.max(seen.enter);
            }
        }
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

    pub fn next_change(&self) -> Option<i64> {
        self.panes.next_change().map(|slot| self.absolute(slot))
    }

    /// Makes the boundaries up to `to` final at which something changes, `budget` of them at most, and says of each what became
    /// different for which rule. What could not be evaluated is left out there: see [`Paned::take_failure`].
    pub fn step(&mut self, to: i64, budget: usize, told: &mut dyn FnMut(usize, i64, Changes)) -> usize {
        let (mut steps, mut pass) = (0, Pass::default());
        while steps < budget
            && let Some(slot) = self.panes.next_change().filter(|slot| self.absolute(*slot) <= to)
        {
            steps += 1;
            self.advance(slot, &mut pass);
            if self.judges.iter().any(Judge::has_many_looks) {
                self.settle(&mut pass, told);
            }
        }
        if self.zero.is_none() {
            self.reached = Some(to);
        } else if self.panes.next_change().is_none_or(|slot| self.absolute(slot) > to)
            && let Some(slot) = self.relative(to)
        {
            self.panes.reach(slot);
        }
        self.settle(&mut pass, told);
        steps
    }

    /// The numbers of the groups that change at a boundary, and what is to be looked at there.
    fn advance(&mut self, slot: i32, pass: &mut Pass) {
        let judges = &mut self.judges;
        self.panes.advance(slot, &mut |visited| {
            judges.iter_mut().for_each(|judge| judge.visit(slot, &visited));
            if visited.over {
                pass.over.push(visited.group);
            }
        });
        pass.slots.push(slot);
    }

    fn settle(&mut self, pass: &mut Pass, told: &mut dyn FnMut(usize, i64, Changes)) {
        let zero = self.zero.unwrap_or(0);
        let slots = std::mem::take(&mut pass.slots);
        for (n, judge) in self.judges.iter_mut().enumerate() {
            let over = Over { panes: self.panes.as_ref(), zero };
            judge.settle(over, &slots, &mut |slot, changes| told(n, zero + i64::from(slot), changes));
        }
        for group in std::mem::take(&mut pass.over) {
            if !self.judges.iter().any(|judge| judge.holds(group)) && self.panes.release(group) {
                self.judges.iter_mut().for_each(|judge| judge.forget(group));
            }
        }
    }

    /// Why a rule could not evaluate something since this was last asked.
    pub fn take_failure(&mut self, rule: usize) -> Option<DataFusionError> {
        self.judges[rule].take_failure()
    }

    /// Where groups that were just fed would hold for a rule, ahead of the final boundary: the earliest boundary of each.
    pub fn ahead(&mut self, rule: usize, ahead: &mut Vec<Ahead>) {
        let over = Over { panes: self.panes.as_ref(), zero: self.zero.unwrap_or(0) };
        self.judges[rule].ahead(over, self.head, ahead);
    }

    /// All groups, for an early look at a state that was just rebuilt.
    pub fn watch_all(&mut self) {
        let from = self.panes.now() + 1;
        for group in self.panes.all() {
            self.judges.iter_mut().for_each(|judge| judge.watch(self.panes.as_ref(), group, from));
        }
    }

    pub fn bytes(&self) -> usize {
        self.panes.bytes() + self.judges.iter().map(Judge::bytes).sum::<usize>()
    }
}

/// A group may hold for the rule that takes the fewest rows.
fn plan(shape: &Shape, judges: &[Judge], slots: Slots, bytes_max: usize) -> Plan {
    let mut rows_min = judges.iter().map(Judge::rows_min);
    let rows_min = if fault::is(Fault::FirstWakes) { rows_min.next() } else { rows_min.min() };
    Plan { kinds: shape.kinds(), span: slots.panes().min(SLOTS_MAX) as i32, rows_min: rows_min.unwrap_or(0), bytes_max }
}
