//! Any text as one of the schema files.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stakeout_fuzz::schema_file(bytes);
});
