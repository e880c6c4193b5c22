//! How fast, against skipping the same bytes with serde_json in the same run.
//! `cargo test -p stakeout -p normalize --lib -- --ignored speed --nocapture`

use std::time::{Duration, Instant};

use event::{Message, Source};
use serde::de::IgnoredAny;

use super::{message, real_lines};
use crate::hash::row_hash;
use crate::program::Program;
use crate::{Normalizer, Schemas};

/// Messages per `finish`, about what one poll brings.
const POLL: usize = 2000;

fn check(source: Source, file: &str) {
    let messages: Vec<Message> = real_lines(file).into_iter().map(|line| message(source, line)).collect();
    let megabytes = messages.iter().map(|m| m.bytes.len()).sum::<usize>() as f64 / 1e6;
    if messages.is_empty() {
        return;
    }
    let mut normalizer = Normalizer::new(&Schemas::builtin());
    let schemas = Schemas::builtin();
    let program = Program::new(schemas.plans().iter().find(|p| p.source == source).unwrap());
    let mut scratch = program.scratch();
    let [mut skip, mut walk, mut hash, mut blake3, mut rows] = [Duration::MAX; 5];
    for _ in 0..60 {
        skip = skip.min(time(|| {
            for message in &messages {
                std::hint::black_box(serde_json::from_slice::<IgnoredAny>(&message.bytes).unwrap());
            }
        }));
        walk = walk.min(time(|| {
            for message in &messages {
                let text = str::from_utf8(&message.bytes).unwrap();
                std::hint::black_box(program.walk(text, &mut scratch).unwrap());
            }
        }));
        hash = hash.min(time(|| {
            for message in &messages {
                std::hint::black_box(row_hash(&message.bytes));
            }
        }));
        blake3 = blake3.min(time(|| {
            for message in &messages {
                std::hint::black_box(blake3::hash(&message.bytes));
            }
        }));
        rows = rows.min(time(|| {
            for messages in messages.chunks(POLL) {
                messages.iter().for_each(|m| normalizer.push(m));
                std::hint::black_box(normalizer.finish());
            }
        }));
    }
    let speed = |time: Duration| megabytes / time.as_secs_f64();
    let [skip, walk, hash, blake3, rows] = [skip, walk, hash, blake3, rows].map(speed);
    println!(
        "{file}: MB/s skip {skip:.0} walk {walk:.0} hash {hash:.0} (BLAKE3 {blake3:.0}) all {rows:.0}, all/skip {:.2}",
        rows / skip
    );
}

fn time(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    check(Source::CloudTrail, "cloudtrail/invictus.ndjson");
    check(Source::Kubernetes, "kubernetes/perfspec_metadata.ndjson");
    check(Source::Kubernetes, "kubernetes/openshift_audit.ndjson");
}
