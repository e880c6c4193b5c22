//! Any bytes as a message of Falco.

#![no_main]

use event::Source;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stakeout_fuzz::decode(Source::Falco, bytes);
});
