//! Links: what a join demands of rows on its two sides. A row whose key nothing on the other side has cannot matter
//! there, so most runs of a plan look at few rows, or need not be made at all.
//!
//! A link never takes away a row that could matter: it looks at the rows that are held, which are more than any boundary
//! sees, by hashes of their keys, which are fewer than the keys.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, Join, LogicalPlan, TableScan};
use datafusion::physical_expr::PhysicalExpr;

use super::keys::KeyCodec;
use super::legs::Leg;
use crate::fault::{self, Fault};
use crate::plan::physical;

pub const LEFT: usize = 0;
pub const RIGHT: usize = 1;

/// The key of one side as each leg below computes it.
type Keys = Vec<(usize, Vec<Expr>)>;

/// One join's equalities, over the columns of legs.
#[derive(Clone, Debug)]
pub struct Equal {
    sides: [Keys; 2],
    kinds: Vec<DataType>,
    /// Whether a row of this side without a partner is of no use.
    needs: [bool; 2],
    null_is_value: bool,
}

/// The links of a plan whose legs are known by `index`.
pub fn links(plan: &LogicalPlan, index: &dyn Fn(&TableScan) -> Option<usize>) -> Result<Vec<Equal>> {
    let mut links = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node {
            links.extend(of_join(join, index)?);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(links)
}

fn of_join(join: &Join, index: &dyn Fn(&TableScan) -> Option<usize>) -> Result<Vec<Equal>> {
    let needs = match join.join_type {
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => [true, true],
        JoinType::Left | JoinType::LeftAnti | JoinType::LeftMark => [false, true],
        JoinType::Right | JoinType::RightAnti | JoinType::RightMark => [true, false],
        _ => return Ok(Vec::new()),
    };
    // NOT IN: a NULL on the right side is an answer of its own.
    if join.null_aware {
        return Ok(Vec::new());
    }
    let mut links: Vec<Equal> = Vec::new();
    for (left, right) in &join.on {
        let kind = left.get_type(join.left.schema())?;
        let other = right.get_type(join.right.schema())?;
        if !same_form(&kind, &other) || left.is_volatile() || right.is_volatile() {
            continue;
        }
        let (Some(left), Some(right)) = (trace(&join.left, left, index)?, trace(&join.right, right, index)?) else {
            continue;
        };
        if left.is_empty() || right.is_empty() {
            continue;
        }
        let legs = |keys: &Keys| keys.iter().map(|(leg, _)| *leg).collect::<Vec<_>>();
        let same =
            |link: &&mut Equal| legs(&link.sides[LEFT]) == legs(&left) && legs(&link.sides[RIGHT]) == legs(&right);
        match links.iter_mut().find(same) {
            Some(link) => {
                link.kinds.push(kind);
                for (keys, more) in link.sides.iter_mut().zip([left, right]) {
                    keys.iter_mut().zip(more).for_each(|((_, key), (_, more))| key.extend(more));
                }
            }
            None => links.push(Equal {
                sides: [left, right],
                kinds: vec![kind],
                needs,
                null_is_value: join.null_equality == NullEquality::NullEqualsNull,
            }),
        }
    }
    Ok(links)
}

/// Values of both types are equal exactly if their bytes are.
fn same_form(a: &DataType, b: &DataType) -> bool {
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    (a == b || (is_text(a) && is_text(b))) && KeyCodec::new(vec![a.clone()]).is_ok()
}

/// What a value of a plan's rows is in the rows of the legs below. `None` where a leg's row without the wanted value
/// could change more than the rows that have it.
fn trace(plan: &LogicalPlan, key: &Expr, index: &dyn Fn(&TableScan) -> Option<usize>) -> Result<Option<Keys>> {
    let all = |inputs: Vec<(&LogicalPlan, Option<Expr>)>| -> Result<Option<Keys>> {
        let mut keys = Vec::new();
        for (input, key) in inputs {
            match key.map(|key| trace(input, &key, index)).transpose()?.flatten() {
                Some(below) => keys.extend(below),
                None => return Ok(None),
            }
        }
        Ok(Some(keys))
    };
    match plan {
        LogicalPlan::TableScan(scan) => Ok(index(scan).map(|leg| vec![(leg, vec![unnormalize_col(key.clone())])])),
        LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row => Ok(Some(Vec::new())),
        LogicalPlan::Filter(filter) => all(vec![(&filter.input, Some(key.clone()))]),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => all(vec![(&sort.input, Some(key.clone()))]),
        LogicalPlan::Distinct(Distinct::All(input)) => all(vec![(input, Some(key.clone()))]),
        LogicalPlan::Projection(projection) => {
            let key = replaced(key, &projection.schema, &|at| projection.expr.get(at).cloned())?;
            all(vec![(&projection.input, key)])
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let key = replaced(key, &alias.schema, &|at| Some(column_of(alias.input.schema(), at)))?;
            all(vec![(&alias.input, key)])
        }
        LogicalPlan::Union(union) => {
            let of = |input: &Arc<LogicalPlan>| replaced(key, &union.schema, &|at| Some(column_of(input.schema(), at)));
            let keys = union.inputs.iter().map(of).collect::<Result<Vec<_>>>()?;
            all(union.inputs.iter().map(Arc::as_ref).zip(keys).collect())
        }
        // Whole groups are with or without the value.
        LogicalPlan::Aggregate(aggregate)
            if !aggregate.group_expr.iter().any(|group| matches!(group, Expr::GroupingSet(_))) =>
        {
            let key = replaced(key, &aggregate.schema, &|at| aggregate.group_expr.get(at).cloned())?;
            all(vec![(&aggregate.input, key)])
        }
        LogicalPlan::Window(window) => {
            let partitioned = |column: &Column| {
                window.window_expr.iter().all(|expr| match expr.clone().unalias() {
                    Expr::WindowFunction(function) => {
                        function.params.partition_by.contains(&Expr::Column(column.clone()))
                    }
                    _ => false,
                })
            };
            let whole = key.column_refs().into_iter().all(partitioned) && !key.column_refs().is_empty();
            all(vec![(&window.input, whole.then(|| key.clone()))])
        }
        LogicalPlan::Join(join) => {
            let is_of =
                |side: &LogicalPlan| key.column_refs().into_iter().all(|column| side.schema().has_column(column));
            let (left, right) = match join.join_type {
                JoinType::Inner => (true, true),
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, false),
                JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (false, true),
                JoinType::Full => (false, false),
            };
            match () {
                () if left && is_of(&join.left) => all(vec![(&join.left, Some(key.clone()))]),
                () if right && is_of(&join.right) => all(vec![(&join.right, Some(key.clone()))]),
                () => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

fn column_of(schema: &DFSchema, at: usize) -> Expr {
    Expr::Column(Column::from(schema.qualified_field(at)))
}

/// The expression over a node's input: each column of the node's schema by what makes it. `None` if one has no such.
fn replaced(key: &Expr, schema: &DFSchema, made_of: &dyn Fn(usize) -> Option<Expr>) -> Result<Option<Expr>> {
    let mut whole = true;
    let key = key.clone().transform_down(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        match schema.maybe_index_of_column(column).and_then(made_of) {
            Some(made) => Ok(Transformed::new(made.unalias(), true, TreeNodeRecursion::Jump)),
            None => {
                whole = false;
                Ok(Transformed::new(expr, false, TreeNodeRecursion::Stop))
            }
        }
    })?;
    let plain =
        !key.data.exists(|e| Ok(crate::plan::has_subquery(e) || matches!(e, Expr::OuterReferenceColumn(..))))?;
    Ok((whole && plain).then_some(key.data))
}

/// A link as one leg takes part in it.
#[derive(Debug)]
pub struct Place {
    pub link: usize,
    pub side: usize,
    /// Rows here need a partner on the other side.
    pub needs: bool,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    codec: KeyCodec,
    null_is_value: bool,
}

/// The links of each leg, and how many there are.
pub fn places(state: &SessionState, links: &[Equal], legs: &[Leg]) -> Result<Vec<Vec<Place>>> {
    let mut places: Vec<Vec<Place>> = legs.iter().map(|_| Vec::new()).collect();
    for (number, link) in links.iter().enumerate() {
        for (side, keys) in link.sides.iter().enumerate() {
            for (leg, keys) in keys {
                let schema = DFSchema::try_from(legs[*leg].schema.clone())?;
                let keys = keys.iter().map(|key| physical(state, key, &schema)).collect::<Result<_>>()?;
                let codec = KeyCodec::new(link.kinds.clone()).expect("types were checked");
                let (needs, null_is_value) = (link.needs[side], link.null_is_value);
                places[*leg].push(Place { link: number, side, needs, keys, codec, null_is_value });
            }
        }
    }
    Ok(places)
}

/// Of rows that equal nothing.
const NO_KEY: u64 = 0;
/// Of rows whose keys cannot be computed: they are kept with all their neighbours, and the plan reports it.
const ANY_KEY: u64 = u64::MAX;

impl Place {
    /// The hash of each row's key.
    pub fn hashes(&self, rows: &RecordBatch) -> Vec<u64> {
        self.computed(rows).unwrap_or_else(|_| vec![ANY_KEY; rows.num_rows()])
    }

    fn computed(&self, rows: &RecordBatch) -> Result<Vec<u64>> {
        let columns = self.keys.iter().map(|key| key.evaluate(rows)?.into_array(rows.num_rows()));
        let keys = self.codec.read(&columns.collect::<Result<Vec<_>>>()?)?;
        let hasher = foldhash::fast::FixedState::with_seed(1);
        let mut bytes = Vec::new();
        let hash = |row: usize| {
            if !self.null_is_value && keys.any_null(row) {
                return NO_KEY;
            }
            bytes.clear();
            keys.write(row, &mut bytes);
            hasher.hash_one(&bytes).clamp(NO_KEY + 1, ANY_KEY - 1)
        };
        Ok((0..rows.num_rows()).map(hash).collect())
    }
}

/// How many held rows have a key, on each side of one link.
#[derive(Default)]
pub struct Partners {
    rows: hashbrown::HashMap<u64, [u32; 2], foldhash::fast::FixedState>,
    /// Counts the changes of which keys a side has.
    versions: [u64; 2],
}

impl Partners {
    pub fn add(&mut self, side: usize, hashes: &[u64]) {
        for hash in hashes.iter().filter(|hash| **hash != NO_KEY) {
            let rows = &mut self.rows.entry(*hash).or_default()[side];
            *rows += 1;
            self.versions[side] += u64::from(*rows == 1);
        }
    }

    pub fn remove(&mut self, side: usize, hashes: &[u64]) {
        for hash in hashes.iter().filter(|hash| **hash != NO_KEY) {
            let Some(rows) = self.rows.get_mut(hash) else { continue };
            rows[side] = rows[side].saturating_sub(1);
            if rows[side] == 0 || fault::is(Fault::PartnerForgotten) {
                self.versions[side] += 1;
                rows[side] = 0;
                if *rows == [0, 0] {
                    self.rows.remove(hash);
                }
            }
        }
    }

    /// Whether the other side has each of these keys.
    pub fn have<'a>(&'a self, side: usize, hashes: &'a [u64]) -> impl Iterator<Item = bool> + 'a {
        let has = move |hash: u64| self.rows.get(&hash).is_some_and(|rows| rows[1 - side] > 0);
        let any = has(ANY_KEY);
        hashes.iter().map(move |hash| any || *hash == ANY_KEY || has(*hash))
    }

    /// Changes when what [`Partners::have`] says to a side may have changed.
    pub fn version(&self, side: usize) -> u64 {
        self.versions[1 - side]
    }

    pub fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<(u64, [u32; 2])>()
    }

    pub fn clear(&mut self) {
        self.rows.clear();
        self.versions = self.versions.map(|version| version + 1);
    }
}
