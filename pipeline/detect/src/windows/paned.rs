//! A rule kept as panes: rows change their groups' numbers as they come; a boundary looks only at groups that change
//! there, and builds rows only for those that may pass the HAVING.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::RandomState;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use event::Micros;
use hashbrown::hash_map::HashMap;

use super::groups::{Group, Panes, SLOTS_MAX, Seen, panes};
use super::input::{Sifted, batch_of};
use super::keys::KeyCodec;
use super::shape::{Into, Output, Shape, ShapePart};
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
    /// At the final boundary.
    holds: bool,
    /// An early look found it to hold ahead.
    early: bool,
    /// From this boundary on it is to be looked at.
    watched: Option<i32>,
}

impl Paned {
    pub fn new(rule: Arc<Rule>, shape: Arc<Shape>, bytes_max: usize) -> Paned {
        let panes = panes(shape.lanes, shape.extremes, i32::MIN / 2, bytes_max);
        Paned {
            rule,
            shape,
            panes,
            zero: None,
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
        self.panes = panes(self.shape.lanes, self.shape.extremes, 0, self.bytes_max);
    }

    fn relative(&self, slot: i64) -> Option<i32> {
        let relative = slot - self.zero?;
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
            let first = sifted.spans.iter().filter(|s| s.is_seen()).map(|s| s.enter).min();
            // Only a number to count from: nothing is final yet, and rows may still come before it.
            self.zero = first;
        }
        let keys = shape.codec.read(&evaluate_all(&part.keys, &sifted.rows)?)?;
        let feeds = Feeds::of(part, &sifted.rows)?;
        for row in 0..rows {
            let span = sifted.spans[row];
            if !span.is_seen() {
                continue;
            }
            let (Some(enter), Some(leave)) = (self.relative(span.enter), self.relative(span.leave)) else {
                fed.out_of_range += 1;
                continue;
            };
            let mut key = std::mem::take(&mut self.scratch);
            key.clear();
            keys.write(row, &mut key);
            let group = self.panes.group(&key);
            self.scratch = key;
            let Some(group) = group else {
                fed.refused += 1;
                continue;
            };
            fed.kept += 1;
            feeds.add(self.panes.as_mut(), group, Seen { enter, leave }, row, &mut self.scratch);
            if watch {
                self.watch(group, enter);
            }
            self.head = self.head.max(enter);
        }
        Ok(())
    }

    fn mark(&mut self, group: Group) -> &mut Mark {
        let at = group as usize;
        if at >= self.marks.len() {
            self.marks.resize((at + 1).next_power_of_two(), Mark::default());
        }
        &mut self.marks[at]
    }

