//! Named points at which a test may kill the process: `STAKEOUT_CRASH_AT=name[:when]`, several separated by commas.
//! `when` is a count (the nth time that the point is reached, from 1) or a probability (`0.01`); `*` is every point.
//! Without the variable a point costs one atomic load.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that arms points.
pub const CRASH_AT: &str = "STAKEOUT_CRASH_AT";

/// All points, in the order in which a seal, a merge, an expiry and a removal pass them.
pub const CRASH_POINTS: [&str; 11] = [
    "before-fsync",
    "after-segment-rename",
    "before-manifest-commit",
    "after-manifest-commit",
    "before-merge-fsync",
    "after-merge-rename",
    "before-compaction-swap",
    "after-compaction-swap",
    "before-retention-delete",
    "after-retention-delete",
    "mid-removal",
];

struct Armed {
    name: String,
    when: When,
}

enum When {
    /// Passes left.
    Nth(AtomicU64),
    Chance(f64),
}

static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();

/// Kills the process with SIGKILL, without unwinding and without flushing anything, if this point is armed and its turn.
pub fn crash_point(name: &str) {
    let armed = ARMED.get_or_init(|| std::env::var(CRASH_AT).map_or(Vec::new(), |text| parse(&text)));
    if armed.iter().any(|armed| armed.strikes(name)) {
        die();
    }
}

/// As from outside. This thread does not get past the point; where there is no `kill`, the process aborts.
fn die() -> ! {
    let pid = std::process::id().to_string();
    if std::process::Command::new("kill").args(["-KILL", &pid]).status().is_ok_and(|status| status.success()) {
        std::thread::sleep(std::time::Duration::from_secs(10));
    }
    std::process::abort()
}

impl Armed {
    fn strikes(&self, name: &str) -> bool {
        if self.name != name && self.name != "*" {
            return false;
        }
        match &self.when {
            When::Nth(left) => left.fetch_sub(1, Ordering::SeqCst) == 1,
            // Every `RandomState` has keys of its own.
            When::Chance(chance) => (RandomState::new().hash_one(name) as f64 / u64::MAX as f64) < *chance,
        }
    }
}

fn parse(text: &str) -> Vec<Armed> {
    let one = |text: &str| {
        let (name, when) = text.split_once(':').unwrap_or((text, "1"));
        let nth = |nth| When::Nth(AtomicU64::new(nth));
        let when = match (when.parse::<u64>(), when.parse::<f64>()) {
            (Ok(count), _) => nth(count),
            (_, Ok(chance)) => When::Chance(chance),
            _ => nth(1),
        };
        Armed { name: name.to_owned(), when }
    };
    text.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_its_turn_or_its_chance() {
        let strikes = |text: &str, name: &str| -> Vec<bool> {
            let armed = parse(text);
            (0..4).map(|_| armed.iter().any(|armed| armed.strikes(name))).collect()
        };
        assert_eq!(strikes("before-fsync", "before-fsync"), [true, false, false, false]);
        assert_eq!(strikes("after-manifest-commit:3", "after-manifest-commit"), [false, false, true, false]);
        assert_eq!(strikes("before-fsync:3,mid-removal:2", "mid-removal"), [false, true, false, false]);
        assert_eq!(strikes("before-fsync", "mid-removal"), [false; 4]);
        assert_eq!(strikes("*:1.0", "mid-removal"), [true; 4]);
        assert_eq!(strikes("*:0.0", "mid-removal"), [false; 4]);
        let armed = parse("mid-removal:0.5");
        let struck = (0..1000).filter(|_| armed[0].strikes("mid-removal")).count();
        assert!((300..700).contains(&struck), "{struck} of 1000");
    }
}
