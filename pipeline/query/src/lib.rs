//! The locked-down DataFusion session: what rules and hunts may say, the functions they have, the limits they
//! run under, and the tables and views they see.
//!
//! Promises: SQL can only read the registered tables (no DDL, DML, files, network, settings); one statement at a
//! time; memory, rows and time are limited and reaching a limit is visible; mistakes are reported with line,
//! column and the nearest name. What the tables hold is the business of whoever registers them.

mod batches;
mod catalog;
mod error;
mod functions;
mod glob;
mod hunt;
mod lookups;
mod prepared;
mod sandbox;
mod session;

pub use batches::batch_table;
pub use catalog::{META_COLUMNS, SOURCE_TABLES, register_tables};
pub use datafusion::catalog::TableProvider;
pub use datafusion::execution::context::SessionContext;
pub use error::{Problem, QueryError, nearest};
pub use hunt::{HuntLimits, collect, plan_hunt, run_hunt};
pub use lookups::{BOOKKEEPING, Expired, LookupProblem, Lookups, date_end};
pub use prepared::{Prepared, SwapTable, prepare};
pub use sandbox::plan_rule;
pub use session::{Limits, Purpose, fork, lookups, session, session_with};

#[cfg(test)]
mod tests;
