//! State tables in the plan of a window: at each boundary they are the versions that it sees.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use event::{Micros, Origin};
use query::{QueryError, SwapTable};

use crate::memory::{Memory, StateTable, States};

/// From where state tables are known.
#[derive(Clone, Copy)]
pub enum Known<'a> {
    /// At a boundary that is final: all that it sees is stored.
    Final(&'a States<'a>),
    /// Ahead of it: what is remembered by now.
    AtHand(&'a Memory),
    /// Of a rule that joins none.
    Nothing,
}

/// One place at which a plan reads a state table.
pub struct Joined {
    state: Arc<StateTable>,
    columns: Vec<usize>,
    table: SwapTable,
}

/// Gives each scan of a state table a table of its own.
pub fn joined(plan: &LogicalPlan, states: &[Arc<StateTable>]) -> datafusion::error::Result<(LogicalPlan, Vec<Joined>)> {
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
    /// The versions visible before `boundary` that hold at some time from `since` on. False if they are not at hand.
    pub async fn fill(
        &self,
        known: Known<'_>,
        origin: Origin,
        (since, boundary): (Micros, Micros),
    ) -> Result<bool, QueryError> {
        let versions = match known {
            Known::Final(states) => Some(states.versions(&self.state, origin, boundary, since).await),
            Known::AtHand(memory) => memory.versions(&self.state, origin, boundary, since),
            Known::Nothing => {
                return Err(QueryError::Run("a state table is known at one boundary at a time".to_owned()));
            }
        };
        let Some(versions) = versions else { return Ok(false) };
        let rows = versions.map_err(QueryError::run)?.project(&self.columns).map_err(|e| QueryError::run(e.into()))?;
        self.table.set(vec![rows]);
        Ok(true)
    }

    /// Times from which on versions can be seen that came since windows last looked ahead.
    pub fn came<'m>(&'m self, memory: &'m Memory) -> impl Iterator<Item = Micros> {
        memory.came(&self.state)
    }

    pub fn is_known(&self, memory: &Memory) -> bool {
        memory.has(&self.state)
    }

    /// Times behind `now` from which on versions can be seen.
    pub fn seen_after<'m>(&'m self, memory: &'m Memory, now: Micros) -> impl Iterator<Item = Micros> {
        memory.seen_after(&self.state, now)
    }

    pub fn clear(&self) {
        self.table.set(Vec::new());
    }
}
