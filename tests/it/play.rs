//! Plays events through normalize, admit and the engine as a process would take them: in batches of any size, with commits
//! in between and a crash now and then. What is found must not depend on any of that.

use std::collections::BTreeMap;
use std::sync::Arc;

use detect::{Engine, History};
use event::{
    Admitted, Finding, Frontier, Message, Micros, OffsetRange, Offsets, Origin, Polled, Ranges, RowKey, Seen,
    SeenError, Source, Standing, Watermarks,
};
use normalize::Schemas;
use rand::Rng;
use rand::rngs::StdRng;
use stakeout::config::Config;
use stakeout::rooms::{Door, Knowledge};

use crate::process::root;

pub struct Arriving {
    pub arrival: Micros,
    pub source: Source,
    pub cluster: Option<String>,
    pub bytes: Vec<u8>,
}

/// The pack of this repository, as a process loads it.
pub struct Pack {
    config: Config,
    schemas: Schemas,
    pub knowledge: Knowledge,
}

impl Pack {
    pub fn load() -> Pack {
        let config = Config { detections: Some(root().join("detections")), ..Config::default() };
        let knowledge = Knowledge::load(&config).unwrap();
        Pack { config, schemas: Schemas::builtin(), knowledge }
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

/// One way through. `events` are in the order in which they arrive; at most `batch` of them come at once.
pub fn play(pack: &Pack, events: &[Arriving], batch: usize, random: &mut StdRng) -> Vec<Finding> {
    let Pack { config, schemas, knowledge } = pack;
    let runtime = stakeout::rooms::runtime().unwrap();
    let mut door = Door::new(config, schemas, Watermarks::default());
    let mut engine = Engine::new(knowledge.rules.clone(), Frontier::default(), &Watermarks::default());
    let mut store = Store { schemas, units: Vec::new() };
    let mut kept = Kept { frontier: engine.frontier().clone(), ..Kept::default() };
    let mut at = 0;
    while at < events.len() {
        let to = (at + random.random_range(1..=batch)).min(events.len());
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
    let now = events.last().expect("a batch has events").arrival;
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
