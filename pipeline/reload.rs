//! Hot reload: the folder of rules is looked at every few seconds; what changed and is right takes effect, what is wrong
//! is said and changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use detect::RuleSet;
use event::Micros;

use crate::rooms::{RuleSource, wall_clock};
use crate::shutdown::Shutdown;

/// How often the folder is looked at. A change is taken up when it was the same twice: an editor may be at work.
const LOOK: Duration = Duration::from_secs(2);

/// Name, size and time of every file in the folder.
type Look = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// What is in force.
pub struct InForce {
    pub bundle: String,
    /// When an exception of tuning.yaml ends.
    pub tuned_until: Option<Micros>,
}

impl InForce {
    pub fn of(rules: &RuleSet) -> InForce {
        InForce { bundle: rules.bundle.clone(), tuned_until: rules.tuned_until }
    }
}

/// Until the switch is pulled. `take` gets each new set that is right.
pub fn watch(source: &RuleSource, in_force: InForce, stopping: &Shutdown, take: impl Fn(RuleSet) -> bool) {
    let Some(dir) = &source.dir else { return };
    let InForce { mut bundle, mut tuned_until } = in_force;
    let mut loaded = look(dir);
    let mut before = loaded.clone();
    while !stopping.wait(LOOK) {
        let now = look(dir);
        let is_settled = now == std::mem::replace(&mut before, now.clone());
        let has_ended = tuned_until.is_some_and(|until| until <= wall_clock());
        if (now == loaded && !has_ended) || !is_settled {
            continue;
        }
        tuned_until = None;
        loaded = now;
        match source.load() {
            Ok(rules) if rules.bundle == bundle => tuned_until = rules.tuned_until,
            Ok(rules) => {
                tuned_until = rules.tuned_until;
                bundle = rules.bundle.clone();
                tracing::info!(rules = rules.rules.len(), bundle, "the rules have changed");
                rules.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                metrics::counter!("stakeout_rules_reloads_total").increment(1);
                metrics::gauge!("stakeout_rules_reload_failed").set(0.0);
                if !take(rules) {
                    return;
                }
            }
            Err(error) => {
                metrics::gauge!("stakeout_rules_reload_failed").set(1.0);
                tracing::error!("the changed rules are not taken up, the ones before stay:\n{error:#}");
            }
        }
    }
}

fn look(dir: &Path) -> Look {
    let mut seen = Look::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(data) if data.is_dir() => folders.push(entry.path()),
                Ok(data) => drop(seen.insert(entry.path(), (data.len(), data.modified().ok()))),
                Err(_) => {}
            }
        }
    }
    seen
}