    fn watch(&mut self, group: Group, from: i32) {
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

    /// Makes a boundary final.
    pub fn step(&mut self, slot: i64, changes: &mut Changes, watch: bool) -> Result<()> {
        let Some(slot) = self.relative(slot) else { return Ok(()) };
        let mut changed = Vec::new();
        self.panes.advance(slot, &mut changed);
        let (mut look, mut ended, mut lanes) = (Vec::new(), Vec::new(), Vec::new());
        for group in &changed {
            self.panes.lanes(*group, slot, &mut lanes);
            let passes = lanes[0] > 0 && self.shape.having.holds(&lanes);
            match (passes, self.mark(*group).holds) {
                (true, true) if self.shape.exact => {}
                (true, _) => look.push((*group, slot)),
                (false, true) => ended.push(*group),
                (false, false) => {}
            }
        }
        let holds = self.look(&look, &mut changes.null_entities)?;
        let mut began: BTreeMap<Arc<Entity>, Held> = BTreeMap::new();
        let still: BTreeSet<Group> = holds.iter().map(|(group, _)| *group).collect();
        ended.extend(look.iter().map(|(g, _)| *g).filter(|g| !still.contains(g) && self.holding.contains_key(g)));
        let over: BTreeSet<Group> = ended.iter().copied().collect();
        // Only these can come or go; most groups that change hold before and after.
        let touched = ended.iter().filter_map(|g| self.holding.get(g).cloned());
        let touched = touched.chain(holds.iter().map(|(_, held)| Arc::new(held.entity.clone())));
        let before: BTreeMap<Arc<Entity>, bool> =
            touched.map(|entity| (entity.clone(), self.entities.contains_key(&entity))).collect();
        for group in ended {
            self.mark(group).holds = false;
            let entity = self.holding.remove(&group).expect("it held");
            if let Some(count) = self.entities.get_mut(&entity) {
                *count -= 1;
                if *count == 0 {
                    self.entities.remove(&entity);
                }
            }
        }
        for (group, held) in holds {
            let entity = Arc::new(held.entity.clone());
            self.mark(group).holds = true;
            if self.holding.insert(group, entity.clone()).is_none() {
                *self.entities.entry(entity.clone()).or_insert(0) += 1;
            }
            oracle::join(&mut began, entity, held);
        }
        for (entity, held) in before {
            match (held, self.entities.contains_key(&entity)) {
                (false, true) => changes.began.extend(began.remove(&entity)),
                (true, false) => changes.ended.push(entity.as_ref().clone()),
                _ => {}
            }
        }
        for group in changed {
            let was_early = std::mem::take(&mut self.mark(group).early);
            if self.mark(group).holds {
                continue;
            }
            if self.panes.release(group) {
                *self.mark(group) = Mark { watched: self.mark(group).watched, ..Mark::default() };
            } else if watch && (was_early || over.contains(&group)) {
                // What was hidden behind it may hold further ahead.
                self.watch(group, slot + 1);
            }
        }
        Ok(())
    }

    /// Where groups that were just fed would hold, ahead of the final boundary: the earliest boundary of each.
    pub fn ahead(&mut self, ahead: &mut Vec<Ahead>) -> Result<()> {
        let (mut slots, mut look) = (Vec::new(), Vec::new());
        let now = self.panes.now();
        for group in std::mem::take(&mut self.watched) {
            let mark = &mut self.marks[group as usize];
            let Some(from) = mark.watched.take().filter(|_| !mark.holds && !mark.early) else { continue };
            slots.clear();
            let (from, all) = (from.max(now + 1), !self.shape.exact);
            self.panes.passing(group, from, self.head, &self.shape.having, all, &mut slots);
            look.extend(slots.iter().map(|slot| (group, *slot)));
        }
        let mut nulls = 0;
        let mut found: BTreeMap<Group, (i32, Held)> = BTreeMap::new();
        for ((group, slot), held) in self.look_at(&look, &mut nulls)? {
            let better = found.get(&group).is_none_or(|(have, _)| slot < *have);
            if better {
                found.insert(group, (slot, held));
            }
        }
        for (group, (slot, held)) in found {
            self.mark(group).early = true;
            ahead.push(Ahead { slot: self.absolute(slot), held });
        }
        Ok(())
    }

    /// All groups, for an early look at a state that was just rebuilt.
    pub fn watch_all(&mut self) {
        let from = self.panes.now() + 1;
        self.panes.all().into_iter().for_each(|group| self.watch(group, from));
    }

    fn look(&self, groups: &[(Group, i32)], nulls: &mut u64) -> Result<Vec<(Group, Held)>> {
        Ok(self.look_at(groups, nulls)?.into_iter().map(|((group, _), held)| (group, held)).collect())
    }

    /// The rows of the SELECT for groups at boundaries.
    fn look_at(&self, groups: &[(Group, i32)], nulls: &mut u64) -> Result<Vec<((Group, i32), Held)>> {
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let Selected { rows, from } = run_steps(&self.shape.rest, &self.aggregated(groups)?)?;
        let at: Vec<Micros> = from.iter().map(|row| self.boundary(groups[*row as usize].1)).collect();
        let mut held = Vec::with_capacity(rows.num_rows());
        for (row, one) in oracle::held_rows(&self.rule, &rows, &at, nulls)? {
            held.push((groups[from[row] as usize], one));
        }
        Ok(held)
    }

    fn boundary(&self, slot: i32) -> Micros {
        let every = self.rule.window.map_or(1, |w| w.every_us);
        self.absolute(slot).saturating_mul(every)
    }

    /// The aggregation's rows for groups at boundaries.
    fn aggregated(&self, groups: &[(Group, i32)]) -> Result<RecordBatch> {
        let shape = &self.shape;
        let mut columns = shape.codec.decode(groups.iter().map(|(group, _)| self.panes.key(*group)))?;
        let mut lanes: Vec<Vec<i64>> = Vec::with_capacity(groups.len());
        for (group, slot) in groups {
            let mut of = Vec::new();
            self.panes.lanes(*group, *slot, &mut of);
            lanes.push(of);
        }
        let fields = shape.schema.fields();
        for (output, field) in shape.outputs.iter().zip(fields.iter().skip(columns.len())) {
            let column = self.output(*output, field, groups, &lanes)?;
            columns.push(column);
        }
        batch_of(fields.iter().cloned().zip(columns).collect(), groups.len())
    }

    fn output(
        &self,
        output: Output,
        field: &FieldRef,
        groups: &[(Group, i32)],
        lanes: &[Vec<i64>],
    ) -> Result<ArrayRef> {
        let array: ArrayRef = match output {
            Output::Lane(lane) => Arc::new(lanes.iter().map(|l| Some(l[lane])).collect::<Int64Array>()),
            Output::Sum { lane, count } => {
                Arc::new(lanes.iter().map(|l| (l[count] > 0).then_some(l[lane])).collect::<Int64Array>())
            }
            Output::Average { lane, count } => {
                let average = |l: &Vec<i64>| (l[count] > 0).then(|| l[lane] as f64 / l[count] as f64);
                Arc::new(lanes.iter().map(average).collect::<Float64Array>())
            }
            Output::Least { extreme, complement } => {
                let of = |(group, slot): &(Group, i32)| {
                    self.panes.least(*group, *slot, extreme).map(|v| if complement { !v } else { v })
                };
                Arc::new(groups.iter().map(of).collect::<Int64Array>())
            }
        };
        Ok(if array.data_type() == field.data_type() { array } else { cast(&array, field.data_type())? })
    }

    pub fn bytes(&self) -> usize {
        self.panes.bytes() + self.holding.len() * 64 + self.marks.capacity() * size_of::<Mark>()
    }
}

fn evaluate_all(exprs: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|e| e.evaluate(rows)?.into_array(rows.num_rows())).collect()
}

