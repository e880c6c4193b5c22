//! `first_seen` and state tables against a naive evaluation: plain loops over the rows that were stored in the end,
//! for random arrival, batches, commits, crashes, late rows, ties and NULLs.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use event::{Finding, Frontier, Micros, Offsets, Origin, Source, Standing, Watermarks};
use futures::FutureExt;

use crate::fault::{self, Fault};
use crate::fixtures::{Cell, Row, Store, admitted, row, rule_text, schemas};
use crate::{Derived, Engine, Folder, History, Output, RuleErrors, RuleSet};

const H: i64 = 3_600_000_000;
const START: i64 = 1_767_225_600_000_000;
const INTERVAL: i64 = 6 * H;
const LEARNING: i64 = 3 * H;
const FORGET: i64 = 7 * 24 * H;

const THINGS: &str = "/*\ntitle: Things and their owners\nkey: [owner]\ndoc: what each owner has\n*/\n\
    SELECT actor_user_name AS owner, resource_name AS thing, verb = 'delete' AS deleted FROM kubernetes \
    WHERE verb IN ('create', 'delete')\n";

const NEW_USER: &str = "SELECT cluster, actor_user_name, verb, time FROM kubernetes \
    WHERE status = 'Success' AND first_seen(INTERVAL '6 hours', actor_user_name)";
const NEW_ANYWHERE: &str = "SELECT e.source, e.status FROM events e \
    WHERE first_seen(INTERVAL '6 hours', lower(e.actor_user_name), e.resource_name) AND (e.status = 'Success' OR e.status IS NULL)";
const OTHER_THING: &str = "SELECT e.cluster, e.actor_user_name, s.thing, s.prev_thing, s.event_uid AS version, s.valid_from \
    FROM cloudtrail e JOIN things s ON s.owner = e.actor_user_name AND e.time >= s.valid_from AND e.time < s.valid_to \
    WHERE e.status = 'Success' AND s.thing <> e.resource_name";
const NEW_WITHOUT_THING: &str = "SELECT cluster, e.actor_user_name, s.thing FROM cloudtrail e \
    LEFT JOIN things s ON s.owner = e.actor_user_name AND e.time >= valid_from AND s.valid_to > e.time AND s.thing <> 'a' \
    WHERE s.thing IS NULL AND first_seen(INTERVAL '6 hours', actor_user_name)";
const CHANGED: &str = "SELECT e.cluster, s.owner, s.thing, s.prev_thing FROM kubernetes e \
    JOIN things AS s ON e.actor_user_name = s.owner AND e.time >= s.valid_from AND e.time < s.valid_to \
    WHERE s.prev_thing <> s.thing";

const RULES: [(&str, &str, &str); 5] = [
    ("new_user", "actor_user_name", NEW_USER),
    ("new_anywhere", "source", NEW_ANYWHERE),
    ("other_thing", "actor_user_name, thing", OTHER_THING),
    ("new_without_thing", "cluster", NEW_WITHOUT_THING),
    ("changed", "owner", CHANGED),
];

async fn rules() -> RuleSet {
    let learning = |sql: &str| if sql.contains("first_seen") { "learning: 3h" } else { "" };
    let files: Vec<(PathBuf, String)> =
        RULES.iter().map(|(id, e, sql)| (format!("d/{id}.sql").into(), rule_text(e, learning(sql), sql))).collect();
    let states = [("state/things.sql".into(), THINGS.to_owned())];
    with_states(&states, &files, "fixtures").await.unwrap_or_else(|e| panic!("{e}"))
}

pub(super) async fn with_states(
    states: &[(PathBuf, String)],
    rules: &[(PathBuf, String)],
    hash: &str,
) -> Result<RuleSet, RuleErrors> {
    let folder = Folder { rules: rules.to_vec(), states: states.to_vec(), ..Folder::default() };
    RuleSet::parse_folder(&folder, 0, &schemas(), hash).await
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }
}

/// A stored row as the naive evaluation sees it.
#[derive(Clone, Debug)]
struct Plain {
    table: &'static str,
    time: Micros,
    uid: String,
    stamp: Micros,
    hash: String,
    origin: Origin,
    cells: BTreeMap<String, String>,
}

