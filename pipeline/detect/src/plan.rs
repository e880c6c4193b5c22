//! Reading plans: what a rule's SQL names, what is stored below it, which columns it uses, and whether it is
//! row-local.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use event::{TableSchema, column};
use query::{QueryError, batch_table};

use crate::fault::{self, Fault};
use crate::rule::Relation;

/// Columns that windows are cut by.
pub const WINDOW_COLUMNS: [&str; 3] = [column::TIME, column::SOURCE_WATERMARK, column::ORIGIN];

/// A physical expression of one that no optimizer has seen: some functions (coalesce) exist only until they are simplified.
pub fn physical(state: &SessionState, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(state.config_options().clone())
        .build();
    let simplifier = ExprSimplifier::new(context);
    let simple = simplifier.simplify(simplifier.coerce(expr.clone(), schema)?)?;
    state.create_physical_expr(simple, schema)
}

/// A session in which every stored table is empty.
pub fn empty_tables(base: &SessionContext, schemas: &[Arc<TableSchema>]) -> Result<SessionContext, QueryError> {
    let ctx = query::fork(base);
    let by_name = |name: &str| schemas.iter().find(|s| s.name == name).expect("asked only for the schemas given");
    query::register_tables(&ctx, schemas, &|name| batch_table(by_name(name).arrow(), Vec::new()))?;
    Ok(ctx)
}

/// The tables and views a statement names, without those of its own WITH.
pub fn named_relations(ctx: &SessionContext, sql: &str) -> Result<BTreeSet<String>> {
    let state = ctx.state();
    let statement = state.sql_to_statement(sql, &state.config().options().sql_parser.dialect)?;
    Ok(state.resolve_table_references(&statement)?.iter().map(|t| t.table().to_owned()).collect())
}

