//! Stories across three planes, each with its benign twin: what must be found, and that nothing else is. Events arrive
//! as they would: CloudTrail twelve minutes late, all of them shuffled among those that arrive near them, in batches of
//! any size, with commits in between and a crash. The findings are the same each time.

use std::collections::BTreeMap;

use event::{Finding, Micros, format_micros};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::Value;

use crate::play::{Arriving, Pack, play};
use crate::process::root;

const START: Micros = 1_767_225_600_000_000;
/// Events whose arrivals lie so near each other may change places.
const SHUFFLED_US: i64 = 5_000_000;
const RUNS: u64 = 6;
const BATCH: usize = 8;

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

#[test]
fn stories_are_found_and_their_twins_are_not() {
    let folder = root().join("tests/it/scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    paths.sort();
    assert!(paths.len() >= 4, "the scenarios are in {}", folder.display());
    let pack = Pack::load();
    for path in paths {
        let scenario: Scenario = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for case in &scenario.cases {
            for seed in 0..RUNS {
                let story = format!("{} {} (seed {seed})", scenario.id, case.name);
                let mut random = StdRng::seed_from_u64(seed);
                let found = play(&pack, &arriving(case, &mut random), BATCH, &mut random);
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