impl Plain {
    fn of(row: &Row) -> Plain {
        let number = |name: &str| match row.cells[name] {
            Cell::Number(n) => n,
            _ => panic!("{name} is a number"),
        };
        let text = |c: &Cell| if let Cell::Text(text) = c { Some(text.clone()) } else { None };
        let cells: BTreeMap<_, _> = row.cells.iter().filter_map(|(k, c)| Some((k.clone(), text(c)?))).collect();
        let batch = crate::fixtures::batch(row.table, std::slice::from_ref(row));
        let hash = crate::evidence::find(&batch, "row_hash").expect("a hash");
        let hash = crate::ident::hex(arrow::array::AsArray::as_fixed_size_binary(hash).value(0));
        let origin = if cells["origin"] == "live" { Origin::Live } else { Origin::Import };
        Plain {
            table: row.table,
            time: number("time"),
            uid: cells["event_uid"].clone(),
            stamp: number("source_watermark"),
            hash,
            origin,
            cells,
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.cells.get(name).map(String::as_str)
    }

    /// Whether `other` is visible to this row; it may be the row itself.
    fn sees(&self, other: &Plain) -> bool {
        self.origin == other.origin
            && (other.time < self.time || (other.time == self.time && other.uid <= self.uid))
            && other.stamp < self.time.max(self.stamp) + 1
    }

    fn before(&self, other: &Plain) -> bool {
        self.time < other.time || (self.time == other.time && self.uid < other.uid)
    }
}

fn first_seen(
    rows: &[Plain],
    e: &Plain,
    passes: &dyn Fn(&Plain) -> bool,
    key: &dyn Fn(&Plain) -> Option<Vec<String>>,
) -> bool {
    let Some(of_e) = key(e) else { return false };
    passes(e)
        && !rows.iter().any(|s| {
            passes(s) && key(s).as_ref() == Some(&of_e) && e.sees(s) && s.before(e) && s.time >= e.time - INTERVAL
        })
}

struct Thing {
    thing: Option<String>,
    previous: Option<String>,
    from: Micros,
    uid: String,
}

/// The thing of `owner` that holds for `e`.
fn thing(rows: &[Plain], e: &Plain, owner: &str) -> Option<Thing> {
    let is_version = |s: &&Plain| {
        s.table == "kubernetes"
            && ["create", "delete"].contains(&s.get("verb").unwrap_or(""))
            && s.get("actor_user_name") == Some(owner)
            && e.sees(s)
    };
    let mut versions: Vec<&Plain> = rows.iter().filter(is_version).collect();
    versions.sort_by_key(|s| (s.time, s.uid.clone(), s.hash.clone()));
    let now = versions.len().checked_sub(1)?;
    let gone = |s: &Plain| s.get("verb") == Some("delete");
    if gone(versions[now]) {
        return None;
    }
    let before = (0..now).rev().find(|at| !gone(versions[*at]));
    let before = before.filter(|at| versions[now].time - versions[at + 1].time <= FORGET);
    let thing_of = |s: &Plain| s.get("resource_name").map(str::to_owned);
    Some(Thing {
        thing: thing_of(versions[now]),
        previous: before.and_then(|at| thing_of(versions[at])),
        from: versions[now].time,
        uid: versions[now].uid.clone(),
    })
}

/// What every rule finds in the end: rule, row and the values that matter.
fn naive(rows: &[Plain], origin: Origin) -> BTreeSet<(String, String, String)> {
    let mut found = BTreeSet::new();
    let begun = |e: &Plain| {
        rows.iter().any(|s| {
            s.table == e.table
                && s.origin == e.origin
                && s.stamp < e.time.max(e.stamp) + 1
                && s.time <= e.time - LEARNING
        })
    };
    let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".into());
    for e in rows.iter().filter(|e| e.origin == origin) {
        let mut fires = |rule: &str, values: String| {
            found.insert((rule.to_owned(), e.hash.clone(), values));
        };
        let learning = if begun(e) { "" } else { " learning" };
        let name = |s: &Plain| s.get("actor_user_name").map(|n| vec![n.to_owned()]);
        if first_seen(rows, e, &|s| s.table == "kubernetes" && s.get("status") == Some("Success"), &name) {
            fires("new_user", learning.to_owned());
        }
        let both = |s: &Plain| Some(vec![s.get("actor_user_name")?.to_lowercase(), s.get("resource_name")?.to_owned()]);
        if first_seen(rows, e, &|s| s.get("status").is_none_or(|s| s == "Success"), &both) {
            fires("new_anywhere", learning.to_owned());
        }
        let Some(owner) = e.get("actor_user_name") else { continue };
        let thing = thing(rows, e, owner);
        if e.table == "cloudtrail"
            && e.get("status") == Some("Success")
            && let Some(Thing { thing: Some(thing), previous, from, uid }) = &thing
            && e.get("resource_name").is_some_and(|r| r != thing)
        {
            fires("other_thing", format!("{thing} {} {uid} {}", text(previous), event::format_micros(*from)));
        }
        let matches = thing.as_ref().and_then(|t| t.thing.clone()).is_some_and(|t| t != "a");
        if !matches && first_seen(rows, e, &|s| s.table == "cloudtrail", &name) {
            fires("new_without_thing", learning.to_owned());
        }
        if e.table == "kubernetes"
            && let Some(Thing { thing: Some(thing), previous: Some(previous), .. }) = &thing
            && thing != previous
        {
            fires("changed", format!("{thing} {previous}"));
        }
    }
    found
}

fn described(finding: &Finding) -> (String, String, String) {
    let value = |name: &str| finding.values.get(name).map_or("?".into(), crate::value::plain);
    let values = match finding.rule.as_str() {
        "other_thing" => {
            format!("{} {} {} {}", value("thing"), value("prev_thing"), value("version"), value("valid_from"))
        }
        "changed" => format!("{} {}", value("thing"), value("prev_thing")),
        _ if finding.learning => " learning".into(),
        _ => String::new(),
    };
    let hash = finding.evidence.query.split("'hex') = '").nth(1).expect("the query names the row's hash");
    (finding.rule.clone(), hash[..32].to_owned(), values)
}

/// What alerts.db holds.
#[derive(Default)]
struct Ledger {
    findings: BTreeMap<String, Finding>,
    frontier: Frontier,
    told: BTreeMap<Kind, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Provisional,
    Confirmed,
    Retracted,
    ConfirmedNew,
}

impl Ledger {
    fn keep(&mut self, output: &Output, context: &str) {
        for finding in &output.findings {
            let have = self.findings.get(&finding.id);
            if let Some(have) = have
                && have.standing == Standing::Confirmed
            {
                assert_eq!(finding.standing, Standing::Confirmed, "{context}: what is final stays: {finding:?}");
                assert_eq!(described(finding), described(have), "{context}");
            }
            let kind = match finding.standing {
                Standing::Provisional => Kind::Provisional,
                Standing::Retracted => Kind::Retracted,
                Standing::Confirmed if have.is_none() => Kind::ConfirmedNew,
                Standing::Confirmed => Kind::Confirmed,
            };
            assert!(kind != Kind::Retracted || have.is_some(), "{context}: retracts what was never said");
            *self.told.entry(kind).or_default() += 1;
            self.findings.insert(finding.id.clone(), finding.clone());
        }
        self.frontier.advance(&output.frontier);
    }

    fn provisional(&self) -> Vec<Finding> {
        self.findings.values().filter(|f| f.standing == Standing::Provisional).cloned().collect()
    }

    fn final_of(&self, origin: Origin, context: &str) -> BTreeSet<(String, String, String)> {
        let of_origin = self.findings.values().filter(|f| f.origin == origin && f.standing != Standing::Retracted);
        of_origin
            .map(|f| {
                assert_eq!(f.standing, Standing::Confirmed, "{context}: nothing stays open: {f:?}");
                described(f)
            })
            .collect()
    }
}

fn random_rows(random: &mut Random) -> Vec<Row> {
    let count = 3 + random.below(30) as i64;
    let span = random.pick(&[2, 12, 60, 400]);
    let jitter = random.pick(&[0, 3, 30, 100]);
    let names: &[Option<&str>] = &[Some("x"), Some("x"), Some("X"), Some("y"), None];
    let things: &[Option<&str>] = &[Some("a"), Some("b"), Some("b"), None];
    let mut rows: Vec<(i64, Row)> = Vec::new();
    for n in 0..count {
        let table = random.pick(&["kubernetes", "kubernetes", "cloudtrail"]);
        // Half hours make edges of the interval both hit and missed; few instants make ties.
        let time = START + random.below(2 * span) as i64 * H / 2 + i64::from(random.one_in(6));
        // Few uids: now and then two events have the same.
        let uid = format!("u{}", random.below(3 * count as u64));
        let mut cells: Vec<(&str, Cell)> = vec![("raw", format!("{{\"n\":{n}}}").into())];
        let mut some =
            |name: &'static str, value: Option<&str>| value.into_iter().for_each(|v| cells.push((name, v.into())));
        some("actor_user_name", random.pick(names));
        some("resource_name", random.pick(things));
        some("status", random.pick(&[Some("Success"), Some("Success"), Some("Failure"), None]));
        if table == "kubernetes" {
            some("verb", random.pick(&[Some("create"), Some("create"), Some("delete"), Some("get")]));
        }
        if random.one_in(8) {
            some("origin", Some("import"));
            some("topic", Some("file:x"));
        }
        rows.push((time + random.below(jitter + 1) as i64 * H, row(table, time, &uid, &cells)));
    }
    rows.sort_by_key(|(arrival, _)| *arrival);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Stamps rows as admission does.
struct Door {
    marks: Watermarks,
    lateness: i64,
}

impl Door {
    fn stamp(&mut self, rows: &mut [Row]) {
        for row in rows {
            if matches!(&row.cells["origin"], Cell::Text(origin) if origin == "import") {
                row.cells.insert("source_watermark".into(), Micros::MIN.into());
                continue;
            }
            let source: Source = row.table.parse().expect("a source");
            row.cells.insert("source_watermark".into(), self.marks.get(source).into());
            let Cell::Number(time) = row.cells["time"] else { panic!("time is a number") };
            self.marks.advance(source, time - self.lateness);
        }
    }
}

/// A store of which some reads fail: those whose number leaves a rest when divided.
struct Flaky<'a> {
    store: &'a Store,
    reads: Arc<AtomicUsize>,
    one_in: usize,
}

impl History for Flaky<'_> {
    fn table(&self, name: &str) -> Arc<dyn TableProvider> {
        let schema = schemas().into_iter().find(|s| s.name == name).expect("a stored table").arrow();
        let (batches, reads) = (self.store.batches(name), self.reads.clone());
        let rows = Arc::new(FlakyRows { schema: schema.clone(), batches, reads, one_in: self.one_in });
        Arc::new(StreamingTable::try_new(schema, vec![rows]).expect("the partition has the table's schema"))
    }
}

#[derive(Debug)]
struct FlakyRows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    reads: Arc<AtomicUsize>,
    one_in: usize,
}

