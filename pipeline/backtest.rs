//! `stakeout backtest`: rules over what is stored, by the same engine and with the same ids as live, into no alerts.db.
//! Single-event rules see the rows of the time range in the order of their admission; windowed rules every boundary that
//! those rows can touch, as over a stream that has ended.

mod compare;
mod report;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write, stdout};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use detect::{Engine, Rule, RuleSet};
use event::{Admitted, Batch, Finding, Frontier, Micros, Origin, Standing, Watermarks, column};
use futures::StreamExt;
use normalize::Schemas;
use query::SessionContext;
use store::Store;
use store::search::TimeRange;
use tokio::runtime::Runtime;

use crate::cli::{self, Format};
use crate::config::Config;
use crate::hunt;
use crate::rooms::{Committed, load_rules, load_schemas, read_store, runtime, wall_clock};
use crate::rules;

const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// What one rule found, and what that took.
pub(crate) struct Tried {
    pub rule: Arc<Rule>,
    /// By time and id.
    pub findings: Vec<Finding>,
    /// Rows of its tables within the range.
    pub rows: u64,
    /// Evaluation; of a windowed rule with the reading of its rows.
    pub took: Duration,
}

/// True if something was found; of a comparison: if both find the same.
pub fn run(args: &cli::Backtest, mut config: Config) -> Result<bool> {
    let schemas = load_schemas(&config)?;
    let dir = &config.data_dir;
    if !dir.join("manifest.db").exists() {
        bail!("{} is no data directory of stakeout\nhint: name one with --data-dir", dir.display());
    }
    let store = read_store(dir, &schemas)?;
    let range = args.span.resolve(wall_clock());
    let Some(dirs) = &args.compare else {
        let rules = load_rules(&config, &schemas)?;
        check_names(&args.rules, &[&rules])?;
        let tried = Backtest::new(&store, range)?.all(&chosen(rules, &args.rules))?;
        report::write(&tried, args.format)?;
        return Ok(tried.iter().any(|t| !t.findings.is_empty()));
    };
    let [a, b] = dirs.as_slice() else { bail!("--compare takes two folders") };
    let mut load = |dir: &Path| load_from(&mut config, dir, &schemas);
    let (before, after) = (load(a)?, load(b)?);
    check_names(&args.rules, &[&before, &after])?;
    let backtest = Backtest::new(&store, range)?;
    let (before, after) = (backtest.all(&chosen(before, &args.rules))?, backtest.all(&chosen(after, &args.rules))?);
    compare::write(&before, &after, args.format)
}

fn load_from(config: &mut Config, dir: &Path, schemas: &Schemas) -> Result<RuleSet> {
    if !dir.is_dir() {
        bail!("{} is no folder of rules", dir.display());
    }
    config.detections = Some(dir.to_owned());
    load_rules(config, schemas)
}

/// Each is a rule of one of the sets at least.
fn check_names(ids: &[String], sets: &[&RuleSet]) -> Result<()> {
    for id in ids {
        if !sets.iter().any(|rules| rules.get(id).is_some()) {
            rules::find(sets[sets.len() - 1], id)?;
        }
    }
    Ok(())
}

fn chosen(rules: RuleSet, ids: &[String]) -> RuleSet {
    match ids.is_empty() {
        true => rules,
        false => rules.only(&ids.iter().map(String::as_str).collect::<Vec<_>>()),
    }
}

/// Stored rows to try rules on.
struct Backtest<'a> {
    store: &'a Store,
    session: SessionContext,
    runtime: Runtime,
    range: TimeRange,
}

impl<'a> Backtest<'a> {
    fn new(store: &'a Store, range: TimeRange) -> Result<Backtest<'a>> {
        let session = query::session(&query::Limits::HUNT);
        hunt::register(&session, store)?;
        Ok(Backtest { store, session, runtime: runtime()?, range })
    }

    fn all(&self, rules: &RuleSet) -> Result<Vec<Tried>> {
        let mut line = ProgressLine::new(rules.rules.len());
        let mut tries: Vec<Try> = rules.rules.iter().map(|rule| Try::new(rules, rule.clone())).collect();
        let done = self.runtime.block_on(self.run(&mut tries, rules, &mut line));
        line.clear();
        done?;
        Ok(tries.into_iter().map(Try::finish).collect())
    }

    async fn run(&self, tries: &mut [Try], rules: &RuleSet, line: &mut ProgressLine) -> Result<()> {
        let read: BTreeSet<&String> = tries.iter().flat_map(|t| &t.rule.tables).collect::<BTreeSet<_>>();
        let read: Vec<String> =
            rules.schemas.iter().map(|s| &s.name).filter(|name| read.contains(name)).cloned().collect();
        for table in &read {
            let rows = self.count(table).await?;
            tries.iter_mut().filter(|t| t.rule.tables.contains(table)).for_each(|t| t.rows += rows);
        }
        for table in &read {
            self.single(table, tries, line).await?;
        }
        for at in 0..tries.len() {
            if !tries[at].rule.is_single() {
                line.show(|| format!("rule {} of {}: {}", at + 1, tries.len(), tries[at].rule.id));
                self.to_the_end(&mut tries[at]).await?;
            }
        }
        Ok(())
    }

    /// Passes the rows of a table by the rules without a window that read it.
    async fn single(&self, table: &str, tries: &mut [Try], line: &mut ProgressLine) -> Result<()> {
        let mut readers: Vec<&mut Try> =
            tries.iter_mut().filter(|t| t.rule.window.is_none() && t.rule.tables.iter().any(|n| n == table)).collect();
        if readers.is_empty() {
            return Ok(());
        }
        let sql = format!("SELECT * FROM {table}{}", self.condition());
        let mut rows = self.session.sql(&sql).await?.execute_stream().await?;
        let mut passed = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            passed += batch.num_rows();
            let admitted =
                Admitted { batches: vec![Batch { table: table.into(), rows: batch }], ..Admitted::default() };
            for reader in &mut readers {
                reader.admit(&admitted).await?;
            }
            line.show(|| format!("{passed} rows of {table} past {} rules", readers.len()));
        }
        Ok(())
    }

