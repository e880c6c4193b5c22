//! The stall watchdog: a partition that has something to read, may be read and does not move. A consumer can fall into
//! this state by a bug or a lost request, and then stays silent for ever, which looks like a quiet source.

use std::time::{Duration, Instant};

/// How a partition has been getting on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Our position, and the next offset to fetch: a long run of aborted records moves only the latter.
    at: (Option<i64>, i64),
    since: Instant,
    tried: u32,
}

/// What to do about a stall, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Ask for the position again.
    Seek,
    /// Give all partitions back to the client library and take them anew.
    Assign,
    /// The process ends: a new one has new connections and remembers nothing.
    GiveUp,
}

impl Progress {
    pub fn new(now: Instant) -> Progress {
        Progress { at: (None, -1), since: now, tried: 0 }
    }

    /// `behind`: there is something to read, and it may be read. Not known counts as no: when no broker answers,
    /// nothing can move, and that is said elsewhere.
    pub fn look(&mut self, at: (Option<i64>, i64), behind: bool, now: Instant, after: Duration) -> Option<Remedy> {
        if self.at != at || !behind {
            *self = Progress { at, since: now, tried: 0 };
            return None;
        }
        if now.duration_since(self.since) < after {
            return None;
        }
        self.since = now;
        self.tried += 1;
        Some(match self.tried {
            1 => Remedy::Seek,
            2 => Remedy::Assign,
            _ => Remedy::GiveUp,
        })
    }

    pub fn stalled(&self) -> bool {
        self.tried > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_still_is_helped_and_at_last_given_up() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let mut check = |second: u64, position: i64, behind: bool, expected: Option<Remedy>| {
            let now = start + Duration::from_secs(second);
            let got = progress.look((Some(position), -1), behind, now, Duration::from_secs(60));
            assert_eq!(got, expected, "second {second}");
            progress.stalled()
        };
        check(0, 5, true, None);
        check(59, 5, true, None);
        assert!(check(60, 5, true, Some(Remedy::Seek)));
        check(119, 5, true, None);
        assert!(check(120, 5, true, Some(Remedy::Assign)));
        assert!(!check(121, 6, true, None), "it moved");
        check(180, 6, true, None);
        check(181, 6, true, Some(Remedy::Seek));
        check(241, 6, true, Some(Remedy::Assign));
        check(301, 6, true, Some(Remedy::GiveUp));
        assert!(!check(302, 6, false, None), "nothing to read");
        check(361, 6, true, None);
        assert!(check(362, 6, true, Some(Remedy::Seek)), "the clock starts when nothing was to be read");
    }
}
