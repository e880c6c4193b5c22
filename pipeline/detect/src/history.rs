//! The stored rows as detection sees them.

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use crate::memory::Retained;

/// Committed rows, each table with its full schema. A provider should push conditions on `time`, `topic`,
/// `partition` and `offset` down as far as it can; it need not apply them exactly.
pub trait History: Send + Sync {
    fn table(&self, name: &str) -> Arc<dyn TableProvider>;

    /// What is remembered of rows that were stored and have expired.
    fn retained(&self) -> Option<Arc<Retained>> {
        None
    }
}