    /// Every boundary that rows of the range can touch, of live rows and of imported ones; what rules that remember found
    /// early, settled.
    async fn to_the_end(&self, rule: &mut Try) -> Result<()> {
        let range = match (self.range.from, self.range.to) {
            (None, None) => None,
            // Boundaries beyond the rows find nothing and would be walked all the same.
            (from, to) => match self.edges(&rule.rule.tables).await? {
                None => return Ok(()),
                Some((first, last)) => {
                    let (from, last) = (from.map_or(first, |f| f.max(first)), to.map_or(last, |t| (t - 1).min(last)));
                    if from > last {
                        return Ok(());
                    }
                    Some((from, last))
                }
            },
        };
        for origin in [Origin::Live, Origin::Import] {
            let started = Instant::now();
            let output = rule.engine.finish_bounded(origin, range, &Committed(self.store)).await?;
            rule.took += started.elapsed();
            rule.findings.extend(output.findings);
        }
        Ok(())
    }

    async fn count(&self, table: &str) -> Result<u64> {
        let batches = self.query(&format!("SELECT count(*) AS n FROM {table}{}", self.condition())).await?;
        Ok(batches.first().map_or(0, |b| b.column(0).as_primitive::<Int64Type>().value(0)) as u64)
    }

    /// The first and last event time of these tables.
    async fn edges(&self, tables: &[String]) -> Result<Option<(Micros, Micros)>> {
        let mut edges: Option<(Micros, Micros)> = None;
        for table in tables {
            for batch in self.query(&format!("SELECT min(time) AS a, max(time) AS b FROM {table}")).await? {
                let time =
                    |at: usize| batch.column(at).as_primitive::<TimestampMicrosecondType>().iter().flatten().next();
                if let (Some(first), Some(last)) = (time(0), time(1)) {
                    edges = Some(edges.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
                }
            }
        }
        Ok(edges)
    }

    async fn query(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        Ok(self.session.sql(sql).await?.collect().await?)
    }

    fn condition(&self) -> String {
        let bound = |op: &str, time: Micros| {
            // Of exactly the column's type: another unit would cast the column and prune nothing.
            let text = event::format_micros(time);
            format!("{} {op} arrow_cast('{text}', 'Timestamp(Microsecond, Some(\"UTC\"))')", column::TIME)
        };
        let from = self.range.from.map(|time| bound(">=", time));
        let to = self.range.to.map(|time| bound("<", time));
        let bounds: Vec<String> = from.into_iter().chain(to).collect();
        if bounds.is_empty() { String::new() } else { format!(" WHERE {}", bounds.join(" AND ")) }
    }
}

/// One rule under way: an engine of its own, so that its time is its own.
struct Try {
    rule: Arc<Rule>,
    engine: Engine,
    findings: Vec<Finding>,
    rows: u64,
    took: Duration,
}

impl Try {
    fn new(rules: &RuleSet, rule: Arc<Rule>) -> Try {
        let engine = Engine::new(rules.clone().only(&[rule.id.as_str()]), Frontier::default(), &Watermarks::default());
        Try { rule, engine, findings: Vec::new(), rows: 0, took: Duration::ZERO }
    }

    async fn admit(&mut self, admitted: &Admitted) -> Result<()> {
        let started = Instant::now();
        let output = self.engine.on_admitted(admitted).await?;
        self.took += started.elapsed();
        self.findings.extend(output.findings);
        Ok(())
    }

    /// Several findings with one id are one finding told again: the last counts, and is none if it takes it back.
    fn finish(self) -> Tried {
        let Try { rule, findings, rows, took, .. } = self;
        let mut last = std::collections::BTreeMap::new();
        for finding in findings {
            last.insert((finding.time.first(), finding.id.clone(), finding.origin.name()), finding);
        }
        last.retain(|_, finding| finding.standing != Standing::Retracted);
        Tried { rule, findings: last.into_values().collect(), rows, took }
    }
}

/// A line on the terminal that rewrites itself; silent elsewhere.
struct ProgressLine {
    shown: Option<Instant>,
    terminal: bool,
}

impl ProgressLine {
    fn new(rules: usize) -> ProgressLine {
        let mut line = ProgressLine { shown: None, terminal: std::io::stderr().is_terminal() };
        line.show(|| format!("{rules} rules: counting rows"));
        line
    }

    fn show(&mut self, text: impl FnOnce() -> String) {
        if !self.terminal || self.shown.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        eprint!("\r{}\x1b[K", text());
    }

    fn clear(&self) {
        if self.terminal && self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

/// Findings as lines of JSON.
fn ndjson<T: serde::Serialize>(rows: impl Iterator<Item = T>) -> Result<()> {
    let mut out = std::io::BufWriter::new(stdout().lock());
    for row in rows {
        serde_json::to_writer(&mut out, &row)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// A CSV cell: quoted, quotes doubled.
fn cell(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
