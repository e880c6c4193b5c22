//! Bodies as strangers send them: whatever they hold, the answer is a record of bounded size or a refusal, and a
//! plain body that is taken is taken byte for byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use source::http::{BodyLimits, check_body};

const LIMITS: BodyLimits = BodyLimits { body_bytes_max: 1 << 20 };

fuzz_target!(|input: (Option<&str>, Option<&str>, bool, &[u8])| {
    let (content_type, encoding, gzip, bytes) = input;
    let encoding = if gzip { Some("gzip") } else { encoding };
    let mut reserved = 0;
    let mut reserve = |step: usize| {
        reserved += step;
        reserved <= LIMITS.body_bytes_max + 1
    };
    match check_body(content_type, encoding, bytes.to_vec(), &LIMITS, &mut reserve) {
        Ok(record) => {
            assert!(!record.is_empty() && record.len() <= LIMITS.body_bytes_max);
            if reserved == 0 {
                assert_eq!(record, bytes, "a plain body became another");
            }
        }
        Err(refusal) => {
            // Memory was there to be had: what is refused is refused for what it is.
            assert!(matches!(refusal.status.as_u16(), 400 | 413 | 415), "{refusal:?}");
            assert!(!refusal.message.is_empty() && !refusal.hint.is_empty());
        }
    }
});