/// What a batch's rows give to the aggregates.
struct Feeds(Vec<FeedColumn>);

struct FeedColumn {
    into: Into,
    filter: Option<BooleanArray>,
    argument: Option<Argument>,
}

enum Argument {
    /// Counted unless NULL.
    Any(ArrayRef),
    Value(super::keys::Keys),
    Number(Int64Array),
}

impl Feeds {
    fn of(part: &ShapePart, rows: &RecordBatch) -> Result<Feeds> {
        let count = rows.num_rows();
        let mut columns = Vec::with_capacity(part.feeds.len());
        for feed in &part.feeds {
            let evaluate = |e: &Arc<dyn PhysicalExpr>| e.evaluate(rows)?.into_array(count);
            let filter = match &feed.filter {
                Some(filter) => {
                    let array = evaluate(filter)?;
                    let mask = array.as_boolean_opt();
                    Some(
                        mask.ok_or_else(|| DataFusionError::Execution("a FILTER is not true or false".into()))?.clone(),
                    )
                }
                None => None,
            };
            let argument = match (&feed.argument, feed.into) {
                (None, _) => None,
                (Some(e), Into::Count { .. }) => Some(Argument::Any(evaluate(e)?)),
                (Some(e), Into::Distinct { .. }) => {
                    let array = evaluate(e)?;
                    let codec = KeyCodec::new(vec![array.data_type().clone()])
                        .map_err(|kind| DataFusionError::Internal(format!("no key of type {kind}")))?;
                    Some(Argument::Value(codec.read(&[array])?))
                }
                (Some(e), Into::Sum { .. } | Into::Least { .. }) => {
                    let array = cast(&evaluate(e)?, &DataType::Int64)?;
                    Some(Argument::Number(array.as_primitive::<Int64Type>().clone()))
                }
            };
            columns.push(FeedColumn { into: feed.into, filter, argument });
        }
        Ok(Feeds(columns))
    }

    fn add(&self, panes: &mut dyn Panes, group: Group, seen: Seen, row: usize, scratch: &mut Vec<u8>) {
        for column in &self.0 {
            if column.filter.as_ref().is_some_and(|f| f.is_null(row) || !f.value(row)) {
                continue;
            }
            match (column.into, &column.argument) {
                (Into::Count { lane }, None) => panes.add(group, seen, lane, 1),
                (Into::Count { lane }, Some(Argument::Any(values))) if values.is_valid(row) => {
                    panes.add(group, seen, lane, 1);
                }
                (Into::Distinct { lane }, Some(Argument::Value(values))) if !values.any_null(row) => {
                    scratch.clear();
                    values.write(row, scratch);
                    panes.add_distinct(group, seen, lane, scratch);
                }
                (Into::Sum { lane, count }, Some(Argument::Number(values))) if values.is_valid(row) => {
                    panes.add(group, seen, lane, values.value(row));
                    panes.add(group, seen, count, 1);
                }
                (Into::Least { extreme, complement }, Some(Argument::Number(values))) if values.is_valid(row) => {
                    let value = values.value(row);
                    panes.add_least(group, seen, extreme, if complement { !value } else { value });
                }
                _ => {}
            }
        }
    }
}
