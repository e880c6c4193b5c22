//! Windowed rules over normalized batches of 8,192 rows, on one core, without parsing: what an event costs, and that it
//! does not cost more as the window has more slides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use detect::{Engine, History, RuleSet};
use event::{Admitted, Batch, Frontier, Message, Micros, Offsets, Origin, Polled, Source, Watermarks};
use normalize::Schemas;
use stakeout::config::Config;
use stakeout::rooms::{Door, load_rules, stored};

use super::{BATCH, SECOND};

const START: Micros = 1_760_000_400 * SECOND;
const EVENTS: usize = 400_000;

pub fn windows(stream: &[Message]) -> anyhow::Result<()> {
    let schemas = Schemas::builtin();
    println!("windows, one core, batches of {BATCH} rows, without parsing:");
    // 10,000 users who read 1,800 different secrets, one event each 20 ms: 180,000 events per hour.
    let reads = admit(
        &schemas,
        (0..EVENTS).map(|n| read(n, n * 7919 % 10_000, n * 104_729 % 1_800, START + n as i64 * SECOND / 50)),
    )?;
    let distinct = "SELECT cluster, actor_user_name, count(DISTINCT objectref_name) AS n FROM kubernetes \
                    WHERE verb = 'get' AND objectref_resource = 'secrets' GROUP BY cluster, actor_user_name \
                    HAVING count(DISTINCT objectref_name) > 1000";
    let took = run(&schemas, &[("distinct", "1h", "1m", distinct)], &reads)?;
    goal("distinct count, 10,000 keys x 1,800 values, 1 h / 1 min", took.events_per_second(), 1_000_000.0, "events/s");

    let count = "SELECT cluster, actor_user_name, count(*) AS n FROM kubernetes GROUP BY cluster, actor_user_name HAVING count(*) > 18";
    let coarse = best(|| run(&schemas, &[("count", "1h", "10m", count)], &reads))?;
    let fine = best(|| run(&schemas, &[("count", "1h", "10s", count)], &reads))?;
    println!(
        "  count, firing: 1 h / 10 min {:>9.0} events/s ({} findings), 1 h / 10 s {:>9.0} events/s ({} findings): {:.2}x (goal 1.3x)",
        coarse.events_per_second(),
        coarse.findings,
        fine.events_per_second(),
        fine.findings,
        fine.busy.as_secs_f64() / coarse.busy.as_secs_f64(),
    );
    drop(reads);

    forty(&schemas, stream)?;
    keys(&schemas)
}

/// The pack's windowed rules, filled up to forty with copies that differ in their thresholds' place in the text.
fn forty(schemas: &Schemas, stream: &[Message]) -> anyhow::Result<()> {
    let units = admit(schemas, stream.iter().cloned())?;
    let pack: Vec<_> =
        load_rules(&Config::default(), schemas)?.rules.into_iter().filter(|r| r.window.is_some()).collect();
    let mut files = Vec::new();
    for n in 0..40 {
        let rule = &pack[n % pack.len()];
        let path = format!("bench/{}-{n}.sql", rule.id);
        files.push((path.into(), rule.sql.replace("title: ", &format!("title: {n} "))));
    }
    let took = time(rule_set(schemas, &files)?, &units)?;
    println!("  {} windowed rules of the pack make the forty", pack.len());
    goal("40 stateful rules together, steady stream", took.events_per_second(), 100_000.0, "events/s");
    Ok(())
}

/// A million users within one window.
fn keys(schemas: &Schemas) -> anyhow::Result<()> {
    const KEYS: usize = 1_000_000;
    let count = "SELECT cluster, actor_user_name, count(*) AS n FROM kubernetes GROUP BY cluster, actor_user_name HAVING count(*) > 100";
    let set = rule_set(schemas, &[file("count", "24h", "1h", count)])?;
    let runtime = stakeout::rooms::runtime()?;
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    let before = resident();
    for chunk in 0..KEYS / 100_000 {
        let rows = (0..100_000).map(|n| {
            let n = chunk * 100_000 + n;
            read(n, n, 1, START + n as i64 * SECOND / 50)
        });
        // One chunk at a time: rows that were read are not held by anyone.
        for unit in admit(schemas, rows)? {
            let (marks, unit) = (unit.watermarks.clone(), Admitted { ranges: Default::default(), ..unit });
            runtime.block_on(engine.on_admitted(&unit))?;
            runtime.block_on(engine.on_commit(&marks, &Offsets::default(), &Nothing(schemas)))?;
        }
    }
    let state = engine.usage().values().map(|u| u.state_bytes).sum::<u64>();
    let grown = resident().saturating_sub(before);
    println!(
        "  1,000,000 live keys of a count: {:.0} MB by its own account (goal 200 MB); the process grew by {:.0} MB, buffers of reading included",
        state as f64 / 1e6,
        grown as f64 / 1e6
    );
    Ok(())
}