impl PartitionStream for FlakyRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let fails = !self.reads.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.one_in);
        let mut rows: Vec<Result<RecordBatch, DataFusionError>> = self.batches.iter().cloned().map(Ok).collect();
        rows.extend(fails.then(|| Err(DataFusionError::Execution("the disk is gone".into()))));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(rows)))
    }
}

/// One that always works, or one of which all reads but every second, third or fourth fail.
fn flaky<'a>(random: &mut Random, store: &'a Store, works: bool) -> Flaky<'a> {
    let (reads, one_in) = (Arc::new(AtomicUsize::new(random.below(4) as usize)), 2 + random.below(3) as usize);
    Flaky { store, reads, one_in: if works { 1 } else { one_in } }
}

async fn start(
    rules: &RuleSet,
    ledger: &mut Ledger,
    committed: &Watermarks,
    store: &Store,
    read: &dyn History,
    (kept, context): (&Kept, &str),
) -> Engine {
    let mut engine = Engine::new(rules.clone(), ledger.frontier.clone(), committed);
    engine.stored_up_to(kept.offsets.clone());
    if let Some(derived) = &kept.derived {
        engine = engine.derived_in(derived.clone());
    }
    ledger.frontier.advance(engine.frontier());
    let output = engine.rebuild(ledger.provisional(), read).await.expect("failures are the rules' own");
    ledger.keep(&output, context);
    let output = engine.catch_up(store).await.expect("the store answers");
    ledger.keep(&output, context);
    engine
}

/// State tables on disk, in some cases.
struct Kept {
    derived: Option<Arc<Derived>>,
    /// Of what is stored.
    offsets: Offsets,
    _dir: tempfile::TempDir,
}

impl Kept {
    fn new(random: &mut Random) -> Kept {
        let dir = tempfile::tempdir().expect("a folder");
        let derived = random.one_in(2).then(|| Arc::new(Derived::new(dir.path().join("derived"), "a build".into())));
        Kept { derived, offsets: Offsets::default(), _dir: dir }
    }

    fn stored(&mut self, rows: &[Row]) {
        for batch in &admitted(rows).batches {
            let topics = batch.rows.column_by_name("topic").expect("a meta column").as_string_view();
            let numbers = |name| batch.rows.column_by_name(name).expect("a meta column").as_primitive::<Int64Type>();
            let (partitions, offsets) = (numbers("partition"), numbers("offset"));
            for row in 0..batch.rows.num_rows() {
                let partition = (Arc::from(topics.value(row)), partitions.value(row) as i32);
                let next = self.offsets.0.entry(partition).or_default();
                *next = (*next).max(offsets.value(row) + 1);
            }
        }
    }
}

