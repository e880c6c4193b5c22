#!/bin/sh
# Builds the fuzz targets with stable Rust: `cargo fuzz` without its sanitizers does the same. Coverage is what libFuzzer
# needs; what sanitizers find is excluded by `unsafe_code = "forbid"`.
set -e
cd "$(dirname "$0")"
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
 -Cllvm-args=-sanitizer-coverage-trace-compares" \
    exec cargo build --release --target "$(rustc --print host-tuple)" "$@"
