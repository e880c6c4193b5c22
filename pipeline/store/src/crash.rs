//! Named points at which a test may kill the process: `STAKEOUT_CRASH_AT=name[:nth]` aborts at the nth time
//! (from 1) that the point is reached. Without the variable a point costs one atomic load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that arms a point.
pub const CRASH_AT: &str = "STAKEOUT_CRASH_AT";

struct Armed {
    name: String,
    left: AtomicU64,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Aborts the process, without unwinding and without flushing anything, if this point is armed and its turn.
pub fn crash_point(name: &str) {
    let armed = ARMED.get_or_init(|| std::env::var(CRASH_AT).ok().map(|text| parse(&text)));
    let Some(armed) = armed else { return };
    if armed.name == name && armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        std::process::abort();
    }
}

fn parse(text: &str) -> Armed {
    let (name, nth) = match text.split_once(':') {
        Some((name, nth)) => (name, nth.parse().unwrap_or(1)),
        None => (text, 1),
    };
    Armed { name: name.to_owned(), left: AtomicU64::new(nth) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_its_turn() {
        let check = |text, name: &str, nth| {
            let armed = parse(text);
            assert_eq!((armed.name.as_str(), armed.left.into_inner()), (name, nth));
        };
        check("before-fsync", "before-fsync", 1);
        check("after-manifest-commit:3", "after-manifest-commit", 3);
    }
}
