//! Opens the rooms in the order that makes a restart safe: schemas and rules first (all their mistakes at once),
//! then the store with its recovery, then the alerts, then the engine, which catches up on stored rows that
//! detection had not seen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alert::Alerts;
use anyhow::{Context, Result};
use detect::{Derived, Engine, History, Output, Retained, RuleSet};
use event::{Admitted, Commit, Micros, Origin, Polled, Seen, Source, TableSchema, Watermarks};
use normalize::{Admit, AdmitConfig, Normalized, Normalizer, Schemas};
use query::TableProvider;
use store::{Store, StoreError, StoreOptions};

use crate::config::Config;
use crate::pack;

/// How often a second process looks whether the data directory has become free.
const LEASE_RETRY: Duration = Duration::from_millis(500);

/// A full disk under alerts.db: ten minutes for someone to make room, then the process ends.
const RECORD_RETRY: Duration = Duration::from_secs(2);
const RECORD_TRIES_MAX: u32 = 300;
/// What evaluating a commit takes before rows that came meanwhile have their turn.
const SLICE: Duration = Duration::from_millis(20);

pub fn wall_clock() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// What decides: schemas and rules, read and checked.
pub struct Knowledge {
    pub schemas: Schemas,
    pub rules: RuleSet,
}

impl Knowledge {
    pub fn load(config: &Config) -> Result<Knowledge> {
        let schemas = load_schemas(config)?;
        let rules = load_rules(config, &schemas)?;
        rules.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(Knowledge { schemas, rules })
    }
}

pub fn load_schemas(config: &Config) -> Result<Schemas> {
    match &config.schemas {
        Some(dir) => Ok(Schemas::load(dir)?),
        None => Ok(Schemas::builtin()),
    }
}

pub fn load_rules(config: &Config, schemas: &Schemas) -> Result<RuleSet> {
    RuleSource::of(config, schemas).load()
}

/// Where rules come from, and what they are checked against.
#[derive(Clone)]
pub struct RuleSource {
    /// `None`: the pack inside the binary.
    pub dir: Option<PathBuf>,
    tables: Vec<Arc<TableSchema>>,
    schemas_hash: String,
}

impl RuleSource {
    pub fn of(config: &Config, schemas: &Schemas) -> RuleSource {
        RuleSource { dir: rules_dir(config), tables: stored(schemas), schemas_hash: schemas.hash() }
    }

    pub fn load(&self) -> Result<RuleSet> {
        let (tables, hash) = (&self.tables, &self.schemas_hash);
        Ok(runtime()?.block_on(async {
            match &self.dir {
                Some(dir) => RuleSet::load(dir, tables, hash).await,
                None => RuleSet::parse_folder(&pack::folder(), wall_clock(), tables, hash).await,
            }
        })?)
    }
}

/// The configured folder, else ./detections if it is there; `None` means the pack inside the binary.
pub fn rules_dir(config: &Config) -> Option<PathBuf> {
    let here = Path::new("detections");
    config.detections.clone().or_else(|| here.is_dir().then(|| here.to_owned()))
}

pub fn stored(schemas: &Schemas) -> Vec<Arc<TableSchema>> {
    schemas.tables().to_vec()
}

/// The way from messages to admitted rows.
pub struct Door {
    normalizer: Normalizer,
    admit: Admit,
}

impl Door {
    pub fn new(config: &Config, schemas: &Schemas, restored: Watermarks) -> Door {
        let lateness: BTreeMap<Source, Micros> =
            config.lateness.iter().map(|(source, d)| (*source, d.as_micros() as i64)).collect();
        let admit = AdmitConfig { lateness, future_skew: config.future_skew.as_micros() as i64 };
        Door { normalizer: Normalizer::new(schemas), admit: Admit::new(admit, restored) }
    }

    pub fn admit(&mut self, polled: Polled, held: &dyn Seen) -> Result<Admitted> {
        self.admit_at(polled, wall_clock(), held)
    }

    pub fn admit_at(&mut self, polled: Polled, now: Micros, held: &dyn Seen) -> Result<Admitted> {
        polled.messages.iter().for_each(|message| self.normalizer.push(message));
        let rows = self.normalizer.finish();
        Ok(self.admit.admit(&polled, rows, now, held)?)
    }

    /// Admits what was normalized elsewhere from the messages of `polled`.
    pub fn admit_rows(&mut self, polled: &Polled, rows: Normalized, held: &dyn Seen) -> Result<Admitted> {
        Ok(self.admit.admit(polled, rows, wall_clock(), held)?)
    }
}

/// Opens the store, waiting while another process holds the directory.
pub fn open_store(config: &Config, schemas: &Schemas, wait: bool) -> Result<Arc<Store>> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot create the data directory {}", config.data_dir.display()))?;
    let options = StoreOptions {
        seal_bytes: config.seal_bytes,
        seal_after: config.seal_age,
        recompute: Some(backfill(schemas)),
        ..StoreOptions::default()
    };
    let mut told = false;
    loop {
        match Store::open(&config.data_dir, stored(schemas), options.clone()) {
            Err(StoreError::Leased { pid, .. }) if wait => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(pid, "the data directory is in use; waiting to take over");
                }
                std::thread::sleep(LEASE_RETRY);
            }
            other => return Ok(Arc::new(other?)),
        }
    }
}

/// Opens the store beside its owner, or without one: what is committed.
pub fn read_store(dir: &Path, schemas: &Schemas) -> Result<Store, StoreError> {
    Store::open_beside(dir, stored(schemas), Some(backfill(schemas)))
}

