//! The legs of a rule: the places at which its plan reads a table or view. Each has its own sieve and its own rows, so
//! that a join of many events with few looks at few.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Filter, JoinType, LogicalPlan, LogicalPlanBuilder, TableScan, TableSource};

use super::links::{Equal, links};
use crate::plan::row_condition;

/// One place at which a plan reads.
#[derive(Clone, Debug)]
pub struct Leg {
    pub relation: String,
    pub schema: SchemaRef,
    /// Rows that do not fulfil it cannot matter here. `None`: any can.
    pub filter: Option<Expr>,
}

/// When a plan returns nothing because legs have no rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Empty {
    Leg(usize),
    Any(Vec<Empty>),
    All(Vec<Empty>),
    Never,
}

impl Empty {
    pub fn is(&self, is_empty: &dyn Fn(usize) -> bool) -> bool {
        match self {
            Empty::Leg(leg) => is_empty(*leg),
            Empty::Any(of) => of.iter().any(|e| e.is(is_empty)),
            Empty::All(of) => of.iter().all(|e| e.is(is_empty)),
            Empty::Never => false,
        }
    }
}

/// A plan whose legs read tables of their own.
pub struct Split {
    pub plan: LogicalPlan,
    pub legs: Vec<Leg>,
    pub empty: Empty,
    /// What it finds over more rows is what it finds over the old ones and, leg by leg, over the new rows of one and all
    /// of the others: joins and filters are so, a condition on an aggregate is not.
    pub distributes: bool,
    pub links: Vec<Equal>,
}

/// Gives each leg of an optimized plan the table that `table` makes for it. The order of legs is the plan's.
/// What is `fixed`, lookups and state tables, is no leg: no row of it is an event.
pub fn split(
    plan: &LogicalPlan,
    fixed: &dyn Fn(&str) -> bool,
    table: &mut dyn FnMut(usize, &Leg) -> Arc<dyn TableProvider>,
) -> Result<Split> {
    let mut legs: Vec<Leg> = Vec::new();
    let mut sources: Vec<Arc<dyn TableSource>> = Vec::new();
    let mut replace = |scan: &TableScan, condition: Option<Expr>| -> Result<LogicalPlan> {
        let filters = scan.filters.iter().filter_map(row_condition).chain(condition).reduce(Expr::and);
        let leg = Leg {
            relation: scan.table_name.table().to_owned(),
            schema: scan.projected_schema.inner().clone(),
            filter: filters,
        };
        let source = provider_as_source(table(legs.len(), &leg));
        legs.push(leg);
        sources.push(source.clone());
        let replaced = LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?;
        scan.filters.iter().cloned().try_fold(replaced, LogicalPlanBuilder::filter)?.build()
    };
    let mut done: Vec<Arc<dyn TableSource>> = Vec::new();
    let plan = plan.clone().transform_down_with_subqueries(|node| {
        let replaced = match &node {
            LogicalPlan::TableScan(scan) if fixed(scan.table_name.table()) => {
                return Ok(Transformed::no(node));
            }
            LogicalPlan::TableScan(scan) if !done.iter().any(|s| Arc::ptr_eq(s, &scan.source)) => replace(scan, None)?,
            LogicalPlan::Filter(filter) => match filter.input.as_ref() {
                LogicalPlan::TableScan(scan) if fixed(scan.table_name.table()) => {
                    return Ok(Transformed::no(node));
                }
                LogicalPlan::TableScan(scan) if !done.iter().any(|s| Arc::ptr_eq(s, &scan.source)) => {
                    let input = replace(scan, row_condition(&filter.predicate))?;
                    LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::new(input))?)
                }
                _ => return Ok(Transformed::no(node)),
            },
            _ => return Ok(Transformed::no(node)),
        };
        collect_sources(&replaced, &mut done);
        Ok(Transformed::yes(replaced))
    })?;
    let plan = plan.data;
    let index = |scan: &TableScan| sources.iter().position(|s| Arc::ptr_eq(s, &scan.source));
    let empty = empty_of(&plan, &index);
    let distributes = grouped(&plan).is_some();
    let links = links(&plan, &index)?;
    Ok(Split { plan, legs, empty, distributes, links })
}

fn collect_sources(plan: &LogicalPlan, into: &mut Vec<Arc<dyn TableSource>>) {
    match plan {
        LogicalPlan::TableScan(scan) => into.push(scan.source.clone()),
        other => other.inputs().into_iter().for_each(|input| collect_sources(input, into)),
    }
}

fn empty_of(plan: &LogicalPlan, index: &dyn Fn(&TableScan) -> Option<usize>) -> Empty {
    match plan {
        LogicalPlan::TableScan(scan) => index(scan).map_or(Empty::Never, Empty::Leg),
        LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row => Empty::All(Vec::new()),
        LogicalPlan::Join(join) => {
            let (left, right) = (empty_of(&join.left, index), empty_of(&join.right, index));
            match join.join_type {
                JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => Empty::Any(vec![left, right]),
                JoinType::Left | JoinType::LeftAnti => left,
                JoinType::Right | JoinType::RightAnti => right,
                _ => Empty::Never,
            }
        }
        LogicalPlan::Union(union) => Empty::All(union.inputs.iter().map(|input| empty_of(input, index)).collect()),
        // Without groups there is a row even of nothing.
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => Empty::Never,
        LogicalPlan::Aggregate(_)
        | LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Unnest(_) => plan.inputs().first().map_or(Empty::Never, |input| empty_of(input, index)),
        _ => Empty::Never,
    }
}

/// Whether an aggregation lies below; `None` where a plan does not distribute.
fn grouped(plan: &LogicalPlan) -> Option<bool> {
    match plan {
        LogicalPlan::TableScan(_) | LogicalPlan::EmptyRelation(_) => Some(false),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Distinct(_) => {
            grouped(plan.inputs().first()?)
        }
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => grouped(&sort.input),
        LogicalPlan::Filter(filter) => grouped(&filter.input).filter(|grouped| !grouped),
        LogicalPlan::Aggregate(aggregate) => {
            grouped(&aggregate.input).filter(|grouped| !grouped && !aggregate.group_expr.is_empty())?;
            Some(true)
        }
        LogicalPlan::Join(join)
            if matches!(join.join_type, JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi) =>
        {
            (!grouped(&join.left)? && !grouped(&join.right)?).then_some(false)
        }
        LogicalPlan::Union(union) => {
            let inputs: Option<Vec<bool>> = union.inputs.iter().map(|input| grouped(input)).collect();
            Some(inputs?.into_iter().any(|grouped| grouped))
        }
        _ => None,
    }
}
