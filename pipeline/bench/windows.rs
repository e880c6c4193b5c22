//! Windowed rules over normalized batches of 8,192 rows, on one core, without parsing: what an event costs, and that it
//! does not cost more as the window has more slides.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use detect::{Engine, Folder, History, Rule, RuleSet};
use event::{Admitted, Batch, Frontier, Message, Micros, Offsets, Origin, Polled, Source, Watermarks};
use normalize::Schemas;

use super::figure::Figures;
use super::measure::{BATCH, SECOND, best};
use super::stages::Skip;
use crate::config::Config;
use crate::pack;
use crate::rooms::{Door, load_rules, rules_dir, runtime, stored, wall_clock};

const START: Micros = 1_760_000_400 * SECOND;
const USERS: usize = 10_000;
const SECRETS: usize = 1_800;
/// Live keys for each event of the stream: a million for the usual size of a run.
const KEYS_PER_EVENT: usize = 10;
const READS_PER_EVENT: usize = 4;
/// An hour and a half of them: rows also leave the window.
const READS_FIRING: usize = 270_000;
/// Users who are above the count's threshold all the time, with one event in ten; the others never are.
const BUSY: usize = 100;
/// One count by several thresholds, as for several severities.
const TIERS: [(&str, u32); 5] = [("low", 60), ("medium", 120), ("high", 240), ("critical", 480), ("fatal", 960)];
const QUICKEST_OF: usize = 7;
/// Rounds of what is told as a ratio of two.
const ROUNDS_OF_TWO: usize = 21;

pub fn windows(stream: &[Message], skip: &Skip, rounds: usize, figures: &mut Figures) -> Result<()> {
    let schemas = Schemas::builtin();
    distinct(&schemas, stream.len() * READS_PER_EVENT, rounds, figures)?;
    fine(&schemas, figures)?;
    forty(&schemas, stream, skip, figures)?;
    keys(&schemas, stream.len() * KEYS_PER_EVENT, figures)
}

fn who_what(n: usize) -> (usize, usize) {
    (mixed(n, 1) % USERS, mixed(n, 2) % SECRETS)
}

/// 10,000 users who read 1,800 different secrets, one event each 20 ms: 180,000 events per hour.
fn reads(schemas: &Schemas, events: usize, who: impl Fn(usize) -> usize) -> Result<Vec<Admitted>> {
    admit(schemas, (0..events).map(|n| read(n, who(n), who_what(n).1, START + n as i64 * SECOND / 50)))
}

fn distinct(schemas: &Schemas, events: usize, rounds: usize, figures: &mut Figures) -> Result<()> {
    let reads = reads(schemas, events, |n| who_what(n).0)?;
    let distinct = "SELECT cluster, actor_user_name, count(DISTINCT objectref_name) AS n FROM kubernetes \
                    WHERE verb = 'get' AND objectref_resource = 'secrets' GROUP BY cluster, actor_user_name \
                    HAVING count(DISTINCT objectref_name) > 1000";
    let run = || run(schemas, &[("distinct", "1h", "1m", distinct)], &reads);
    let took = quickest((0..QUICKEST_OF).map(|_| run()).collect::<Result<_>>()?);
    let insert = best(rounds, || {
        let mut seen = HashSet::new();
        for n in 0..events {
            std::hint::black_box(seen.insert(who_what(n)));
        }
    });
    figures.add_against("window-distinct", took.events_per_second(), events as f64 / insert.as_secs_f64());
    Ok(())
}

/// A count that fires: by finer slides, and by several thresholds.
fn fine(schemas: &Schemas, figures: &mut Figures) -> Result<()> {
    let who = |n: usize| if n.is_multiple_of(10) { mixed(n, 3) % BUSY } else { who_what(n).0 };
    let reads = reads(schemas, READS_FIRING, who)?;
    let count = |more_than: u32| {
        format!(
            "SELECT cluster, actor_user_name, count(*) AS n FROM kubernetes GROUP BY cluster, actor_user_name HAVING count(*) > {more_than}"
        )
    };
    let every = |every: &str| run(schemas, &[("count", "1h", every, &count(60))], &reads);
    let (coarse, fine) = in_turn(ROUNDS_OF_TWO, || every("10m"), || every("10s"))?;
    figures.add_against("window-fine", fine.ns_per_event(), coarse.ns_per_event());
    let tiers = TIERS.map(|(id, more_than)| (id, count(more_than)));
    let tiers = tiers.each_ref().map(|(id, sql)| (*id, "1h", "1m", sql.as_str()));
    let (one, all) = in_turn(QUICKEST_OF, || run(schemas, &tiers[..1], &reads), || run(schemas, &tiers, &reads))?;
    figures.add_against("window-tiers", all.ns_per_event(), one.ns_per_event());
    Ok(())
}

/// The quickest of each: a machine that changes its speed does so to both.
fn in_turn(rounds: usize, a: impl Fn() -> Result<Took>, b: impl Fn() -> Result<Took>) -> Result<(Took, Took)> {
    let both: Vec<(Took, Took)> = (0..rounds).map(|_| Ok((a()?, b()?))).collect::<Result<_>>()?;
    let (a, b) = both.into_iter().unzip();
    Ok((quickest(a), quickest(b)))
}

