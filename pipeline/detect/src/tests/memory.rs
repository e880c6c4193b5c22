//! `first_seen` and state tables against a naive evaluation: plain loops over the rows that were stored in the end,
//! for random arrival, batches, commits, crashes, late rows, ties and NULLs. Single situations are in [`named`].

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::SchemaRef;
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
use crate::offsets::advance_offsets;
use crate::{Derived, Engine, Folder, Going, History, Output, Retained, RuleErrors, RuleSet};

mod named;
mod retained;

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
    /// A row that left the store.
    Expired,
    /// A start over a store that rows have left.
    StartedWithout,
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
            // It has no rows, and holds nobody up.
            self.marks.advance(Source::Falco, time - self.lateness);
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
    fn retained(&self) -> Option<Arc<Retained>> {
        self.store.retained.clone()
    }

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
    if ledger.told.get(&Kind::Expired).is_some_and(|rows| *rows > 0) {
        *ledger.told.entry(Kind::StartedWithout).or_default() += 1;
    }
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

/// What is on disk beside stored rows: in some cases state tables, in some cases what remains of rows that expire.
struct Kept {
    derived: Option<Arc<Derived>>,
    retained: Arc<Retained>,
    /// After a commit, rows expire one time in so many.
    expire_one_in: u64,
    /// Of what is stored.
    offsets: Offsets,
    _dir: tempfile::TempDir,
}

impl Kept {
    fn new(random: &mut Random) -> Kept {
        let dir = tempfile::tempdir().expect("a folder");
        let derived = random.one_in(2).then(|| Arc::new(Derived::new(dir.path().join("derived"), "a build".into())));
        let retained = Arc::new(Retained::new(dir.path().join("retained")));
        let expire_one_in = random.pick(&[1_000_000, 2, 4]);
        Kept { derived, retained, expire_one_in, offsets: Offsets::default(), _dir: dir }
    }

    /// Live rows that have been judged for good leave the store, some of them and whatever their order, after they have
    /// been remembered. Imported ones stay: they are judged from the store at the end.
    async fn expire(
        &self,
        random: &mut Random,
        rules: &RuleSet,
        (store, left): (&mut Store, &mut Vec<Row>),
        (marks, ledger): (&Watermarks, &mut Ledger),
    ) {
        let settled = ledger.frontier.boundaries.values().copied().min().unwrap_or(Micros::MIN);
        let is_done = |row: &Row| {
            let plain = Plain::of(row);
            plain.origin == Origin::Live && plain.time.max(plain.stamp) < settled
        };
        let share = 1 + random.below(3);
        let (gone, stay): (Vec<Row>, Vec<Row>) =
            left.drain(..).partition(|row| is_done(row) && !random.one_in(1 + share));
        let going = Store::of(&gone);
        let tables = gone.iter().map(|row| row.table.to_owned()).collect();
        let stays = |table: &str| lowest_time(&stay, table);
        // A crash in between leaves them stored as well.
        let crashed = random.one_in(4);
        let going = Going { rows: &going, tables, stays: &stays };
        let folded = self.retained.fold(rules, marks, &going).await.expect("it reads what goes");
        assert_eq!(folded.failed, [], "everything is remembered");
        *ledger.told.entry(Kind::Expired).or_default() += gone.len();
        *left = stay;
        if crashed {
            left.extend(gone);
        }
        *store = Store::of(left);
        store.retained = Some(self.retained.clone());
    }

    fn stored(&mut self, rows: &[Row]) {
        for (partition, next) in stored_up_to(rows).0 {
            let have = self.offsets.0.entry(partition).or_default();
            *have = (*have).max(next);
        }
    }
}

fn lowest_time(rows: &[Row], table: &str) -> Micros {
    rows.iter().filter(|row| row.table == table).map(|row| Plain::of(row).time).min().unwrap_or(Micros::MAX)
}

/// The offsets behind some rows.
fn stored_up_to(rows: &[Row]) -> Offsets {
    let mut frontier = Frontier::default();
    admitted(rows).batches.iter().for_each(|batch| advance_offsets(&mut frontier, &batch.rows));
    Offsets(frontier.offsets)
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
    store.retained = Some(kept.retained.clone());
    let mut left: Vec<Row> = Vec::new();
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
            left.extend_from_slice(&open);
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
            if random.one_in(kept.expire_one_in) {
                kept.expire(&mut random, rules, (&mut store, &mut left), (&committed, &mut ledger)).await;
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
    let kinds = [Kind::Provisional, Kind::Confirmed, Kind::ConfirmedNew, Kind::Retracted];
    for kind in kinds.into_iter().chain([Kind::Expired, Kind::StartedWithout]) {
        assert!(cases < 60 || told.get(&kind).is_some_and(|n| *n > 5), "the cases do not show {kind:?}: {told:?}");
    }
}

/// What the cases would not see is worth nothing. Each is looked for from a seed on that sees it.
#[tokio::test]
async fn faults_in_what_is_kept_on_disk_are_seen() {
    let rules = rules().await;
    for (fault, first) in [(Fault::KeptTooFar, 40), (Fault::RetainedNot, 0)] {
        let (mut seed, mut caught) = (first, false);
        while !caught && seed < first + 400 {
            fault::inject(Some(fault));
            caught = AssertUnwindSafe(case(&rules, seed, &mut BTreeMap::new())).catch_unwind().await.is_err();
            fault::inject(None);
            seed += 1;
        }
        assert!(caught, "no case from {first} to {seed} sees {fault:?}");
        println!("{fault:?}: seen by seed {}", seed - 1);
    }
}
