//! Two processes, one data directory: the second waits, and takes over when the first is killed. And what an operator
//! does beside a running process: verify, backup, restore.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use stakeout::generate::{Sink, topics};
use synthetic::{Event, Generator, Options};

use crate::process::{Run, finish, free_port, get, sample, stakeout};

const EVENTS: usize = 12_000;

/// A config beside the data directory, with a port of its own.
fn config(dir: &Path, data: &Path, name: &str, listen: SocketAddr) -> PathBuf {
    let mut text = format!(
        "data_dir: {}\nlisten: {listen}\nseal: {{age: 300ms}}\nstore: {{compaction: {{segments: 4}}}}\nembedded:\n",
        data.display()
    );
    for topic in topics() {
        let cluster = topic.cluster.map_or(String::new(), |cluster| format!(", cluster: {cluster}"));
        writeln!(text, "  - {{topic: {}, source: {}{cluster}}}", topic.name, topic.source).unwrap();
    }
    let path = dir.join(format!("{name}.yaml"));
    std::fs::write(&path, text).unwrap();
    path
}

/// Appends the first half at once and the rest, slowly, when told to. Returns the distinct elements by their hashes.
fn feed(data: &Path, seed: u64, rest: &Receiver<()>, fed: &AtomicBool) -> BTreeSet<String> {
    let mut sink = Sink::embedded(&data.join("log"), &topics()).unwrap();
    let stream = Options { seed, gap: 4_000, attack_every: 1_000, ..Options::default() };
    let events: Vec<Event> = Generator::new(stream).take(EVENTS).collect();
    let (first, second) = events.split_at(EVENTS / 2);
    sink.send(first).unwrap();
    rest.recv().unwrap();
    for chunk in second.chunks(100) {
        sink.send(chunk).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    fed.store(true, Ordering::SeqCst);
    events.iter().map(|event| Sha256::digest(&event.bytes)[..16].iter().map(|b| format!("{b:02x}")).collect()).collect()
}

/// Row hashes of all stored rows, each as often as it is there.
fn stored(config: &Path) -> Vec<String> {
    let sql = "SELECT row_hash FROM kubernetes UNION ALL SELECT row_hash FROM cloudtrail \
               UNION ALL SELECT row_hash FROM falco UNION ALL SELECT row_hash FROM unparsed";
    let out =
        finish(stakeout().args(["sql", sql, "--format", "csv", "--rows-max", "1000000", "--config"]).arg(config), &[0]);
    out.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn a_second_process_takes_over_when_the_first_is_killed() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let ports = [free_port(), free_port()];
    let configs = [config(dir.path(), &data, "first", ports[0]), config(dir.path(), &data, "second", ports[1])];
    let fed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (go, rest) = channel();
        let (folder, all_fed) = (&data, &fed);
        let feeder = scope.spawn(move || feed(folder, seed, &rest, all_fed));
        let mut first = Run::start(&configs[0], ports[0], &dir.path().join("first.log"));
        first.wait_until_ready();
        let mut second = Run::start(&configs[1], ports[1], &dir.path().join("second.log"));
        first.wait_for_metrics("commits", Duration::from_secs(60), |metrics| {
            sample(metrics, "stakeout_commits_total").is_some_and(|commits| commits >= 2.0)
        });
        second.assert_running();
        let answer = get(ports[1], "/readyz").unwrap_or_default();
        assert!(answer.contains("503"), "the second waits: {answer}");

        // Beside the owner, with the tail still moving.
        let copy = dir.path().join("copy");
        finish(stakeout().arg("backup").arg(&copy).arg("--config").arg(&configs[0]), &[0]);
        finish(stakeout().arg("verify").arg("--config").arg(&configs[0]), &[0]);

        go.send(()).unwrap();
        first.wait_for_metrics("events of the second half", Duration::from_secs(60), |metrics| {
            sample(metrics, "stakeout_events_admitted_total").is_some_and(|rows| rows > EVENTS as f64 * 0.52)
        });
        let midway = !fed.load(Ordering::SeqCst);
        let killed = Instant::now();
        first.kill();
        second.wait_until_ready();
        println!(
            "took over in {:.2} s, {}",
            killed.elapsed().as_secs_f64(),
            if midway { "midway" } else { "at the end" }
        );
        let expected = feeder.join().unwrap();
        let deadline = Instant::now() + Duration::from_secs(90);
        let mut rows = Vec::new();
        while rows.len() < expected.len() && Instant::now() < deadline {
            second.assert_running();
            std::thread::sleep(Duration::from_millis(300));
            rows = stored(&configs[1]);
        }
        second.terminate();
        rows = stored(&configs[1]);
        let distinct: BTreeSet<String> = rows.iter().cloned().collect();
        assert_eq!(rows.len(), distinct.len(), "seed {seed}: nothing is stored twice");
        assert!(distinct == expected, "seed {seed}: {} stored, {} were sent", distinct.len(), expected.len());
        let said = finish(stakeout().arg("verify").arg("--config").arg(&configs[1]), &[0]);
        assert!(said.contains("no problem") && said.contains("last commit"), "{said}");

        restored(dir.path(), &copy, &expected);
        damaged(&data, &configs[1]);
    });
}

/// The backup opens, is whole, and a process that starts on it reads the rest of what its log had.
fn restored(dir: &Path, copy: &Path, expected: &BTreeSet<String>) {
    let data = dir.join("restored");
    let listen = free_port();
    let config = config(dir, &data, "restored", listen);
    let said = finish(stakeout().arg("restore").arg(copy).arg("--config").arg(&config), &[0]);
    assert!(said.contains("no problem"), "{said}");
    let before = stored(&config).len();
    let mut run = Run::start(&config, listen, &dir.join("restored.log"));
    run.wait_until_ready();
    run.terminate();
    let rows = stored(&config);
    assert!(rows.len() >= before && rows.iter().all(|row| expected.contains(row)), "{before} then {}", rows.len());
    assert_eq!(rows.len(), rows.iter().collect::<BTreeSet<_>>().len());
    finish(stakeout().arg("restore").arg(copy).arg("--config").arg(&config), &[2]);
}

/// Exit codes: 1 for damage, 2 where there is nothing to verify.
fn damaged(data: &Path, config: &Path) {
    let folder = std::fs::read_dir(data.join("segments/kubernetes")).unwrap().next().unwrap().unwrap().path();
    let file = folder.join("data.parquet");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let said = finish(stakeout().arg("verify").arg("--config").arg(config), &[1]);
    assert!(said.contains("data.parquet does not have the bytes that were written"), "{said}");
    finish(stakeout().args(["verify", "--quarantine", "--config"]).arg(config), &[1]);
    finish(stakeout().arg("verify").arg("--config").arg(config), &[0]);
    finish(stakeout().args(["verify", "--data-dir", "no-such-folder"]), &[2]);
}
