//! Any bytes as the body of a request to a receiver. The first byte says how it comes: plain, as gzip as it is, or
//! compressed here, so that the fuzzer need not find a checksum; and with which content type.
//!
//! What must hold: no panic; a plain body that is taken is taken byte for byte; one that was compressed comes out as it
//! went in; what comes out is bounded, and so is the memory that was asked for; a refusal says why and what to do.

#![no_main]

use std::io::Write;

use body::{BodyLimits, check_body};
use refusal::Refusal;

// The files themselves: their crate would bring a Kafka client along.
#[allow(dead_code)]
#[path = "../../../pipeline/source/src/http/body.rs"]
mod body;
#[allow(dead_code)]
#[path = "../../../pipeline/source/src/http/refusal.rs"]
mod refusal;

const LIMITS: BodyLimits = BodyLimits { body_bytes_max: 64 << 10 };
const TYPES: [Option<&str>; 4] = [None, Some("application/json"), Some("Text/Plain; charset=x"), Some("text/html")];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((how, sent)) = bytes.split_first() else { return };
    let content_type = TYPES[usize::from(how >> 2) % TYPES.len()];
    let (encoding, body) = match how & 3 {
        0 => (None, sent.to_vec()),
        1 => (std::str::from_utf8(sent.get(..4).unwrap_or_default()).ok(), sent.to_vec()),
        2 => (Some("gzip"), sent.to_vec()),
        _ => (Some("x-gzip"), zipped(sent)),
    };
    let mut reserved = 0;
    let mut reserve = |step: usize| {
        reserved += step;
        true
    };
    match check_body(content_type, encoding, body, &LIMITS, &mut reserve) {
        Ok(record) => {
            assert!(!record.is_empty() && record.len() <= LIMITS.body_bytes_max);
            assert!(how & 3 == 2 || record == sent, "the body became another");
        }
        Err(Refusal { status, code, message, hint, .. }) => {
            assert!(matches!(status.as_u16(), 400 | 413 | 415), "{status} {code}");
            assert!(!message.is_empty() && !hint.is_empty());
        }
    }
    assert!(reserved <= LIMITS.body_bytes_max + 1, "{reserved} bytes were asked for");
});

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}