/// Fills columns that older segments lack.
fn backfill(schemas: &Schemas) -> Arc<dyn event::Recompute> {
    Arc::new(normalize::Backfill::new(schemas))
}

pub fn alerts_db(config: &Config) -> PathBuf {
    config.data_dir.join("alerts.db")
}

/// Detection with its place in alerts.db.
pub struct Detection {
    engine: Engine,
    alerts: Alerts,
    store: Arc<Store>,
    derived: Arc<Derived>,
    runtime: tokio::runtime::Runtime,
}

/// Where state tables are kept between two starts of the same program.
pub(crate) fn derived(config: &Config) -> Derived {
    let program = std::env::current_exe().and_then(|path| path.metadata());
    let made = program.map_or((0, None), |data| (data.len(), data.modified().ok()));
    Derived::new(config.data_dir.join(store::DERIVED), format!("{} {made:?}", env!("CARGO_PKG_VERSION")))
}

/// Where rules remember what has expired.
pub(crate) fn retained(store: &Store) -> Retained {
    let dir = store.dir().join(store::RETAINED);
    if store.is_read_only() { Retained::read_only(dir) } else { Retained::new(dir) }
}

/// Committed rows, as the engine may see them.
pub(crate) struct Committed<'a>(pub &'a Store);

impl History for Committed<'_> {
    fn table(&self, name: &str) -> Arc<dyn TableProvider> {
        self.0.committed(name).expect("the engine asks for stored tables")
    }

    fn retained(&self) -> Option<Arc<Retained>> {
        Some(Arc::new(retained(self.0)))
    }
}

impl Detection {
    /// Builds the engine at the frontier of alerts.db and evaluates stored rows past it.
    pub fn open(config: &Config, knowledge: Knowledge, store: Arc<Store>) -> Result<Detection> {
        let alerts = Alerts::open(&alerts_db(config), &config.alerts)?;
        let engine = Engine::new(knowledge.rules, alerts.frontier()?, &store.watermarks()?);
        let derived = Arc::new(derived(config));
        let engine = engine.in_slices_of(SLICE).derived_in(derived.clone());
        let mut detection = Detection { engine, alerts, store, derived, runtime: runtime()? };
        detection.engine.stored_up_to(detection.store.offsets()?);
        detection.engine.expect(detection.alerts.provisional()?);
        // Where new rules start is kept before the first row comes.
        let start = detection.engine.frontier().clone();
        detection.keep(&Output { frontier: start, ..Output::default() })?;
        let started = Instant::now();
        let output = detection.runtime.block_on(detection.engine.catch_up(&Committed(&detection.store)))?;
        tracing::info!(took = ?started.elapsed(), "the rules know what is stored");
        let found = detection.keep(&output)?;
        if found > 0 {
            tracing::info!(findings = found, "evaluated stored rows that detection had not seen");
        }
        Ok(detection)
    }

    /// Where its state tables are kept.
    pub fn derived(&self) -> Arc<Derived> {
        self.derived.clone()
    }

    /// Rung when a page is waiting.
    pub fn bell(&self) -> Arc<alert::Bell> {
        self.alerts.bell()
    }

    pub fn on_admitted(&mut self, admitted: &Admitted) -> Result<usize> {
        let output = self.runtime.block_on(self.engine.on_admitted(admitted))?;
        self.keep(&output)
    }

    /// What a commit makes final, for a slice of time. True while some is left for [`Detection::go_on`].
    pub fn on_commit(&mut self, commit: &Commit) -> Result<bool> {
        let history = Committed(&self.store);
        let advanced = self.engine.on_commit(&commit.watermarks, &commit.offsets, &history);
        let output = self.runtime.block_on(advanced)?;
        self.keep(&output)?;
        Ok(output.pending)
    }

    /// Other rules from now on. One that is new says at once what holds; like a commit, in slices.
    pub fn on_rules(&mut self, rules: RuleSet) -> Result<bool> {
        let history = Committed(&self.store);
        let provisional = self.alerts.provisional()?;
        let output = self.runtime.block_on(self.engine.replace_rules(rules, provisional, &history))?;
        self.keep(&output)?;
        Ok(output.pending)
    }

    /// The next slice of what was begun. True while some is left.
    pub fn go_on(&mut self) -> Result<bool> {
        let history = Committed(&self.store);
        let output = self.runtime.block_on(self.engine.go_on(&history))?;
        self.keep(&output)?;
        Ok(output.pending)
    }

    /// The input ends here: every window that rows can still reach is final.
    pub fn finish(&mut self, origin: Origin) -> Result<usize> {
        let history = Committed(&self.store);
        let output = self.runtime.block_on(self.engine.finish_bounded(origin, None, &history))?;
        self.keep(&output)
    }

    /// Findings and frontier in one transaction. Returns the number of findings.
    fn keep(&mut self, output: &Output) -> Result<usize> {
        for tries in 0.. {
            match self.alerts.record(&output.findings, &output.frontier, wall_clock()) {
                // Like the sealer: a restart would meet the same full disk. Meanwhile the line waits for detection.
                Err(error) if error.can_heal() && tries < RECORD_TRIES_MAX => {
                    if tries == 0 {
                        tracing::error!("cannot record findings, trying again: {error}");
                    }
                    metrics::counter!("stakeout_record_failures_total").increment(1);
                    std::thread::sleep(RECORD_RETRY);
                }
                other => {
                    other.context("cannot record findings")?;
                    break;
                }
            }
        }
        Ok(output.findings.len())
    }
}

/// DataFusion gets a runtime of its own: its work is CPU work and must not sit on an I/O runtime.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
