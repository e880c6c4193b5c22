//! How fast to send: exponential backoff with jitter, a token bucket per key, and what `Retry-After` means. Pure: time
//! and chance come in as values.

use event::Micros;

use crate::config::Span;

pub(crate) const SECOND: i64 = 1_000_000;
/// A pager that comes back is noticed within this time, even after a day.
const BACKOFF_MAX: i64 = 300 * SECOND;
/// A receiver may ask for patience, not for silence: beyond an hour it is tried anyway.
pub(crate) const RETRY_AFTER_MAX: i64 = 3_600 * SECOND;

/// Before attempt number `failures + 1`: 1 s, 2 s, 4 s … 5 min, each by 0.8 to 1.2 (`chance` is within 0..1), so that
/// receivers which failed together do not return together.
pub(crate) fn backoff(failures: i64, chance: f64) -> i64 {
    let doublings = u32::try_from(failures.saturating_sub(1).clamp(0, 20)).unwrap_or(0);
    let base = (SECOND << doublings).min(BACKOFF_MAX);
    ((base as f64 * (0.8 + 0.4 * chance)) as i64).min(BACKOFF_MAX)
}

/// How long a `Retry-After` asks to wait: seconds or an HTTP date.
pub(crate) fn retry_after(header: &str, now: Micros) -> Option<Span> {
    let header = header.trim();
    let asked = match header.parse::<i64>() {
        Ok(seconds) => seconds.saturating_mul(SECOND),
        Err(_) => chrono::DateTime::parse_from_rfc2822(header).ok()?.timestamp_micros().saturating_sub(now),
    };
    Some(Span(asked.clamp(0, RETRY_AFTER_MAX)))
}

/// At most `burst` at once and `per_minute` over time.
#[derive(Debug)]
pub(crate) struct Bucket {
    burst: f64,
    per_us: f64,
    tokens: f64,
    at: Micros,
}

impl Bucket {
    pub fn new(per_minute: u32, burst: u32, now: Micros) -> Bucket {
        let burst = f64::from(burst);
        Bucket { burst, per_us: f64::from(per_minute) / (60 * SECOND) as f64, tokens: burst, at: now }
    }

    /// Takes a token, or says when there will be one.
    pub fn take(&mut self, now: Micros) -> Result<(), Micros> {
        // A clock that was set back refills nothing, and does not stop the refill either.
        let passed = now.saturating_sub(self.at).max(0);
        self.tokens = (self.tokens + passed as f64 * self.per_us).min(self.burst);
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(now.saturating_add(((1.0 - self.tokens) / self.per_us).ceil() as i64 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_five_minutes() {
        let check = |failures, seconds: i64| assert_eq!(backoff(failures, 0.5), seconds * SECOND, "{failures}");
        check(1, 1);
        check(2, 2);
        check(3, 4);
        check(9, 256);
        check(10, 300);
        check(1_000_000, 300);
        assert_eq!((backoff(2, 0.0), backoff(2, 1.0)), (1_600_000, 2_400_000));
    }

    #[test]
    fn retry_after_in_seconds_and_as_a_date() {
        let check = |header: &str, expected: Option<i64>| {
            let now = 1_445_412_420 * SECOND; // 2015-10-21T07:27:00Z
            assert_eq!(retry_after(header, now).map(|s| s.0), expected.map(|s| s * SECOND), "{header}");
        };
        check("7", Some(7));
        check("Wed, 21 Oct 2015 07:28:00 GMT", Some(60));
        check("Wed, 21 Oct 2015 07:26:00 GMT", Some(0));
        check("-3", Some(0));
        check("99999999", Some(3_600));
        check("soon", None);
    }

    #[test]
    fn a_bucket_never_exceeds_its_rate() {
        let mut bucket = Bucket::new(100, 20, 0);
        let (mut now, mut sent) = (0, 0);
        while now < 60 * SECOND {
            match bucket.take(now) {
                Ok(()) => sent += 1,
                Err(at) => now = at,
            }
        }
        assert_eq!(sent, 119); // the burst and one minute's refill stay within PagerDuty's 120
    }
}