struct Took {
    busy: Duration,
    events: usize,
    findings: usize,
}

impl Took {
    fn events_per_second(&self) -> f64 {
        self.events as f64 / self.busy.as_secs_f64()
    }
}

fn goal(what: &str, is: f64, goal: f64, unit: &str) {
    println!("  {what}: {is:.0} {unit} (goal {goal:.0})");
}

fn best(mut work: impl FnMut() -> anyhow::Result<Took>) -> anyhow::Result<Took> {
    let first = work()?;
    let second = work()?;
    Ok(if second.busy < first.busy { second } else { first })
}

fn file(id: &str, window: &str, every: &str, sql: &str) -> (std::path::PathBuf, String) {
    let header = format!(
        "/*\ntitle: Bench\nseverity: low\nentity: [cluster, actor_user_name]\nsummary: \"{{actor_user_name}}\"\nwindow: {window}\nevery: {every}\n*/\n"
    );
    (format!("bench/{id}.sql").into(), header + sql)
}

fn rule_set(schemas: &Schemas, files: &[(std::path::PathBuf, String)]) -> anyhow::Result<RuleSet> {
    Ok(stakeout::rooms::runtime()?.block_on(RuleSet::parse(files, &stored(schemas), &schemas.hash()))?)
}

fn run(schemas: &Schemas, rules: &[(&str, &str, &str, &str)], units: &[Admitted]) -> anyhow::Result<Took> {
    let files: Vec<_> = rules.iter().map(|(id, window, every, sql)| file(id, window, every, sql)).collect();
    time(rule_set(schemas, &files)?, units)
}

/// All units through an engine, each committed when the next but one has come.
fn time(set: RuleSet, units: &[Admitted]) -> anyhow::Result<Took> {
    let runtime = stakeout::rooms::runtime()?;
    let schemas = Schemas::builtin();
    let history = Nothing(&schemas);
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default()).without_evidence();
    let mut findings = std::collections::BTreeSet::new();
    let started = Instant::now();
    for unit in units {
        let found = runtime.block_on(engine.on_admitted(unit))?;
        let settled = runtime.block_on(engine.on_commit(&unit.watermarks, &Offsets::default(), &history))?;
        findings.extend(found.findings.into_iter().chain(settled.findings).map(|f| f.id));
    }
    let busy = started.elapsed();
    Ok(Took { busy, events: units.iter().map(Admitted::rows).sum(), findings: findings.len() })
}

/// Normalizes and admits in batches; the watermark follows two seconds behind.
fn admit(schemas: &Schemas, messages: impl Iterator<Item = Message>) -> anyhow::Result<Vec<Admitted>> {
    let mut door = Door::new(&Config::default(), schemas, Watermarks::default());
    let mut units = Vec::new();
    let mut messages = messages.peekable();
    while messages.peek().is_some() {
        let chunk: Vec<Message> = messages.by_ref().take(BATCH).collect();
        let polled = Polled { messages: chunk, ..Polled::default() };
        let mut unit = door.admit_at(polled, START + 400 * 86_400 * SECOND, &NothingHeld)?;
        unit.batches.retain(|b: &Batch| b.rows.num_rows() > 0);
        units.push(unit);
    }
    Ok(units)
}

fn read(n: usize, user: usize, secret: usize, time: Micros) -> Message {
    let at = event::format_micros(time);
    let bytes = format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{n:016x}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/shop/secrets/s{secret}","verb":"get","user":{{"username":"user-{user:07}"}},"sourceIPs":["10.0.0.1"],"objectRef":{{"resource":"secrets","namespace":"shop","name":"s{secret}","apiVersion":"v1"}},"responseStatus":{{"code":200}},"requestReceivedTimestamp":"{at}","stageTimestamp":"{at}"}}"#
    );
    Message {
        source: Source::Kubernetes,
        cluster: Some("prod".into()),
        origin: Origin::Live,
        topic: "kubernetes".into(),
        partition: 0,
        offset: n as i64,
        file_sha256: None,
        received: time,
        bytes: bytes.into_bytes(),
    }
}

struct NothingHeld;

impl event::Seen for NothingHeld {
    fn seen(&self, _: &str, keys: &[event::RowKey]) -> Result<Vec<bool>, event::SeenError> {
        Ok(vec![false; keys.len()])
    }
}

struct Nothing<'a>(&'a Schemas);

impl History for Nothing<'_> {
    fn table(&self, name: &str) -> Arc<dyn query::TableProvider> {
        query::batch_table(self.0.table(name).expect("a stored table").arrow(), Vec::new())
    }
}

/// Bytes of memory that the process has.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
