//! State tables in the plan of a window: at each boundary they are the versions that it sees.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use event::{Micros, Origin};
use query::{QueryError, SwapTable};

use crate::memory::{StateTable, States};

/// One place at which a plan reads a state table.
pub struct Joined {
    state: Arc<StateTable>,
    columns: Vec<usize>,
    table: SwapTable,
}

/// Gives each scan of a state table a table of its own.
pub fn joined(plan: &LogicalPlan, states: &[Arc<StateTable>]) -> Result<(LogicalPlan, Vec<Joined>)> {
    let mut joined = Vec::new();
    let plan = plan.clone().transform_down_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
        let Some(state) = states.iter().find(|s| s.name == scan.table_name.table()) else {
            return Ok(Transformed::no(node));
        };
        let all = || (0..state.schema.fields().len()).collect();
        let table = SwapTable::new(scan.projected_schema.inner().clone());
        let source = provider_as_source(table.provider());
        let columns = scan.projection.clone().unwrap_or_else(all);
        joined.push(Joined { state: state.clone(), columns, table });
        let replaced = LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?;
        let replaced = scan.filters.iter().cloned().try_fold(replaced, LogicalPlanBuilder::filter)?.build()?;
        // Below it is what was just put there.
        Ok(Transformed::new(replaced, true, TreeNodeRecursion::Jump))
    })?;
    Ok((plan.data, joined))
}

impl Joined {
    /// The versions visible before `boundary` that hold at some time from `since` on.
    pub async fn fill(
        &self,
        states: &States<'_>,
        origin: Origin,
        (since, boundary): (Micros, Micros),
    ) -> Result<(), QueryError> {
        let versions = states.versions(&self.state, origin, boundary, since).await.map_err(QueryError::run)?;
        let rows = versions.project(&self.columns).map_err(|e| QueryError::run(e.into()))?;
        self.table.set(vec![rows]);
        Ok(())
    }

    pub fn clear(&self) {
        self.table.set(Vec::new());
    }
}
