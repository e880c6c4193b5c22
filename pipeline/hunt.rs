//! `stakeout search` and `stakeout sql`: reading a data directory, beside a running process or without one.

use std::io::{BufWriter, Write, stdout};
use std::time::Instant;

use anyhow::{Result, bail};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use store::Store;
use store::search::{Query, SearchOptions};

use crate::cli::{self, Format};
use crate::config::Config;
use crate::output::Output;
use crate::rooms::{load_schemas, read_store, wall_clock};

/// What a person sees of an event at first: when, where, who, what, with what outcome. `--format ndjson` has it all.
const TABLE_COLUMNS: [&str; 9] = [
    "time",
    "source",
    "cluster",
    "actor_user_name",
    "api_operation",
    "resource_type",
    "resource_name",
    "src_endpoint_ip",
    "status",
];

/// True if something matched.
pub fn search(args: &cli::Search, config: &Config) -> Result<bool> {
    let store = open(config)?;
    let query = Query::parse(&args.query)?;
    let range = args.span.resolve(wall_clock());
    let started = Instant::now();
    if args.count {
        let count = store.count(&query, range)?;
        println!("{}", count.rows);
        return Ok(count.rows > 0);
    }
    let limit = (!args.all).then_some(args.limit);
    let mut hits = store.search(&query, &SearchOptions { range, limit, tables: None })?;
    let mut output = Output::new(BufWriter::new(stdout().lock()), args.format);
    let mut shown = 0;
    for batch in &mut hits {
        let batch = batch?;
        shown += batch.num_rows();
        output.write(&if args.format == Format::Table { narrow(&batch)? } else { batch })?;
    }
    output.finish()?;
    let more = if limit == Some(shown) { "; there may be more: --limit N, --all or --count" } else { "" };
    eprintln!("{shown} events, newest first ({:.0} ms){}", started.elapsed().as_secs_f64() * 1e3, more);
    Ok(shown > 0)
}

fn narrow(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let columns: Vec<usize> = TABLE_COLUMNS.iter().filter_map(|name| schema.index_of(name).ok()).collect();
    Ok(batch.project(&columns)?)
}

/// True if there was a row.
pub fn sql(args: &cli::Sql, config: &Config) -> Result<bool> {
    let store = open(config)?;
    let session = query::session(&query::Limits::HUNT);
    register(&session, &store)?;
    let limits = query::HuntLimits { rows_max: args.rows_max as u64, timeout: args.timeout };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut output = Output::new(BufWriter::new(stdout().lock()), args.format);
    let rows = runtime.block_on(async {
        let plan = query::plan_hunt(&session, &args.query).await?;
        let mut stream = query::run_hunt(&session, plan, limits).await?;
        let mut rows = 0;
        let mut stopped = None;
        while let Some(batch) = stream.next().await {
            match batch {
                Ok(batch) => {
                    rows += batch.num_rows();
                    output.write(&batch)?;
                }
                Err(error) => stopped = Some(error),
            }
        }
        output.finish()?;
        match stopped {
            Some(error) => Err(anyhow::Error::from(error)),
            None => Ok(rows),
        }
    })?;
    stdout().flush()?;
    Ok(rows > 0)
}

fn open(config: &Config) -> Result<Store> {
    let dir = &config.data_dir;
    if !dir.join("manifest.db").exists() {
        bail!("{} is no data directory of stakeout\nhint: name one with --data-dir", dir.display());
    }
    Ok(read_store(dir, &load_schemas(config)?)?)
}

/// Every stored table, with the rows that are not sealed yet.
pub fn register(session: &query::SessionContext, store: &Store) -> Result<()> {
    let stored = |name: &str| store.table(name).expect("the tables registered are those of the store");
    Ok(query::register_tables(session, store.tables(), &stored)?)
}
