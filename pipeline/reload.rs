//! Hot reload: the folder of rules is looked at every few seconds; what changed and is right takes effect, what is wrong
//! is said and changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use detect::RuleSet;

use crate::rooms::RuleSource;
use crate::shutdown::Shutdown;

/// How often the folder is looked at. A change is taken up when it was the same twice: an editor may be at work.
const LOOK: Duration = Duration::from_secs(2);

/// Name, size and time of every file in the folder.
type Look = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// Until the switch is pulled. `take` gets each new set that is right.
pub fn watch(source: &RuleSource, bundle: &str, stopping: &Shutdown, take: impl Fn(RuleSet) -> bool) {
    let Some(dir) = &source.dir else { return };
    let (mut bundle, mut loaded) = (bundle.to_owned(), look(dir));
    let mut before = loaded.clone();
    while !stopping.wait(LOOK) {
        let now = look(dir);
        let is_settled = now == std::mem::replace(&mut before, now.clone());
        if now == loaded || !is_settled {
            continue;
        }
        loaded = now;
        match source.load() {
            Ok(rules) if rules.bundle == bundle => {}
            Ok(rules) => {
                bundle = rules.bundle.clone();
                tracing::info!(rules = rules.rules.len(), bundle, "the rules have changed");
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
