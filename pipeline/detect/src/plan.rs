//! Reading plans: what a rule's SQL names, what is stored below it, which columns it uses, and whether it is
//! row-local.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use event::{TableSchema, column};
use query::{QueryError, batch_table};

use crate::pattern;

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
    expression(state, simple, schema)
}

/// A physical expression of an optimized one.
pub fn expression(state: &SessionState, expr: Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    pattern::compiled(state.create_physical_expr(expr, schema)?)
}

/// A session in which every stored table is empty.
pub fn empty_tables(base: &SessionContext, schemas: &[Arc<TableSchema>]) -> Result<SessionContext, QueryError> {
    let ctx = query::fork(base);
    let by_name = |name: &str| schemas.iter().find(|s| s.name == name).expect("asked only for the schemas given");
    query::register_tables(&ctx, schemas, &|name| batch_table(by_name(name).arrow(), Vec::new()))?;
    Ok(ctx)
}

/// The tables and views of events a statement names, without those of its own WITH and without lookups.
pub fn named_relations(ctx: &SessionContext, sql: &str) -> Result<BTreeSet<String>> {
    let state = ctx.state();
    let statement = state.sql_to_statement(sql, &state.config().options().sql_parser.dialect)?;
    let lookups = query::lookups(ctx);
    let names = state.resolve_table_references(&statement)?;
    Ok(names.iter().map(|t| t.table().to_owned()).filter(|name| !lookups.contains(name)).collect())
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

/// The part of a condition that looks at the row alone.
pub fn row_condition(predicate: &Expr) -> Option<Expr> {
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
