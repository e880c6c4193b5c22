//! The tables SQL sees: the stored ones, and the views over them. The views are plain plans (projection, union,
//! filter), so that conditions push through to the providers.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col, lit};
use event::{TableSchema, column, tables};

use crate::QueryError;

/// Columns that every stored table begins with.
pub const META_COLUMNS: [&str; 15] = [
    column::TIME,
    column::INGEST_TIME,
    column::EVENT_UID,
    column::SOURCE,
    column::CLUSTER,
    column::ORIGIN,
    column::TOPIC,
    column::PARTITION,
    column::OFFSET,
    column::MESSAGE_INDEX,
    column::FILE_SHA256,
    column::SOURCE_WATERMARK,
    column::ROW_HASH,
    column::REDACTED,
    column::RAW,
];

/// The stored tables that `events` spans: all but `unparsed`.
pub const SOURCE_TABLES: [&str; 3] = [tables::KUBERNETES, tables::CLOUDTRAIL, tables::FALCO];

/// Registers the stored tables of `schemas` as `provider` gives them and the views over those that are there.
/// With a provider that is itself a view (say, one window of a table), the views are of the same rows.
pub fn register_tables(
    ctx: &SessionContext,
    schemas: &[Arc<TableSchema>],
    provider: &dyn Fn(&str) -> Arc<dyn TableProvider>,
) -> Result<(), QueryError> {
    register(ctx, schemas, provider).map_err(QueryError::run)
}

fn register(
    ctx: &SessionContext,
    schemas: &[Arc<TableSchema>],
    provider: &dyn Fn(&str) -> Arc<dyn TableProvider>,
) -> Result<()> {
    let mut events: Option<LogicalPlanBuilder> = None;
    for schema in schemas {
        let table = provider(&schema.name);
        ctx.register_table(schema.name.as_str(), table.clone())?;
        if schema.name == tables::KUBERNETES {
            let calls = scan(&schema.name, table.clone())?.filter(is_call())?.build()?;
            register_view(ctx, tables::KUBERNETES_CALLS, calls)?;
        }
        if SOURCE_TABLES.contains(&schema.name.as_str()) {
            let common = scan(&schema.name, table)?.project(common_columns(schema, schemas))?;
            events = Some(match events {
                None => common,
                Some(events) => events.union(common.build()?)?,
            });
        }
    }
    match events {
        Some(events) => register_view(ctx, tables::EVENTS, events.build()?),
        None => Ok(()),
    }
}

fn scan(name: &str, table: Arc<dyn TableProvider>) -> Result<LogicalPlanBuilder> {
    LogicalPlanBuilder::scan(name, provider_as_source(table), None)
}

fn register_view(ctx: &SessionContext, name: &str, plan: LogicalPlan) -> Result<()> {
    ctx.register_table(name, Arc::new(ViewTable::new(plan, None)))?;
    Ok(())
}

/// The columns of `events`: the meta columns and those marked common, in the table's order. Every source table
/// must have them; one that lacks a column would shift the others in the union.
fn common_columns(schema: &TableSchema, schemas: &[Arc<TableSchema>]) -> Vec<Expr> {
    let sources = || schemas.iter().filter(|s| SOURCE_TABLES.contains(&s.name.as_str()));
    let first = sources().next().expect("the schema itself is a source table");
    let is_common = |name: &str, common: bool| common || META_COLUMNS.contains(&name);
    first
        .columns
        .iter()
        .filter(|c| is_common(&c.name, c.common) && sources().all(|s| s.column(&c.name).is_some()))
        .map(|c| col(datafusion::common::Column::new(Some(schema.name.as_str()), c.name.as_str())))
        .collect()
}

/// One row per request. kube-apiserver answers a long-running request while it lasts, so that its row of record
/// is the start of the response; of all others it is the end. The check is kube-apiserver's own
/// (`BasicLongRunningRequestCheck` with its default verbs and subresources).
fn is_call() -> Expr {
    let any_of = |name: &str, values: &[&str]| col(name).in_list(values.iter().map(|v| lit(*v)).collect(), false);
    let long_running = any_of("verb", &["watch", "proxy"])
        .or(any_of("objectref_subresource", &["attach", "exec", "proxy", "log", "portforward"]));
    let started = long_running.clone().is_true().and(col("stage").eq(lit("ResponseStarted")));
    let finished = long_running.is_not_true().and(any_of("stage", &["ResponseComplete", "Panic"]));
    started.or(finished)
}
