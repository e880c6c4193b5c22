//! Sessions: DataFusion's functions minus those that look outside, plus ours, under a memory limit.

use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider};
use datafusion::catalog::{CatalogProviderList, SchemaProvider};
use datafusion::config::Dialect;
use datafusion::execution::SessionState;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::context::{SessionConfig, SessionContext};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;

use crate::{Lookups, functions};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// SQL that runs unattended: no catalog queries, no spilling to disk.
    Rule,
    /// SQL that a person typed: may explain and list tables, and sort more than fits in memory.
    Hunt,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub purpose: Purpose,
    /// Shared by all plans of the session.
    pub memory_bytes: usize,
    /// Threads per plan.
    pub partitions: usize,
}

impl Limits {
    /// A rule's window rarely holds more than some 10 MB; a rule that needs more is degraded, not its neighbours.
    pub const RULE: Limits = Limits { purpose: Purpose::Rule, memory_bytes: 256 << 20, partitions: 1 };
    pub const HUNT: Limits = Limits { purpose: Purpose::Hunt, memory_bytes: 512 << 20, partitions: 1 };
}

/// Scalar functions that say something about files.
const DENIED: [&str; 2] = ["input_file_name", "file_row_index"];

/// Where tables live; the names are DataFusion's defaults.
const CATALOG: &str = "datafusion";
const SCHEMA: &str = "public";

/// A session without tables. See [`crate::register_tables`].
pub fn session(limits: &Limits) -> SessionContext {
    session_with(limits, Arc::default())
}

/// A session with the lookups as its only tables, and the functions that ask them.
pub fn session_with(limits: &Limits, lookups: Arc<Lookups>) -> SessionContext {
    let disk = match limits.purpose {
        Purpose::Rule => DiskManagerMode::Disabled,
        Purpose::Hunt => DiskManagerMode::OsTmpDirectory,
    };
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory_bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(disk))
        .build_arc()
        .expect("an environment without directories of its own cannot fail to build");
    let scalars = SessionStateDefaults::default_scalar_functions()
        .into_iter()
        .filter(|f| !DENIED.contains(&f.name()))
        .chain(functions::all(&lookups))
        .collect();
    let stock = SessionStateDefaults::default_aggregate_functions().into_iter();
    let aggregates = stock.filter(|f| f.name() != "count").chain([Arc::new(functions::count::function())]).collect();
    // No table factories and no file formats: there is nothing that could open a file by name.
    let mut state = SessionStateBuilder::new()
        .with_config(config(limits).with_extension(lookups))
        .with_runtime_env(runtime)
        .with_scalar_functions(scalars)
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(aggregates)
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_function_list(SessionStateDefaults::default_table_functions())
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .build();
    datafusion_functions_json::register_all(&mut state).expect("a fresh session takes new functions");
    SessionContext::new_with_state(with_empty_catalog(state))
}

/// The same functions, limits, lookups and memory pool with no other tables: for a plan over other rows under the
/// same names.
pub fn fork(ctx: &SessionContext) -> SessionContext {
    SessionContext::new_with_state(with_empty_catalog(ctx.state()))
}

/// The lookups of a session. They are tables too, but none of events: time does not cut them.
pub fn lookups(ctx: &SessionContext) -> Arc<Lookups> {
    lookups_of(&ctx.state())
}

fn lookups_of(state: &SessionState) -> Arc<Lookups> {
    state.config().get_extension::<Lookups>().unwrap_or_default()
}

fn config(limits: &Limits) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(limits.partitions)
        .with_information_schema(limits.purpose == Purpose::Hunt)
        .with_create_default_catalog_and_schema(false);
    let options = config.options_mut();
    // In the generic dialect `raw->>'a' = 'x'` means `raw ->> ('a' = 'x')`.
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = true;
    // Plans are reset and run again over other rows, which is not sound with filters made from earlier rows.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // For nested files, which our tables are not; over 200 columns it was an eighth of what `stakeout check` took.
    options.optimizer.enable_leaf_expression_pushdown = false;
    config
}

fn with_empty_catalog(mut state: SessionState) -> SessionState {
    let (catalog, schema) = (MemoryCatalogProvider::new(), MemorySchemaProvider::new());
    for (name, table) in lookups_of(&state).tables() {
        schema.register_table(name.to_owned(), table).expect("a schema in memory takes tables");
    }
    catalog.register_schema(SCHEMA, Arc::new(schema)).expect("a catalog in memory takes a schema");
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    state.register_catalog_list(Arc::new(list));
    state
}

/// Names of the registered tables, for hints.
pub(crate) fn table_names(ctx: &SessionContext) -> Vec<String> {
    ctx.catalog(CATALOG).and_then(|c| c.schema(SCHEMA)).map(|s| s.table_names()).unwrap_or_default()
}