/// The stored tables that a plan reads, subqueries and views included.
pub fn scanned_tables(plan: &LogicalPlan) -> Result<BTreeSet<String>> {
    let mut tables = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            tables.insert(scan.table_name.table().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(tables)
}

/// What an optimized plan takes from each relation: its columns and those that windows are cut by, and the condition
/// that every row it can use fulfils (of several scans any, of one scan all that the optimizer pushed down to it). A
/// relation that the optimizer found unnecessary is not there: then the rule cannot depend on it.
pub fn used_relations(plan: &LogicalPlan) -> Result<Vec<Relation>> {
    let mut used: BTreeMap<String, Used> = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                let used = used.entry(scan.table_name.table().to_owned()).or_default();
                used.scans += 1;
                used.columns.extend(scan.projected_schema.fields().iter().map(|f| f.name().clone()));
                used.columns.extend(scan.filters.iter().flat_map(|f| f.column_refs()).map(|c| c.name.clone()));
                used.columns.extend(WINDOW_COLUMNS.map(str::to_owned));
            }
            LogicalPlan::Filter(filter) => {
                if let LogicalPlan::TableScan(scan) = filter.input.as_ref()
                    && let Some(condition) = row_condition(&filter.predicate)
                {
                    let used = used.entry(scan.table_name.table().to_owned()).or_default();
                    used.columns.extend(condition.column_refs().into_iter().map(|c| c.name.clone()));
                    used.conditions.push(condition);
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let required = required_relations(plan);
    Ok(used.into_iter().map(|(name, used)| used.relation(name, &required)).collect())
}

#[derive(Default)]
struct Used {
    scans: usize,
    columns: BTreeSet<String>,
    /// At most one per scan.
    conditions: Vec<Expr>,
}

impl Used {
    fn relation(self, name: String, required: &BTreeSet<String>) -> Relation {
        let sieve = match self.conditions.len() == self.scans {
            true => self.conditions.into_iter().reduce(if fault::is(Fault::SieveOfAll) { Expr::and } else { Expr::or }),
            false => None,
        };
        let required = required.contains(&name);
        Relation { name, columns: self.columns.into_iter().collect(), sieve, required }
    }
}

/// The relations without any row of which a plan returns none.
pub fn required_relations(plan: &LogicalPlan) -> BTreeSet<String> {
    match plan {
        LogicalPlan::TableScan(scan) => BTreeSet::from([scan.table_name.table().to_owned()]),
        LogicalPlan::Join(join) => {
            let (left, right) = (required_relations(&join.left), required_relations(&join.right));
            match join.join_type {
                JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => left.union(&right).cloned().collect(),
                JoinType::Left | JoinType::LeftAnti => left,
                JoinType::Right | JoinType::RightAnti => right,
                _ => BTreeSet::new(),
            }
        }
        LogicalPlan::Union(union) => {
            let all = union.inputs.iter().map(|input| required_relations(input));
            all.reduce(|a, b| a.intersection(&b).cloned().collect()).unwrap_or_default()
        }
        // Without groups there is a row even of nothing.
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => BTreeSet::new(),
        LogicalPlan::Aggregate(_)
        | LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Unnest(_) => plan.inputs().first().map_or_else(BTreeSet::new, |input| required_relations(input)),
        _ => BTreeSet::new(),
    }
}

/// Whether what a plan finds over more rows is what it finds over the old ones and, relation by relation, over the new rows
/// of one and all of the others: joins and filters are so, a condition on an aggregate is not. Each relation is named once.
pub fn distributes(plan: &LogicalPlan) -> bool {
    let mut scans = Vec::new();
    let counted = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            scans.push(scan.table_name.table().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    let named = scans.len();
    scans.sort();
    scans.dedup();
    counted.is_ok() && scans.len() == named && grouped(plan).is_some()
}

/// Whether an aggregation lies below; `None` where a plan does not distribute.
fn grouped(plan: &LogicalPlan) -> Option<bool> {
    match plan {
        LogicalPlan::TableScan(_) => Some(false),
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
            let neither = !grouped(&join.left)? && !grouped(&join.right)?;
            neither.then_some(false)
        }
        LogicalPlan::Union(union) => {
            let neither = union.inputs.iter().all(|input| grouped(input) == Some(false));
            neither.then_some(false)
        }
        _ => None,
    }
}

/// The part of a condition that looks at the row alone.
fn row_condition(predicate: &Expr) -> Option<Expr> {
    let of_row =
        |e: &&Expr| !e.exists(|e| Ok(has_subquery(e) || matches!(e, Expr::OuterReferenceColumn(..)))).unwrap_or(true);
    let parts = split_conjunction(predicate).into_iter().filter(of_row).cloned().map(unnormalize_col);
    parts.reduce(Expr::and)
}

/// Why a plan is not row-local, if it is not. The view `events` is a union as long as all its tables are there.
pub fn not_row_local(plan: &LogicalPlan, union_allowed: bool) -> Result<Option<&'static str>> {
    let mut reason = None;
    plan.apply(|node| {
        reason = match node {
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => None,
            LogicalPlan::TableScan(_) => None,
            LogicalPlan::Union(_) if union_allowed => None,
            LogicalPlan::Aggregate(_) => Some("it aggregates"),
            LogicalPlan::Distinct(_) => Some("it has DISTINCT"),
            LogicalPlan::Join(_) => Some("it joins tables"),
            LogicalPlan::Window(_) => Some("it has a window function"),
            LogicalPlan::Sort(_) => Some("it has ORDER BY"),
            LogicalPlan::Limit(_) => Some("it has LIMIT"),
            LogicalPlan::Union(_) => Some("it has UNION"),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Some("it reads no table"),
            _ => Some("it does more than filter and compute columns"),
        };
        if reason.is_none() {
            node.apply_expressions(|expr| {
                expr.apply(|e| {
                    if has_subquery(e) {
                        reason = Some("it has a subquery");
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(if reason.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(reason)
}

pub fn has_subquery(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_))
}