/// The pack's windowed rules, filled up to forty with copies of those that share no panes with a copy.
fn forty(schemas: &Schemas, stream: &[Message], skip: &Skip, figures: &mut Figures) -> Result<()> {
    let units = admit(schemas, stream.iter().cloned())?;
    let pack: Vec<_> =
        load_rules(&Config::default(), schemas)?.rules.into_iter().filter(|r| r.window.is_some()).collect();
    anyhow::ensure!(
        !pack.is_empty(),
        "the pack has no rule with a window\nhint: run this beside `detections/`, or elsewhere"
    );
    let has_no_panes = |rule: &&Arc<Rule>| rule.explanation().is_some_and(|how| how.panes.is_err());
    let copied: Vec<_> = pack.iter().filter(has_no_panes).collect();
    let mut files = Vec::new();
    for (n, rule) in pack.iter().chain(copied.into_iter().cycle()).take(40).enumerate() {
        let path = format!("bench/{}-{n}.sql", rule.id);
        files.push((path.into(), rule.sql.replace("title: ", &format!("title: {n} "))));
    }
    let lookups = match rules_dir(&Config::default()) {
        Some(dir) => [".csv", ".json"].map(|extension| pack::read(&dir.join("lookups"), extension)).concat(),
        None => pack::folder().lookups,
    };
    let folder = Folder { rules: files, lookups, ..Folder::default() };
    let (tables, hash) = (stored(schemas), schemas.hash());
    let rules = runtime()?.block_on(RuleSet::parse_folder(&folder, wall_clock(), &tables, &hash))?;
    let took = time(rules, &units)?;
    figures.add_against("windows-forty", took.events_per_second(), skip.events_per_second);
    Ok(())
}

/// As many users within one window.
fn keys(schemas: &Schemas, keys: usize, figures: &mut Figures) -> Result<()> {
    let count = "SELECT cluster, actor_user_name, count(*) AS n FROM kubernetes GROUP BY cluster, actor_user_name HAVING count(*) > 100";
    let set = rule_set(schemas, &[file("count", "24h", "1h", count)])?;
    let runtime = runtime()?;
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default());
    // A part at a time: rows that were read are not held by anyone.
    for part in (0..keys).collect::<Vec<_>>().chunks(100_000) {
        let rows = part.iter().map(|n| read(*n, *n, 1, START + *n as i64 * SECOND / 50));
        for unit in admit(schemas, rows)? {
            let (marks, unit) = (unit.watermarks.clone(), Admitted { ranges: Default::default(), ..unit });
            runtime.block_on(engine.on_admitted(&unit))?;
            runtime.block_on(engine.on_commit(&marks, &Offsets::default(), &Nothing(schemas)))?;
        }
    }
    // By its own account, which is what its budget is measured by.
    let state = engine.usage().values().map(|u| u.state_bytes).sum::<u64>();
    figures.add("window-keys", state as f64 / keys as f64);
    Ok(())
}

/// Numbers that look random and are the same each time.
fn mixed(n: usize, salt: u64) -> usize {
    let x = (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15 ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03));
    ((x ^ (x >> 32)).wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize
}

struct Took {
    busy: Duration,
    events: usize,
}

impl Took {
    fn events_per_second(&self) -> f64 {
        self.events as f64 / self.busy.as_secs_f64()
    }

    fn ns_per_event(&self) -> f64 {
        self.busy.as_secs_f64() * 1e9 / self.events as f64
    }
}

/// The quickest of a few: one takes some hundredths of a second, of which another process may take half.
fn quickest(runs: Vec<Took>) -> Took {
    runs.into_iter().min_by_key(|took| took.busy).expect("there is a run")
}

fn file(id: &str, window: &str, every: &str, sql: &str) -> (std::path::PathBuf, String) {
    let header = format!(
        "/*\ntitle: Bench\nseverity: low\nentity: [cluster, actor_user_name]\nsummary: \"{{actor_user_name}}\"\nwindow: {window}\nevery: {every}\n*/\n"
    );
    (format!("bench/{id}.sql").into(), header + sql)
}

fn rule_set(schemas: &Schemas, files: &[(std::path::PathBuf, String)]) -> Result<RuleSet> {
    Ok(runtime()?.block_on(RuleSet::parse(files, &stored(schemas), &schemas.hash()))?)
}

fn run(schemas: &Schemas, rules: &[(&str, &str, &str, &str)], units: &[Admitted]) -> Result<Took> {
    let files: Vec<_> = rules.iter().map(|(id, window, every, sql)| file(id, window, every, sql)).collect();
    time(rule_set(schemas, &files)?, units)
}

/// All units through an engine, each committed when the next but one has come.
fn time(set: RuleSet, units: &[Admitted]) -> Result<Took> {
    let runtime = runtime()?;
    let schemas = Schemas::builtin();
    let history = Nothing(&schemas);
    let mut engine = Engine::new(set, Frontier::default(), &Watermarks::default()).without_evidence();
    let started = Instant::now();
    for unit in units {
        std::hint::black_box(runtime.block_on(engine.on_admitted(unit))?);
        std::hint::black_box(runtime.block_on(engine.on_commit(&unit.watermarks, &Offsets::default(), &history))?);
    }
    let busy = started.elapsed();
    let events = units.iter().map(Admitted::rows).sum();
    Ok(Took { busy, events })
}

/// Normalizes and admits in batches; the watermark follows two seconds behind.
fn admit(schemas: &Schemas, messages: impl Iterator<Item = Message>) -> Result<Vec<Admitted>> {
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
