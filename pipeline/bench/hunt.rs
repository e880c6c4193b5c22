//! Questions as people ask them, over what the whole path has stored, and how soon an event can be asked for.

use std::time::Instant;

use anyhow::{Result, ensure};
use event::Polled;
use futures::StreamExt;
use query::{HuntLimits, SessionContext};
use store::Store;
use store::search::{Query, SearchOptions, TimeRange};
use synthetic::Event;

use super::figure::Figures;
use super::measure::{median_ms, messages, quantile, steady};
use super::stages::Stored;
use crate::hunt::register;
use crate::rooms::runtime;

/// Name and query; the newest 50 matches.
const SEARCHES: [(&str, &str); 3] = [
    ("search-word", "objectref_subresource:exec"),
    ("search-phrase", "\"not authorized\""),
    ("search-wildcard", "eventName:Describe* NOT errorCode:*"),
];

/// Only how many.
const COUNTS: [(&str, &str); 2] =
    [("search-range", "response_code:>=400 sourceIPs:10.0.0.0/8"), ("search-count", "verb:get")];

const SQL: [(&str, &str); 4] = [
    ("sql-sources", "SELECT source, count(*) AS events, min(time), max(time) FROM events GROUP BY source"),
    (
        "sql-top",
        "SELECT actor_user_name, count(*) AS refused FROM kubernetes WHERE response_code >= 400 \
         GROUP BY actor_user_name ORDER BY refused DESC LIMIT 10",
    ),
    (
        "sql-latest",
        "SELECT time, source, actor_user_name, api_operation FROM events \
         WHERE actor_user_name LIKE 'system:serviceaccount:%' ORDER BY time DESC LIMIT 50",
    ),
    ("sql-raw", "SELECT count(*) FROM cloudtrail WHERE raw->'requestParameters'->>'name' IS NOT NULL"),
];

/// Events admitted at once when it is asked how soon they are seen.
const FRESH_UNIT: usize = 200;

pub fn hunt(stored: &mut Stored, stream: &[Event], seed: u64, rounds: usize, figures: &mut Figures) -> Result<()> {
    let store = stored.store.clone();
    // A first time that opens files is not what a session of hunting is like.
    let runs = 4 * rounds + 1;
    let grep = median_ms(rounds, || {
        let finder = memchr::memmem::Finder::new("\"exec\"");
        std::hint::black_box(stream.iter().filter(|event| finder.find(&event.bytes).is_some()).count());
        Ok(())
    })?;
    let everything = TimeRange { from: None, to: None };
    for (name, text) in SEARCHES {
        let query = Query::parse(text)?;
        let options = SearchOptions { range: everything, limit: Some(50), tables: None };
        let took = median_ms(runs, || {
            for batch in store.search(&query, &options)? {
                std::hint::black_box(batch?);
            }
            Ok(())
        })?;
        figures.add_against(name, took, grep);
    }
    for (name, text) in COUNTS {
        let query = Query::parse(text)?;
        let took = median_ms(runs, || {
            std::hint::black_box(store.count(&query, everything)?.rows);
            Ok(())
        })?;
        figures.add_against(name, took, grep);
    }
    let runtime = runtime()?;
    for (name, sql) in SQL {
        let took = median_ms(runs, || {
            // As `stakeout sql` does it, a session per question.
            let rows = runtime.block_on(ask(&store, sql))?;
            ensure!(rows > 0, "`{name}` finds nothing in the synthetic stream: it measures nothing");
            Ok(())
        })?;
        figures.add_against(name, took, grep);
    }
    fresh(stored, seed, runs, figures)
}

async fn ask(store: &Store, sql: &str) -> Result<usize> {
    let session: SessionContext = query::session(&query::Limits::HUNT);
    register(&session, store)?;
    let plan = query::plan_hunt(&session, sql).await?;
    let mut rows = 0;
    let mut stream = query::run_hunt(&session, plan, HuntLimits::default()).await?;
    while let Some(batch) = stream.next().await {
        rows += batch?.num_rows();
    }
    Ok(rows)
}

/// A unit is admitted and appended: when does a search for one of its events find it, and when a SELECT?
fn fresh(stored: &mut Stored, seed: u64, runs: usize, figures: &mut Figures) -> Result<()> {
    let runtime = runtime()?;
    // Another seed: other events than those that are stored.
    let more = steady(seed.wrapping_add(7_919), runs * FRESH_UNIT);
    let (mut by_search, mut by_sql) = (Vec::new(), Vec::new());
    for unit in messages(&more).chunks(FRESH_UNIT) {
        let polled = Polled { messages: unit.to_vec(), ..Polled::default() };
        let admitted = stored.door.admit(polled, &*stored.store)?;
        let Some(uid) = admitted.batches.first().and_then(|batch| last_uid(&batch.rows)) else { continue };
        let search = Query::parse(&format!("event_uid:\"{uid}\""))?;
        let sql = format!("SELECT 1 FROM events WHERE event_uid = '{uid}'");
        let started = Instant::now();
        stored.store.append(&admitted)?;
        let appended = started.elapsed();
        let started = Instant::now();
        let seen = stored.store.count(&search, TimeRange { from: None, to: None })?.rows;
        by_search.push((appended + started.elapsed()).as_secs_f64() * 1e3);
        ensure!(seen > 0, "event {uid} was appended and search does not see it");
        let started = Instant::now();
        let seen = runtime.block_on(ask(&stored.store, &sql))?;
        by_sql.push((appended + started.elapsed()).as_secs_f64() * 1e3);
        ensure!(seen > 0, "event {uid} was appended and sql does not see it");
    }
    for (name, mut took) in [("fresh-search", by_search), ("fresh-sql", by_sql)] {
        took.sort_by(f64::total_cmp);
        figures.add(name, quantile(&took, 0.5));
    }
    Ok(())
}

fn last_uid(rows: &arrow::record_batch::RecordBatch) -> Option<String> {
    let uids = rows.column_by_name("event_uid")?;
    let text = arrow::util::display::array_value_to_string(uids, rows.num_rows().checked_sub(1)?).ok()?;
    Some(text)
}
