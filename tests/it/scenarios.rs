//! Stories across three planes, each with its benign twin: what must be found, and that nothing else is. Events arrive
//! as they would: CloudTrail twelve minutes late, all of them shuffled among those that arrive near them, in batches of
//! any size, with commits in between and a crash. The findings are the same each time.

use std::collections::BTreeMap;
use std::sync::Arc;

use detect::{Engine, History};
use event::{
    Admitted, Finding, Frontier, Message, Micros, OffsetRange, Offsets, Origin, Polled, Ranges, RowKey, Seen,
    SeenError, Source, Standing, Watermarks, format_micros,
};
use normalize::Schemas;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::Value;
use stakeout::config::Config;
use stakeout::rooms::{Door, Knowledge};

use crate::process::root;

const START: Micros = 1_767_225_600_000_000;
/// Events whose arrivals lie so near each other may change places.
const SHUFFLED_US: i64 = 5_000_000;
const RUNS: u64 = 6;

#[derive(Deserialize)]
struct Scenario {
    id: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    source: Option<String>,
    cluster: Option<String>,
    events: Vec<Written>,
    expect: Vec<Wanted>,
    #[serde(default)]
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Written {
    event: Option<Value>,
    json: Option<String>,
    source: Option<String>,
    cluster: Option<String>,
    at: Option<String>,
    delivered: Option<String>,
    repeat: Option<u32>,
    step: Option<String>,
}

#[derive(Deserialize)]
struct Wanted {
    rule: String,
    entity: BTreeMap<String, Value>,
}

struct Arriving {
    arrival: Micros,
    source: Source,
    cluster: Option<String>,
    bytes: Vec<u8>,
}

#[test]
fn stories_are_found_and_their_twins_are_not() {
    let folder = root().join("tests/it/scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    paths.sort();
    assert!(paths.len() >= 4, "the scenarios are in {}", folder.display());
    let config = Config { detections: Some(root().join("detections")), ..Config::default() };
    let schemas = Schemas::builtin();
    let knowledge = Knowledge::load(&config).unwrap();
    for path in paths {
        let scenario: Scenario = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for case in &scenario.cases {
            for seed in 0..RUNS {
                let story = format!("{} {} (seed {seed})", scenario.id, case.name);
                let found = play(case, &knowledge, &schemas, &config, seed);
                check(&story, case, &found);
            }
            println!("{} {}: as expected in {RUNS} orders", scenario.id, case.name);
        }
    }
}

fn check(story: &str, case: &Case, found: &[Finding]) {
    let told = |f: &Finding| format!("{} {} {}", f.rule, f.entity_text(), format_micros(f.time.first()));
    let all = found.iter().map(told).collect::<Vec<_>>().join("\n");
    for wanted in &case.expect {
        let is_it = |f: &&Finding| {
            f.rule == wanted.rule
                && wanted.entity.iter().all(|(name, value)| {
                    f.entity
                        .iter()
                        .any(|(n, v)| n == name && *v == value.as_str().map_or(value.to_string(), str::to_owned))
                })
        };
        assert!(found.iter().any(|f| is_it(&f)), "{story}: {} {:?} is missing in\n{all}", wanted.rule, wanted.entity);
    }
    if case.expect.is_empty() {
        // What is only learned wakes nobody.
        let quiet = |f: &&Finding| f.learning || case.allow.contains(&f.rule);
        let others: Vec<_> = found.iter().filter(|f| !quiet(f)).map(told).collect();
        assert!(others.is_empty(), "{story}: must be quiet, but\n{}", others.join("\n"));
    }
}

/// Findings by id as they were last told, and how far detection has come: what a crash leaves.
#[derive(Default)]
struct Kept {
    found: BTreeMap<String, Finding>,
    frontier: Frontier,
}

impl Kept {
    fn keep(&mut self, output: detect::Output) {
        self.frontier.advance(&output.frontier);
        self.found.extend(output.findings.into_iter().map(|f| (f.id.clone(), f)));
    }

    fn provisional(&self) -> Vec<Finding> {
        self.found.values().filter(|f| f.standing == Standing::Provisional).cloned().collect()
    }
}

/// One way through normalize, admit and the engine.
fn play(case: &Case, knowledge: &Knowledge, schemas: &Schemas, config: &Config, seed: u64) -> Vec<Finding> {
    let mut random = StdRng::seed_from_u64(seed);
    let events = arriving(case, &mut random);
    let runtime = stakeout::rooms::runtime().unwrap();
    let mut door = Door::new(config, schemas, Watermarks::default());
    let mut engine = Engine::new(knowledge.rules.clone(), Frontier::default(), &Watermarks::default());
    let mut store = Store { schemas, units: Vec::new() };
    let mut kept = Kept { frontier: engine.frontier().clone(), ..Kept::default() };
    let mut at = 0;
    while at < events.len() {
        let to = (at + random.random_range(1..=8)).min(events.len());
        let unit = admit(&mut door, &events[at..to], at);
        kept.keep(runtime.block_on(engine.on_admitted(&unit)).unwrap());
        let (marks, offsets) = (unit.watermarks.clone(), offsets(to));
        store.units.push(unit);
        at = to;
        loop {
            let output = runtime.block_on(engine.on_commit(&marks, &offsets, &store)).unwrap();
            let pending = output.pending;
            kept.keep(output);
            if !pending {
                break;
            }
        }
        if random.random_range(0..6) == 0 {
            engine = Engine::new(knowledge.rules.clone(), kept.frontier.clone(), &marks);
            engine.stored_up_to(offsets);
            engine.expect(kept.provisional());
            kept.keep(runtime.block_on(engine.catch_up(&store)).unwrap());
        }
    }
    kept.keep(runtime.block_on(engine.finish_bounded(Origin::Live, None, &store)).unwrap());
    kept.found.into_values().filter(|f| f.standing != Standing::Retracted).collect()
}

/// The events of a case by arrival, those that arrive together shuffled.
fn arriving(case: &Case, random: &mut StdRng) -> Vec<Arriving> {
    let span = |text: &Option<String>| match text.as_deref() {
        None | Some("0s") => 0,
        Some(text) => detect::parse_span(text).unwrap_or_else(|| panic!("`{text}` is no span of time")),
    };
    let mut events = Vec::new();
    for written in &case.events {
        for n in 0..written.repeat.unwrap_or(1) {
            let time = START + span(&written.at) + i64::from(n) * span(&written.step);
            let text = written.json.clone().or_else(|| written.event.as_ref().map(Value::to_string)).expect("an event");
            let text = text.replace("{n}", &n.to_string()).replace("{time}", &format_micros(time));
            let source = written.source.as_ref().or(case.source.as_ref()).expect("a source");
            events.push(Arriving {
                arrival: time + span(&written.delivered) + random.random_range(0..SHUFFLED_US),
                source: source.parse().expect("a source"),
                cluster: written.cluster.clone().or_else(|| case.cluster.clone()),
                bytes: text.into_bytes(),
            });
        }
    }
    events.shuffle(random);
    events.sort_by_key(|e| e.arrival);
    events
}

fn admit(door: &mut Door, events: &[Arriving], first: usize) -> Admitted {
    let message = |(n, e): (usize, &Arriving)| Message {
        source: e.source,
        cluster: e.cluster.as_deref().map(Into::into),
        origin: Origin::Live,
        topic: "scenario".into(),
        partition: 0,
        offset: (first + n) as i64,
        file_sha256: None,
        received: e.arrival,
        bytes: e.bytes.clone(),
    };
    let mut ranges = Ranges::default();
    let range = OffsetRange { from: first as i64, next: (first + events.len()) as i64 };
    ranges.push(&"scenario".into(), 0, range).unwrap();
    let messages = events.iter().enumerate().map(message).collect();
    let now = events.last().map_or(START, |e| e.arrival);
    door.admit_at(Polled { messages, ranges, ..Polled::default() }, now, &NothingHeld).unwrap()
}

fn offsets(next: usize) -> Offsets {
    Offsets(BTreeMap::from([(("scenario".into(), 0), next as i64)]))
}

struct NothingHeld;

impl Seen for NothingHeld {
    fn seen(&self, _: &str, keys: &[RowKey]) -> Result<Vec<bool>, SeenError> {
        Ok(vec![false; keys.len()])
    }
}

/// Everything admitted so far, as committed tables.
struct Store<'a> {
    schemas: &'a Schemas,
    units: Vec<Admitted>,
}

impl History for Store<'_> {
    fn table(&self, name: &str) -> Arc<dyn query::TableProvider> {
        let batches = self.units.iter().flat_map(|u| &u.batches).filter(|b| &*b.table == name);
        let schema = self.schemas.table(name).expect("a stored table").arrow();
        query::batch_table(schema, batches.map(|b| b.rows.clone()).collect())
    }
}
