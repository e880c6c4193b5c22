//! What a data directory holds, read as another process would: the rows' hashes and the manifest's positions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use store::Store;

pub type Hashes = BTreeSet<[u8; 16]>;

fn open(data: &Path) -> Result<Store, store::StoreError> {
    Store::open_read_only(data, stakeout::rooms::stored(&normalize::Schemas::builtin()))
}

/// The manifest's positions; none before there is a manifest.
pub fn positions(data: &Path) -> BTreeMap<(String, i32), i64> {
    let offsets = open(data).and_then(|store| store.offsets()).unwrap_or_default();
    offsets.0.into_iter().map(|((topic, partition), next)| ((topic.to_string(), partition), next)).collect()
}

/// Commits and rows in the manifest; zero before there is one.
pub fn committed(data: &Path) -> (u64, u64) {
    open(data).map_or((0, 0), |s| (s.sequence().unwrap_or(0), s.stats().map_or(0, |stats| stats.rows)))
}

/// All rows of a query over what is committed.
pub fn query(data: &Path, sql: &str) -> Vec<RecordBatch> {
    let session = query::session(&query::Limits::HUNT);
    stakeout::hunt::register(&session, &open(data).unwrap()).unwrap();
    let limits = query::HuntLimits { rows_max: u64::MAX, ..query::HuntLimits::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let plan = query::plan_hunt(&session, sql).await.unwrap();
        query::run_hunt(&session, plan, limits).await.unwrap().try_collect().await.unwrap()
    })
}

/// Hashes of all rows of all sources. No row may be there twice.
pub fn hashes(data: &Path) -> Hashes {
    let batches = ["events", "unparsed"].map(|table| query(data, &format!("SELECT row_hash FROM {table}"))).concat();
    let hashes = |batch: &RecordBatch| {
        let column = batch.column(0).as_fixed_size_binary().clone();
        (0..column.len()).map(move |row| <[u8; 16]>::try_from(column.value(row)).unwrap()).collect::<Vec<_>>()
    };
    let stored: Hashes = batches.iter().flat_map(hashes).collect();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), stored.len(), "a row is stored twice");
    stored
}

/// Each of `produced` is there once, and nothing else but possibly some of `expired`.
pub fn assert_exactly_once(data: &Path, produced: &Hashes, expired: &Hashes) {
    let stored = hashes(data);
    let lost = produced.difference(&stored).count();
    let added = stored.difference(produced).filter(|hash| !expired.contains(*hash)).count();
    assert_eq!((lost, added), (0, 0), "events lost and rows that nobody produced");
}
