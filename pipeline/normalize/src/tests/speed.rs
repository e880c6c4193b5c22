//! How fast, against skipping the same bytes with serde_json in the same run.
//! `cargo test -p stakeout -p normalize --lib -- --ignored speed --nocapture`

use std::time::{Duration, Instant};

use event::{Message, Source};
use serde::de::IgnoredAny;

use super::{message, real_lines};
use crate::hash::row_hash;
use crate::program::Program;
use crate::{Normalizer, Schemas};

/// Messages per `finish`: fewer than a poll brings, so that a chunk is done before the scheduler interrupts it.
const POLL: usize = 300;
const RUNS: usize = 60;

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
    let skip = best(&messages, |message| {
        std::hint::black_box(serde_json::from_slice::<IgnoredAny>(&message.bytes).unwrap());
    });
    let walk = best(&messages, |message| {
        let text = str::from_utf8(&message.bytes).unwrap();
        std::hint::black_box(program.walk(text, &mut scratch).unwrap());
    });
    let hash = best(&messages, |message| drop(std::hint::black_box(row_hash(&message.bytes).to_vec())));
    let blake3 = best(&messages, |message| drop(std::hint::black_box(blake3::hash(&message.bytes).to_string())));
    let rows = best_of_chunks(&messages, |messages| {
        messages.iter().for_each(|m| normalizer.push(m));
        std::hint::black_box(normalizer.finish());
    });
    let speed = |time: Duration| megabytes / time.as_secs_f64();
    let [skip, walk, hash, blake3, rows] = [skip, walk, hash, blake3, rows].map(speed);
    println!(
        "{file}: MB/s skip {skip:.0} walk {walk:.0} hash {hash:.0} (BLAKE3 {blake3:.0}) all {rows:.0}, all/skip {:.2}",
        rows / skip
    );
}

fn best(messages: &[Message], mut work: impl FnMut(&Message)) -> Duration {
    best_of_chunks(messages, |messages| messages.iter().for_each(&mut work))
}

/// The sum of the best times of the chunks: others may be busy on the machine, but not always at the same chunk.
fn best_of_chunks(messages: &[Message], mut work: impl FnMut(&[Message])) -> Duration {
    let chunks: Vec<&[Message]> = messages.chunks(POLL).collect();
    let mut best = vec![Duration::MAX; chunks.len()];
    for _ in 0..RUNS {
        for (best, chunk) in best.iter_mut().zip(&chunks) {
            let started = Instant::now();
            work(chunk);
            *best = (*best).min(started.elapsed());
        }
    }
    best.iter().sum()
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    check(Source::CloudTrail, "cloudtrail/invictus.ndjson");
    check(Source::Kubernetes, "kubernetes/perfspec_metadata.ndjson");
    check(Source::Kubernetes, "kubernetes/openshift_audit.ndjson");
}