async fn case(rules: &RuleSet, seed: u64, told: &mut BTreeMap<Kind, usize>) {
    let context = format!("seed {seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
    let mut rows = random_rows(&mut random);
    for (n, row) in rows.iter_mut().enumerate() {
        row.cells.insert("offset".into(), (n as i64).into());
    }
    let lateness = random.pick(&[0, 2 * H, 10 * H]);
    let (mut store, mut stored, mut committed) = (Store::default(), Vec::new(), Watermarks::default());
    let mut ledger = Ledger::default();
    let mut door = Door { marks: committed.clone(), lateness };
    let mut kept = Kept::new(&mut random);
    let mut engine = start(rules, &mut ledger, &committed, &store, &store, (&kept, &context)).await;
    let (mut next, mut open) = (0, Vec::<Row>::new());
    let (batch_max, commit_one_in, crash_one_in) =
        (1 + random.below(12), 1 + random.below(4), random.pick(&[4, 12, 1_000_000]));
    while next < rows.len() || !open.is_empty() {
        // A crash can come before what was found is kept.
        let mut crash = random.one_in(crash_one_in);
        if next < rows.len() {
            let end = rows.len().min(next + 1 + random.below(batch_max) as usize);
            let mut unit = rows[next..end].to_vec();
            next = end;
            door.stamp(&mut unit);
            let output = engine.on_admitted(&admitted(&unit)).await.expect("evaluates");
            open.extend(unit);
            match random.one_in(crash_one_in) {
                true => crash = true,
                false => ledger.keep(&output, &context),
            }
        }
        if next == rows.len() || random.one_in(commit_one_in) {
            store.add(&open);
            kept.stored(&open);
            stored.append(&mut open);
            committed = door.marks.clone();
            if let Some(derived) = kept.derived.as_ref().filter(|_| random.one_in(3)) {
                derived.refresh(rules, (&committed, &kept.offsets), &store).await.expect("the store answers");
            }
            let works = !random.one_in(crash_one_in);
            let read = flaky(&mut random, &store, works);
            let mut pending = true;
            while pending && !crash {
                let output =
                    engine.on_commit(&committed, &kept.offsets, &read).await.expect("failures are the rules' own");
                pending = output.pending;
                match random.one_in(crash_one_in) {
                    true => crash = true,
                    false => ledger.keep(&output, &context),
                }
            }
        }
        if crash {
            // What was not committed comes again, in other units and with other stamps.
            next -= open.len();
            open.clear();
            door.marks = committed.clone();
            let works = !random.one_in(3);
            let read = flaky(&mut random, &store, works);
            engine = start(rules, &mut ledger, &committed, &store, &read, (&kept, &context)).await;
        }
    }
    if crash_one_in < 1_000_000 {
        let works = !random.one_in(3);
        let read = flaky(&mut random, &store, works);
        engine = start(rules, &mut ledger, &committed, &store, &read, (&kept, &context)).await;
    }
    // Silence: the watermarks pass everything, in steps.
    for hours in [1, 13, 90, 2_000] {
        for source in Source::ALL {
            let mark = committed.get(source).max(START) + hours * H;
            committed.advance(source, mark);
        }
        let mut pending = true;
        while pending {
            let output = engine.on_commit(&committed, &kept.offsets, &store).await.expect("the store answers");
            pending = output.pending;
            ledger.keep(&output, &context);
        }
    }
    let output = engine.finish_bounded(Origin::Import, None, &store).await.expect("the store answers");
    ledger.keep(&output, &context);
    // Of a part of an import: what is found from its first instant on.
    let from = START + random.below(100) as i64 * H;
    let part = engine.finish_bounded(Origin::Import, Some((from, from)), &store).await.expect("the store answers");
    let part: BTreeSet<_> = part.findings.iter().map(described).collect();
    let is_in_part = |f: &&Finding| f.origin == Origin::Import && f.time.first() >= from;
    assert_eq!(part, ledger.findings.values().filter(is_in_part).map(described).collect(), "{context}");
    let plain: Vec<Plain> = stored.iter().map(Plain::of).collect();
    for origin in [Origin::Live, Origin::Import] {
        let (got, expected) = (ledger.final_of(origin, &context), naive(&plain, origin));
        let missing: Vec<_> = expected.difference(&got).collect();
        let wrong: Vec<_> = got.difference(&expected).collect();
        assert!(
            missing.is_empty() && wrong.is_empty(),
            "{context} {origin:?}: missing {missing:?}, wrong {wrong:?}\n{plain:#?}"
        );
    }
    ledger.told.into_iter().for_each(|(kind, count)| *told.entry(kind).or_default() += count);
}

#[tokio::test]
async fn any_arrival_commit_and_crash_is_the_naive_evaluation() {
    let rules = rules().await;
    let cases = std::env::var("MEMORY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let first = std::env::var("MEMORY_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut told = BTreeMap::new();
    for seed in first..first + cases {
        case(&rules, seed, &mut told).await;
    }
    println!("{cases} cases from seed {first}: {told:?}");
    for kind in [Kind::Provisional, Kind::Confirmed, Kind::ConfirmedNew, Kind::Retracted] {
        assert!(cases < 60 || told.get(&kind).is_some_and(|n| *n > 5), "the cases do not show {kind:?}: {told:?}");
    }
}

/// What the cases would not see is worth nothing: one row that a start takes to be known already.
#[tokio::test]
async fn a_kept_state_table_that_lacks_a_row_is_seen() {
    let rules = rules().await;
    let (mut seed, mut caught) = (0, false);
    while !caught && seed < 400 {
        fault::inject(Some(Fault::KeptTooFar));
        caught = AssertUnwindSafe(case(&rules, seed, &mut BTreeMap::new())).catch_unwind().await.is_err();
        fault::inject(None);
        seed += 1;
    }
    assert!(caught, "no case of {seed} sees it");
    println!("seen by seed {}", seed - 1);
}

/// What is told of one row after the other, each in a unit of its own: standing and uid.
async fn told(sql: &str, header: &str, rows: &[Row], marks: &[i64]) -> Vec<(Standing, String)> {
    let states = [("state/things.sql".into(), THINGS.to_owned())];
    let files = [("d/rule.sql".into(), rule_text("actor_user_name", header, sql))];
    let rules = with_states(&states, &files, "").await.unwrap_or_else(|e| panic!("{e}"));
    let mut engine = Engine::new(rules, Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    engine.rebuild(Vec::new(), &store).await.expect("the store answers");
    let mut findings = Vec::new();
    for row in rows {
        findings.extend(engine.on_admitted(&admitted(std::slice::from_ref(row))).await.expect("evaluates").findings);
        store.add(std::slice::from_ref(row));
    }
    for mark in marks {
        let committed = Watermarks(Source::ALL.map(|s| (s, *mark)).into());
        let mut pending = true;
        while pending {
            let output = engine.on_commit(&committed, &Offsets::default(), &store).await.expect("the store answers");
            pending = output.pending;
            findings.extend(output.findings);
        }
    }
    findings.into_iter().map(|f| (f.standing, f.evidence.events[0].event_uid.clone())).collect()
}

fn user(time: i64, uid: &str, who: &str, stamp: i64) -> Row {
    let cells =
        [("actor_user_name", who.into()), ("status", "Success".into()), ("source_watermark", (START + stamp).into())];
    row("kubernetes", START + time, uid, &cells)
}

#[tokio::test]
async fn findings_are_provisional_until_the_watermarks_have_passed() {
    use Standing::{Confirmed, Provisional, Retracted};
    let check = async |rows: &[Row], marks: &[i64], expected: &[(Standing, &str)]| {
        let marks: Vec<i64> = marks.iter().map(|m| START + m).collect();
        let sql = "SELECT actor_user_name FROM kubernetes WHERE first_seen(INTERVAL '6 hours', actor_user_name)";
        let got = told(sql, "", rows, &marks).await;
        let got: Vec<(Standing, &str)> = got.iter().map(|(s, u)| (*s, u.as_str())).collect();
        assert_eq!(got, expected);
    };
    let (a, b) = (user(10 * H, "a", "x", 9 * H), user(16 * H, "b", "x", 9 * H));
    check(std::slice::from_ref(&a), &[10 * H], &[(Provisional, "a")]).await;
    check(std::slice::from_ref(&a), &[10 * H + 1], &[(Provisional, "a"), (Confirmed, "a")]).await;
    // Exactly six hours are within the interval, a microsecond more is not.
    check(&[a.clone(), b], &[17 * H], &[(Provisional, "a"), (Confirmed, "a")]).await;
    let after = user(16 * H + 1, "b", "x", 9 * H);
    check(
        &[a.clone(), after],
        &[17 * H],
        &[(Provisional, "a"), (Provisional, "b"), (Confirmed, "a"), (Confirmed, "b")],
    )
    .await;
    // A late row before it takes it back, if it came before the boundary of the row.
    let late = user(8 * H, "late", "x", 10 * H);
    check(
        &[a.clone(), late],
        &[20 * H],
        &[(Provisional, "a"), (Provisional, "late"), (Retracted, "a"), (Confirmed, "late")],
    )
    .await;
    let too_late = user(8 * H, "late", "x", 10 * H + 1);
    check(
        &[a.clone(), too_late],
        &[20 * H],
        &[(Provisional, "a"), (Provisional, "late"), (Confirmed, "a"), (Confirmed, "late")],
    )
    .await;
    // Of two at one instant the smaller uid is first; a row that is nobody's is never new.
    let tie = user(10 * H, "0", "x", 9 * H);
    check(&[a.clone(), tie], &[20 * H], &[(Provisional, "a"), (Provisional, "0"), (Retracted, "a"), (Confirmed, "0")])
        .await;
    let mut nobody = user(10 * H, "n", "x", 9 * H);
    nobody.cells.remove("actor_user_name");
    check(&[nobody], &[20 * H], &[]).await;
}

#[tokio::test]
async fn a_version_that_comes_later_can_make_a_row_fire() {
    use Standing::{Confirmed, Provisional};
    let sql = "SELECT e.actor_user_name, s.thing FROM cloudtrail e JOIN things s ON s.owner = e.actor_user_name \
               AND e.time >= s.valid_from AND e.time < s.valid_to";
    let cells = |stamp: i64| vec![("actor_user_name", Cell::from("x")), ("source_watermark", (START + stamp).into())];
    let event = row("cloudtrail", START + 10 * H, "e", &cells(9 * H));
    let mut version = cells(9 * H);
    version.extend([("verb", "create".into()), ("resource_name", "a".into())]);
    let version = row("kubernetes", START + 9 * H, "v", &version);
    let got = told(sql, "", &[event.clone(), version.clone()], &[START + 20 * H]).await;
    assert_eq!(got, [(Confirmed, "e".to_owned())]);
    let got = told(sql, "", &[version, event], &[START + 20 * H]).await;
    assert_eq!(got, [(Provisional, "e".to_owned()), (Confirmed, "e".to_owned())]);
}

#[tokio::test]
async fn a_finding_with_a_state_table_rests_on_both_events() {
    let sql = "SELECT e.actor_user_name, s.thing FROM cloudtrail e JOIN things s ON s.owner = e.actor_user_name \
               AND e.time >= s.valid_from AND e.time < s.valid_to";
    let states = [("state/things.sql".into(), THINGS.to_owned())];
    let files = [("d/rule.sql".into(), rule_text("actor_user_name", "", sql))];
    let rules = with_states(&states, &files, "").await.expect("a good rule");
    assert_eq!(rules.rules[0].tables, ["cloudtrail", "kubernetes"]);
    let who = ("actor_user_name", Cell::from("x"));
    let version =
        row("kubernetes", START, "it's", &[who.clone(), ("verb", "create".into()), ("resource_name", "a".into())]);
    let event = row("cloudtrail", START + H, "e", &[who]);
    let store = Store::of(&[version.clone(), event.clone()]);
    let mut engine = Engine::new(rules, Frontier::default(), &Watermarks::default());
    engine.on_admitted(&admitted(&[version, event])).await.expect("evaluates");
    let found = engine.finish_bounded(Origin::Live, None, &store).await.expect("the store answers").findings;
    assert_eq!(found.len(), 1);
    let evidence = &found[0].evidence;
    let uids: Vec<_> = evidence.events.iter().map(|e| e.event_uid.as_str()).collect();
    assert_eq!((uids.as_slice(), evidence.count), (["e", "it's"].as_slice(), 2));
    let mut hunted = super::single::hunt(&store, &evidence.query).await;
    hunted.sort();
    assert_eq!(hunted, ["e", "it's"]);
    assert_eq!(found[0].tables, ["cloudtrail"]);
}

/// A value that cannot be computed is left out, and hides nobody: when it is read back, and when it is judged.
#[tokio::test]
async fn odd_values_do_not_hide_their_neighbours() {
    let new = "SELECT actor_user_name FROM events WHERE CAST(actor_user_name AS INT) > 0 \
               AND first_seen(INTERVAL '6 hours', actor_user_name)";
    let joined = "SELECT e.actor_user_name FROM cloudtrail e JOIN things s ON s.owner = e.actor_user_name \
                  AND e.time >= s.valid_from AND e.time < s.valid_to WHERE CAST(s.thing AS INT) > 0";
    let states = [("state/things.sql".into(), THINGS.to_owned())];
    let files = [
        ("d/joined.sql".into(), rule_text("actor_user_name", "", joined)),
        ("d/new.sql".into(), rule_text("actor_user_name", "", new)),
    ];
    let rules = with_states(&states, &files, "").await.unwrap_or_else(|e| panic!("{e}"));
    let call = |table, time: i64, uid: &str, who: &str, thing: &str| {
        let cells = [("actor_user_name", Cell::from(who)), ("resource_name", thing.into()), ("verb", "create".into())];
        row(table, START + time * H, uid, if table == "kubernetes" { &cells } else { &cells[..1] })
    };
    let stored: Vec<Row> = [("1", "7"), ("2", "odd"), ("x", "8"), ("3", "9")]
        .iter()
        .enumerate()
        .map(|(n, (who, thing))| call("kubernetes", n as i64, who, who, thing))
        .collect();
    let store = Store::of(&stored);
    let committed = Watermarks(Source::ALL.map(|s| (s, START + 4 * H)).into());
    let mut engine = Engine::new(rules, Frontier::default(), &committed);
    engine.rebuild(Vec::new(), &store).await.expect("the store answers");
    let rows: Vec<Row> = ["2", "y", "4", "3", "1"]
        .iter()
        .enumerate()
        .map(|(n, who)| call("cloudtrail", 5, &format!("now{n}"), who, ""))
        .collect();
    let told = engine.on_admitted(&admitted(&rows)).await.expect("evaluates").findings;
    let mut told: Vec<_> = told.iter().map(|f| (f.rule.as_str(), f.entity[0].1.as_str())).collect();
    told.sort_unstable();
    assert_eq!(told, [("joined", "1"), ("joined", "3"), ("new", "4")]);
    let last = engine.finish_bounded(Origin::Live, None, &Store::of(&[stored, rows].concat())).await.expect("answers");
    let mut last: Vec<_> = last.findings.iter().map(|f| (f.rule.as_str(), f.entity[0].1.as_str())).collect();
    last.sort_unstable();
    assert_eq!(last, told);
}

/// Beyond its budget a rule or state table stops, with those that need it, and nobody else.
#[tokio::test]
async fn a_rule_that_needs_too_much_memory_stops_alone() {
    let rules = rules().await;
    let user = |n: i64, table: &'static str, verb: &str| {
        let cells = [
            ("actor_user_name", format!("user{n}").into()),
            ("verb", verb.into()),
            ("resource_name", "a thing of some length that is remembered".into()),
            ("offset", n.into()),
            ("source_watermark", (START - H).into()),
        ];
        row(table, START + n, &format!("u{n}"), &cells)
    };
    // Calls of many users are too many keys for `new_without_thing` and `new_anywhere`, but no versions.
    let check = async |rows: Vec<Row>, expected: &[&str], running: &[&str]| {
        let mut engine = Engine::new(rules.clone(), Frontier::default(), &Watermarks::default());
        engine.rebuild(Vec::new(), &Store::default()).await.expect("the store answers");
        for unit in rows.chunks(1_000) {
            engine.on_admitted(&admitted(unit)).await.expect("evaluates");
        }
        let after = user(1_000_000, "cloudtrail", "get");
        let mut odd = user(1_000_001, "kubernetes", "get");
        odd.cells.insert("status".into(), "Success".into());
        let mut told: Vec<String> = engine
            .on_admitted(&admitted(&[after, odd]))
            .await
            .expect("evaluates")
            .findings
            .into_iter()
            .map(|f| f.rule)
            .collect();
        told.sort();
        told.dedup();
        assert_eq!(told, expected);
        let (bytes, _) = engine.remembered();
        assert!(bytes < 3 << 20, "{bytes} bytes");
        // A restart meets the same, and what is stopped does not move its boundary.
        let store = Store::of(&rows);
        let mut again = Engine::new(rules.clone(), Frontier::default(), &Watermarks::default());
        again.rebuild(Vec::new(), &store).await.expect("the store answers");
        let committed = Watermarks(Source::ALL.map(|s| (s, START - 2 * H)).into());
        let frontier = again
            .on_commit(&committed, &Offsets::default(), &store)
            .await
            .expect("the store answers")
            .frontier
            .boundaries;
        for (rule, boundary) in frontier {
            assert_eq!(boundary != Micros::MIN, running.contains(&rule.as_str()), "{rule}");
        }
    };
    let told = ["new_anywhere", "new_user", "new_without_thing"];
    let all = RULES.map(|(id, _, _)| id);
    check(Vec::new(), &told, &all).await;
    let calls = (0..6_000).map(|n| user(n, "cloudtrail", "get")).collect();
    check(calls, &["new_user"], &["new_user", "other_thing", "changed"]).await;
    // Many versions are too much for the state table, and so for all that join it.
    let versions = (0..12_000).map(|n| user(n, "kubernetes", "create")).collect();
    check(versions, &["new_user"], &["new_user"]).await;
}

/// The versions that a boundary sees: from memory, from SQL over the stored rows, and by plain loops.
#[tokio::test]
async fn a_state_table_at_a_boundary_is_its_view() {
    let rules = rules().await;
    let view = rules.states[0].clone();
    for seed in 0..12 {
        let mut random = Random(seed * 7_919 + 3);
        let mut rows = random_rows(&mut random);
        let mut door = Door { marks: Watermarks::default(), lateness: random.pick(&[0, 5 * H]) };
        door.stamp(&mut rows);
        let store = Store::of(&rows);
        let mut engine = Engine::new(rules.clone(), Frontier::default(), &Watermarks::default());
        engine.on_admitted(&admitted(&rows)).await.expect("evaluates");
        engine.on_commit(&door.marks, &Offsets::default(), &store).await.expect("the store answers");
        let mut bare = Engine::new(rules.clone(), Frontier::default(), &Watermarks::default());
        bare.rebuild(Vec::new(), &Store::default()).await.expect("the store answers");
        for _ in 0..6 {
            let boundary = START + random.below(450) as i64 * H;
            let since = boundary - random.pick(&[0, 20 * H, 500 * H]);
            let shown = async |origin: Origin, engine: &Engine| {
                let table = engine.state_at("things", origin, boundary, since, &store).await.expect("answers");
                let mut rows: Vec<String> = (0..table.num_rows())
                    .map(|row| serde_json::Value::from(crate::value::row(&table, row)).to_string())
                    .collect();
                rows.sort();
                rows
            };
            let plain: Vec<Plain> = rows.iter().map(Plain::of).collect();
            for origin in [Origin::Live, Origin::Import] {
                let ctx = query::fork(&rules.base);
                query::register_tables(&ctx, &rules.schemas, &|name| crate::History::table(&store, name))
                    .expect("tables");
                let stored =
                    crate::memory::versions_stored(&view, origin, boundary, since, &ctx).await.expect("answers");
                assert_eq!(stored.schema(), view.schema);
                let mut from_sql: Vec<String> = (0..stored.num_rows())
                    .map(|row| serde_json::Value::from(crate::value::row(&stored, row)).to_string())
                    .collect();
                from_sql.sort();
                assert_eq!(shown(origin, &engine).await, from_sql, "seed {seed} {origin:?}");
                assert_eq!(from_sql, naive_versions(&plain, origin, boundary, since), "seed {seed} {origin:?}");
            }
        }
    }
}

/// Shown by what a start knows although the store no longer has it.
#[tokio::test]
async fn a_start_takes_what_was_kept_and_reads_what_came_since() {
    let rules = rules().await;
    let thing = |offset: i64, owner: &str| {
        let mut row = user(offset, &format!("u{offset}"), owner, offset - 1);
        row.cells.insert("verb".into(), "create".into());
        row.cells.insert("offset".into(), offset.into());
        row
    };
    let all: Vec<Row> = ["ada", "ben", "cleo", "dan"].into_iter().zip(10..).map(|(who, n)| thing(n, who)).collect();
    let (before, after) = all.split_at(2);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("derived/things.versions");
    let kept = |build: &str| Arc::new(Derived::new(dir.path().join("derived"), build.into()));
    let offsets = |rows: &[Row]| {
        let mut kept =
            Kept { derived: None, offsets: Offsets::default(), _dir: tempfile::tempdir().expect("a folder") };
        kept.stored(rows);
        kept.offsets
    };
    let mut marks = Watermarks::default();
    Source::ALL.into_iter().for_each(|source| marks.advance(source, START + 100));
    let owners = async |rules: &RuleSet, build: &str, committed: Offsets| {
        let store = Store::of(after);
        let mut engine = Engine::new(rules.clone(), Frontier::default(), &marks).derived_in(kept(build));
        engine.stored_up_to(committed);
        engine.rebuild(Vec::new(), &store).await.expect("the store answers");
        let shown = engine.state_at("things", Origin::Live, START + 50, START, &store).await.expect("answers");
        let owners = shown.column_by_name("owner").expect("its key").as_string_view();
        owners.iter().flatten().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let (everyone, the_new) = (["ada", "ben", "cleo", "dan"].map(String::from), ["cleo", "dan"].map(String::from));
    let refresh = async || {
        let refreshed = kept("1").refresh(&rules, (&marks, &offsets(before)), &Store::of(before)).await;
        refreshed.expect("the store answers")
    };
    assert_eq!((refresh().await, refresh().await), (1, 0), "the second time nothing has come");
    let first = std::fs::read(&path).expect("it was kept");
    let again = || std::fs::write(&path, &first).expect("a file");

    assert_eq!(owners(&rules, "1", offsets(&all)).await, everyone.clone().into());
    let now = std::fs::read(&path).expect("it was kept");
    assert!(now.len() > first.len(), "what a start had to read is kept too");
    again();
    assert_eq!(owners(&rules, "1", Offsets::default()).await, the_new.clone().into(), "a store that is further back");
    again();
    assert_eq!(owners(&rules, "2", offsets(&all)).await, the_new.clone().into(), "another build");
    again();
    let states = [("state/things.sql".into(), THINGS.replace("'delete' AS", "'deletecollection' AS"))];
    let files = [("d/rule.sql".into(), rule_text("actor_user_name, thing", "", OTHER_THING))];
    let other = with_states(&states, &files, "fixtures").await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(owners(&other, "1", offsets(&all)).await, the_new.clone().into(), "another state table of this name");
    for damage in [first[..first.len() - 1].to_vec(), [&first[..], b"x"].concat(), b"{}\n".to_vec(), Vec::new()] {
        std::fs::write(&path, damage).expect("a file");
        assert_eq!(owners(&rules, "1", offsets(&all)).await, the_new.clone().into(), "a damaged file");
    }
}

fn naive_versions(rows: &[Plain], origin: Origin, boundary: Micros, since: Micros) -> Vec<String> {
    let mut by_owner: BTreeMap<&str, Vec<&Plain>> = BTreeMap::new();
    for row in rows {
        let is_version = row.table == "kubernetes" && ["create", "delete"].contains(&row.get("verb").unwrap_or(""));
        if is_version && row.origin == origin && row.time < boundary && row.stamp < boundary {
            row.get("actor_user_name").into_iter().for_each(|owner| by_owner.entry(owner).or_default().push(row));
        }
    }
    let mut shown = Vec::new();
    for (owner, mut versions) in by_owner {
        versions.sort_by_key(|s| (s.time, s.uid.clone(), s.hash.clone()));
        for (at, version) in versions.iter().enumerate().filter(|(_, v)| v.get("verb") == Some("create")) {
            let to = versions.get(at + 1).map(|next| next.time);
            let before = (0..at).rev().find(|at| versions[*at].get("verb") == Some("create"));
            let before = before.filter(|b| version.time - versions[b + 1].time <= FORGET);
            if to.is_none_or(|to| to > since) {
                let text = serde_json::json!({
                    "owner": owner,
                    "thing": version.get("resource_name"),
                    "valid_from": event::format_micros(version.time),
                    "valid_to": to.map(event::format_micros),
                    "event_uid": version.uid,
                    "prev_thing": before.and_then(|at| versions[at].get("resource_name")),
                });
                shown.push(text.to_string());
            }
        }
    }
    shown.sort();
    shown
}

/// Keys that functions compute are text as columns are.
#[tokio::test]
async fn joins_are_on_what_is_computed_too() {
    let state = "/*\ntitle: T\nkey: [what, n]\n*/\nSELECT raw->>'a' AS what, response_code AS n, lower(verb) AS how FROM kubernetes";
    let sql = "SELECT e.cluster, s.how, s.prev_how FROM kubernetes e JOIN odd s ON s.what = e.raw->>'a' AND s.n = e.response_code \
               AND e.time >= s.valid_from AND e.time < s.valid_to WHERE s.how <> s.prev_how";
    let states = [("state/odd.sql".into(), state.to_owned())];
    let parse = async |sql: &str| {
        let files = [("d/rule.sql".into(), rule_text("cluster", "", sql))];
        with_states(&states, &files, "").await
    };
    let rules = parse(sql).await.unwrap_or_else(|e| panic!("{e}"));
    parse(&sql.replace("e.raw->>'a'", "e.actor_user_name")).await.unwrap_or_else(|e| panic!("{e}"));
    // A number equals text only as a number: the key itself would have to be computed.
    let wrong = parse(&sql.replace("e.raw->>'a'", "e.response_code")).await.err().expect("refused").to_string();
    assert!(wrong.contains("`what`") && wrong.contains("of the same type"), "{wrong}");
    let call = |time: i64, uid: &str, verb: &str, a: &str| {
        let cells =
            [("verb", Cell::from(verb)), ("response_code", 1.into()), ("raw", format!("{{\"a\":\"{a}\"}}").into())];
        row("kubernetes", START + time * H, uid, &cells)
    };
    let rows =
        [call(0, "a", "Get", "x"), call(1, "b", "GET", "x"), call(2, "c", "list", "y"), call(3, "d", "List", "x")];
    let mut engine = Engine::new(rules, Frontier::default(), &Watermarks::default());
    engine.on_admitted(&admitted(&rows)).await.expect("evaluates");
    let found = engine.finish_bounded(Origin::Live, None, &Store::of(&rows)).await.expect("the store answers").findings;
    let uids: Vec<_> =
        found.iter().map(|f| (f.evidence.events[0].event_uid.as_str(), f.values["prev_how"].as_str())).collect();
    assert_eq!(uids, [("d", Some("get"))]);
}

async fn refused(state: Option<&str>, rule: &str, expected: &[&str]) {
    let states: Vec<(PathBuf, String)> = [("state/things.sql", THINGS)]
        .into_iter()
        .chain(state.map(|text| ("state/odd.sql", text)))
        .map(|(path, text)| (path.into(), text.to_owned()))
        .collect();
    let files = [("d/rule.sql".into(), rule.to_owned())];
    let errors = with_states(&states, &files, "").await.err();
    let shown = errors.unwrap_or_else(|| panic!("was not refused: {state:?} {rule}")).to_string();
    for part in expected {
        assert!(shown.contains(part), "expected `{part}` in:\n{shown}");
    }
}

#[tokio::test]
async fn rules_that_remember_are_refused_with_a_reason() {
    let check = async |sql: &str, expected: &[&str]| refused(None, &rule_text("cluster", "", sql), expected).await;
    let join = "SELECT e.cluster FROM cloudtrail e JOIN things s ON";
    check(&format!("{join} s.owner = e.actor_user_name"), &["does not say when", "things.valid_from"]).await;
    check(
        &format!("{join} e.time >= s.valid_from AND e.time < s.valid_to"),
        &["its key column `owner`", "its key is owner"],
    )
    .await;
    check(
        &format!("{join} s.owner = e.actor_user_name AND e.ingest_time >= s.valid_from AND e.time < s.valid_to"),
        &["does not say when"],
    )
    .await;
    check(&format!("{join} s.ownr = e.actor_user_name"), &["d/rule.sql:8: unknown column `ownr`"]).await;
    check(
        "SELECT e.cluster FROM cloudtrail e JOIN falco f ON e.cluster = f.cluster",
        &["it joins tables", "give it a `window`"],
    )
    .await;
    check(
        "SELECT cluster FROM falco WHERE rule = 'a' OR first_seen(INTERVAL '1 day', rule)",
        &["no condition of its own"],
    )
    .await;
    check("SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 month', rule)", &["months", "INTERVAL '30 days'"])
        .await;
    check("SELECT cluster FROM falco WHERE first_seen('1 day', rule)", &["does not begin with an interval"]).await;
    check("SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 day', rul)", &["d/rule.sql:8: unknown column `rul`"])
        .await;
    check("SELECT cluster FROM falco WHERE first_seen(INTERVAL '0 days', rule)", &["not between"]).await;
    check("SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 day', rule) GROUP BY cluster", &["it aggregates"])
        .await;
    check("SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 day', rule) LIMIT 1", &["LIMIT"]).await;
    check(
        "SELECT cluster FROM falco WHERE rule = 'a' AND rule = 'b' AND first_seen(INTERVAL '1 day', rule)",
        &["can never fire"],
    )
    .await;
    check("SELECT cluster FROM falco WHERE rule IN (SELECT thing FROM things)", &["subquery"]).await;
    let windowed =
        rule_text("cluster", "window: 10m", "SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 day', rule)");
    refused(None, &windowed, &["a rule with a window uses first_seen"]).await;
    let learning = |sql: &str| rule_text("cluster", "learning: 7d", sql);
    refused(None, &learning("SELECT cluster FROM falco"), &["`learning` without first_seen"]).await;
    let odd =
        rule_text("cluster", "learning: week", "SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 d', rule)");
    refused(None, &odd, &["d/rule.sql:6: `learning: week` is not a span"]).await;
}

#[tokio::test]
async fn state_tables_are_checked_all_at_once() {
    let state = |header: &str, sql: &str| format!("/*\n{header}\n*/\n{sql}\n");
    let good_rule = rule_text("cluster", "", "SELECT cluster FROM falco");
    let check = async |header: &str, sql: &str, expected: &[&str]| {
        refused(Some(&state(header, sql)), &good_rule, expected).await;
    };
    let header = "title: T\nkey: [rule]";
    check(
        "title: T\nkey: [rul]",
        "SELECT rule FROM falco",
        &["state/odd.sql:3: key column `rul`", "did you mean `rule`?"],
    )
    .await;
    check("title: T\nkey: []", "SELECT rule FROM falco", &["`key` is empty"]).await;
    check("title: T", "SELECT rule FROM falco", &["state/odd.sql", "missing field"]).await;
    check("title: T\nkeys: [rule]", "SELECT rule FROM falco", &["unknown field"]).await;
    check(header, "SELECT rule FROM falc", &["state/odd.sql:5: unknown table `falc`"]).await;
    check(header, "SELECT rule, count(*) AS n FROM falco GROUP BY rule", &["state/odd.sql", "it aggregates"]).await;
    check(header, "SELECT actor_user_name AS rule FROM events", &["several stored tables"]).await;
    check(header, "SELECT rule, time AS valid_from FROM falco", &["`valid_from` has a name of the table's own"]).await;
    check(header, "SELECT rule, cluster AS prev_rule FROM falco", &["`prev_rule`"]).await;
    check(header, "SELECT rule, cluster AS deleted FROM falco", &["column `deleted` is"]).await;
    check(header, "SELECT rule, raw->'a' AS a FROM falco", &["column `a` cannot be kept"]).await;
    check(header, "SELECT rule FROM falco WHERE rule = 'a' AND rule = 'b'", &["never have a row"]).await;
    check(header, "SELECT rule FROM falco WHERE first_seen(INTERVAL '1 day', rule)", &["it calls first_seen"]).await;
    refused(Some("SELECT rule FROM falco"), &good_rule, &["state/odd.sql:1: the state table has no header"]).await;
    let both = state("title: T\nkey: [rul]", "SELECT rule FROM falco");
    let rule = rule_text("clster", "", "SELECT cluster FROM falco");
    refused(Some(&both), &rule, &["state/odd.sql:3: key column", "d/rule.sql:4: entity column `clster`"]).await;
    for name in ["state/falco.sql", "state/kubernetes_calls.sql", "state/Pods-1.sql"] {
        let states = [(name.into(), state(header, "SELECT rule FROM falco"))];
        let errors = with_states(&states, &[], "").await.err().expect("refused").to_string();
        assert!(errors.contains("stored table or view") || errors.contains("no name for a state table"), "{errors}");
    }
}

#[tokio::test]
async fn the_bundle_knows_state_tables() {
    let bundle = async |text: &str| {
        let states = [("state/things.sql".into(), text.to_owned())];
        with_states(&states, &[], "").await.expect("a good state table").bundle
    };
    assert_ne!(bundle(THINGS).await, bundle(&THINGS.replace("Things", "Stuff")).await);
    let without = RuleSet::parse(&[], &schemas(), "").await.expect("nothing is wrong").bundle;
    assert_ne!(bundle(THINGS).await, without);
}

/// What the state tables that ship make of vendor events, as far as columns and bodies go.
#[tokio::test]
async fn state_tables_that_ship_keep_what_they_say() {
    let schemas = crate::fixtures::shipped_schemas();
    let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../detections"));
    let rules = RuleSet::load(dir, &schemas, "").await.unwrap_or_else(|e| panic!("{e}"));
    let check =
        async |state: &str, table: &'static str, cells: &[(&str, Cell)], raw: &str, expected: serde_json::Value| {
            let mut all = vec![
                ("stage", Cell::from("ResponseComplete")),
                ("response_code", 200.into()),
                ("status", "Success".into()),
                ("recipient_account_id", "111122223333".into()),
                ("principal", "arn:aws:iam::111122223333:user/al".into()),
                ("raw", raw.into()),
            ];
            all.extend(cells.iter().cloned());
            let store = Store::of_as(&schemas, &[row(table, START, "u", &all)]);
            let engine = Engine::new(rules.clone(), Frontier::default(), &Watermarks::default());
            let shown = engine.state_at(state, Origin::Live, START + H, START, &store).await.expect("answers");
            assert_eq!(shown.num_rows(), 1, "{state}");
            let got = serde_json::Value::from(crate::value::row(&shown, 0));
            for (name, value) in expected.as_object().expect("columns") {
                assert_eq!(&got[name], value, "{state}.{name} in {got}");
            }
        };
    let verb = |verb: &str| ("verb", Cell::from(verb));
    let of = |resource: &str| ("objectref_resource", Cell::from(resource));
    let named = |namespace: &str, name: &str| {
        vec![("objectref_namespace", Cell::from(namespace)), ("objectref_name", Cell::from(name))]
    };
    let pod = [verb("create"), of("pods"), ("objectref_namespace", "shop".into()), ("pod_spec_whole", true.into())];
    let raw = r#"{"responseObject":{"metadata":{"name":"web-7c9-x2x"}}}"#;
    check("pods", "kubernetes", &pod, raw, serde_json::json!({"pod": "web-7c9-x2x", "service_account": "default"}))
        .await;
    let mut binding = named("shop", "web");
    binding.extend([verb("create"), of("pods"), ("objectref_subresource", "binding".into())]);
    let raw = r#"{"requestObject":{"target":{"kind":"Node","name":"node-3"}}}"#;
    check("pod_nodes", "kubernetes", &binding, raw, serde_json::json!({"pod": "web", "node": "node-3"})).await;
    let node =
        [verb("patch"), of("nodes"), ("objectref_name", "n1".into()), ("objectref_subresource", "status".into())];
    let raw = r#"{"responseObject":{"spec":{"providerID":"aws:///eu-central-1a/i-0abc"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.7"}]}}}"#;
    let expected =
        serde_json::json!({"instance_id": "i-0abc", "addresses": r#"[{"type":"InternalIP","address":"10.0.0.7"}]"#});
    check("nodes", "kubernetes", &node, raw, expected).await;
    let namespace = [verb("create"), of("namespaces")];
    let raw =
        r#"{"requestObject":{"metadata":{"name":"shop","labels":{"pod-security.kubernetes.io/enforce":"baseline"}}}}"#;
    let expected = serde_json::json!({"namespace": "shop", "pod_security_enforce": "baseline"});
    check("namespaces", "kubernetes", &namespace, raw, expected).await;
    let mut policy = named("shop", "deny");
    policy.extend([verb("create"), of("networkpolicies")]);
    let raw = r#"{"requestObject":{"spec":{"podSelector":{}}}}"#;
    check("network_policies", "kubernetes", &policy, raw, serde_json::json!({"spec": r#"{"podSelector":{}}"#})).await;
    let auth = [verb("create"), of("configmaps"), ("objectref_namespace", "kube-system".into())];
    let raw = r#"{"requestObject":{"metadata":{"name":"aws-auth"},"data":{"mapRoles":"- a"}}}"#;
    check("object_specs", "kubernetes", &auth, raw, serde_json::json!({"spec": r#"{"mapRoles":"- a"}"#})).await;
    let mut token = named("ci", "builder");
    token.extend([verb("create"), of("serviceaccounts"), ("objectref_subresource", "token".into())]);
    token.push(("issued_credential_uid", "JTI=1".into()));
    let raw = r#"{"requestObject":{"spec":{"boundObjectRef":{"kind":"Pod","name":"web","uid":"p1"}}}}"#;
    let expected = serde_json::json!({"credential_uid": "JTI=1", "service_account": "builder", "bound_uid": "p1"});
    check("service_account_tokens", "kubernetes", &token, raw, expected).await;
    let mut deployment = named("shop", "web");
    deployment.extend([
        verb("update"),
        of("deployments"),
        ("pod_spec_whole", true.into()),
        ("pod_service_account", "w".into()),
    ]);
    check("workloads", "kubernetes", &deployment, "{}", serde_json::json!({"workload": "web", "service_account": "w"}))
        .await;
    let call = |source: &str, name: &str| vec![("event_source", Cell::from(source)), ("event_name", Cell::from(name))];
    let raw = r#"{"requestParameters":{"bucketName":"b","PublicAccessBlockConfiguration":{"BlockPublicAcls":true,"BlockPublicPolicy":false}}}"#;
    let expected = serde_json::json!({"bucket": "b", "block_public_acls": "true", "block_public_policy": "false"});
    check("bucket_public_access", "cloudtrail", &call("s3.amazonaws.com", "PutBucketPublicAccessBlock"), raw, expected)
        .await;
    let raw = r#"{"requestParameters":{"bucketName":"b","ServerSideEncryptionConfiguration":{"Rule":{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"AES256"}}}}}"#;
    check(
        "bucket_encryption",
        "cloudtrail",
        &call("s3.amazonaws.com", "PutBucketEncryption"),
        raw,
        serde_json::json!({"algorithm": "AES256"}),
    )
    .await;
    let raw = r#"{"requestParameters":{"bucketName":"b","VersioningConfiguration":{"Status":"Suspended"}}}"#;
    check(
        "bucket_versioning",
        "cloudtrail",
        &call("s3.amazonaws.com", "PutBucketVersioning"),
        raw,
        serde_json::json!({"versioning": "Suspended"}),
    )
    .await;
    let raw = r#"{"requestParameters":{"repositoryName":"app","imageTag":"v1"},"responseElements":{"image":{"imageId":{"imageDigest":"sha256:1"}}}}"#;
    let mut push = call("ecr.amazonaws.com", "PutImage");
    push.push(("cloud_region", "eu-central-1".into()));
    check("image_tags", "cloudtrail", &push, raw, serde_json::json!({"tag": "v1", "digest": "sha256:1"})).await;
    let mut assume = call("sts.amazonaws.com", "AssumeRoleWithWebIdentity");
    assume.extend([
        ("issued_access_key_id", "ASIA1".into()),
        ("web_identity_subject", "system:serviceaccount:ci:b".into()),
    ]);
    let expected = serde_json::json!({"access_key_id": "ASIA1", "web_identity_subject": "system:serviceaccount:ci:b"});
    check("cloud_sessions", "cloudtrail", &assume, "{}", expected).await;
    let iam = |name: &str| call("iam.amazonaws.com", name);
    let raw = r#"{"requestParameters":{"roleName":"r","policyDocument":"{}"}}"#;
    let expected = serde_json::json!({"kind": "role", "owner": "r", "document": "trust", "text": "{}"});
    check("iam_documents", "cloudtrail", &iam("UpdateAssumeRolePolicy"), raw, expected).await;
    let raw = r#"{"requestParameters":{"policyArn":"arn:p","policyDocument":"{}","setAsDefault":true}}"#;
    let expected = serde_json::json!({"kind": "managed", "owner": "arn:p", "document": "policy", "text": "{}"});
    check("iam_documents", "cloudtrail", &iam("CreatePolicyVersion"), raw, expected).await;
    let raw = r#"{"requestParameters":{"bucketName":"b","bucketPolicy":{"Version":"2012-10-17"}}}"#;
    let expected = serde_json::json!({"kind": "bucket", "owner": "b", "text": r#"{"Version":"2012-10-17"}"#});
    check("iam_documents", "cloudtrail", &call("s3.amazonaws.com", "PutBucketPolicy"), raw, expected).await;
}
