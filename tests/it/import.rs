//! All real events, imported by the real binary: each line that repeats no other is a row, importing again adds
//! nothing, and what `search` and `sql` count is what an independent Python script counts over the raw files. Then
//! imports of many files: as S3 buckets lay them out, interrupted and resumed, by one thread and by several.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use alert::{Filter, Reader};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use event::Source;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use synthetic::{Generator, Options};

use crate::process::{finish, root, stakeout};
use crate::stored;

/// Every count of `counts.py` that has a query here; the Python is the other half of the table.
const COUNTS: [(&str, Ask); 35] = [
    ("kubernetes rows", Ask::Sql("SELECT count(*) FROM kubernetes")),
    ("cloudtrail rows", Ask::Sql("SELECT count(*) FROM cloudtrail")),
    ("falco rows", Ask::Sql("SELECT count(*) FROM falco")),
    ("unparsed rows", Ask::Sql("SELECT count(*) FROM unparsed")),
    ("search eventName", Ask::Search("eventName:GetUser")),
    ("search case-insensitive", Ask::Search("eventName:dEcRyPt")),
    ("search nested path", Ask::Search("userIdentity.type:AssumedRole")),
    ("search phrase in a field", Ask::Search("errorMessage:\"rate exceeded\"")),
    ("search and not", Ask::Search("eventSource:iam.amazonaws.com AND NOT eventName:GetUser")),
    ("search or", Ask::Search("eventName:GetSecretValue OR eventName:CreateAccessKey")),
    ("search free word", Ask::Search("stratus")),
    ("search free phrase", Ask::Search("\"is not authorized to perform\"")),
    ("search prefix wildcard", Ask::Search("eventName:Describe*")),
    ("search inner wildcard", Ask::Search("eventName:*secret*")),
    ("search one character wildcard", Ask::Search("eventName:getrol?")),
    ("search number", Ask::Search("responseStatus.code:403")),
    ("search number range", Ask::Search("response_code:[400 TO 499]")),
    ("search comparison", Ask::Search("response_code:>=500")),
    ("search exists", Ask::Search("errorCode:*")),
    ("search column", Ask::Search("verb:watch")),
    ("search set", Ask::Search("verb:(delete OR patch OR deletecollection)")),
    ("search time range", Ask::Search("source:cloudtrail time:[2023-07-10T12:00:00Z TO 2023-07-10T13:00:00Z}")),
    ("search falco priority", Ask::Search("source:falco priority:warning")),
    ("search falco field", Ask::Search("output_fields.proc.cmdline:cat")),
    ("search network", Ask::Search("sourceIPs:192.168.0.0/16")),
    ("sql calls", Ask::Sql("SELECT count(*) FROM kubernetes_calls")),
    (
        "sql denied",
        Ask::Sql(
            "SELECT count(*) FROM cloudtrail WHERE error_code LIKE '%AccessDenied%' OR error_code LIKE '%Unauthorized%'",
        ),
    ),
    ("sql distinct users", Ask::Sql("SELECT count(DISTINCT actor_user_name) FROM kubernetes")),
    (
        "sql secrets read",
        Ask::Sql("SELECT count(*) FROM kubernetes WHERE verb IN ('get', 'list') AND objectref_resource = 'secrets'"),
    ),
    ("sql write calls", Ask::Sql("SELECT count(*) FROM cloudtrail WHERE NOT read_only")),
    (
        "sql json path",
        Ask::Sql(
            "SELECT count(*) FROM cloudtrail WHERE json_get_str(raw, 'requestParameters', 'userName') IS NOT NULL",
        ),
    ),
    ("sql events by source", Ask::Sql("SELECT count(*) FROM events WHERE source <> 'cloudtrail'")),
    (
        "sql service accounts",
        Ask::Sql("SELECT count(*) FROM kubernetes WHERE starts_with(actor_user_name, 'system:serviceaccount:')"),
    ),
    ("sql kubernetes failures", Ask::Sql("SELECT count(*) FROM kubernetes WHERE status = 'Failure'")),
    ("sql falco critical", Ask::Sql("SELECT count(*) FROM falco WHERE priority = 'Critical'")),
];

enum Ask {
    Search(&'static str),
    Sql(&'static str),
}

#[test]
fn real_events_are_all_there_once_and_counted_alike() {
    let Some(data) = crate::real_events() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let mut lines = BTreeSet::new();
    let mut import_all = |expect_new: bool| {
        for source in ["kubernetes", "cloudtrail", "falco"] {
            let files = ndjson(&data.join(source));
            let mut own = BTreeSet::new();
            for file in &files {
                let bytes = std::fs::read(file).unwrap();
                own.extend(bytes.split(|b| *b == b'\n').filter(|l| !l.trim_ascii().is_empty()).map(<[u8]>::to_vec));
            }
            let before = rows(&dir);
            let cluster = if source == "cloudtrail" { vec![] } else { vec!["--cluster", "test"] };
            finish(
                stakeout().args(["import", "--source", source, "--data-dir"]).arg(&dir).args(cluster).args(&files),
                &[0],
            );
            let added = rows(&dir) - before;
            assert_eq!(added, if expect_new { own.len() } else { 0 }, "rows that importing {source} added");
            lines.extend(own);
        }
    };
    import_all(true);
    import_all(false);
    assert_eq!(rows(&dir), lines.len());

    let script = root().join("tests/it/counts.py");
    let output = Command::new("python3").arg(script).arg(&data).output().expect("python3 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: BTreeMap<String, u64> = serde_json::from_slice(&output.stdout).unwrap();
    let mut wrong = Vec::new();
    for (name, ask) in &COUNTS {
        let counted = match ask {
            Ask::Search(query) => {
                finish(stakeout().args(["search", "--count", query, "--data-dir"]).arg(&dir), &[0, 1])
            }
            Ask::Sql(query) => sql(&dir, query),
        };
        let counted: u64 = counted.trim().parse().unwrap();
        if counted != expected[*name] {
            wrong.push(format!("{name}: counted {counted}, independently {}", expected[*name]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(COUNTS.len(), expected.len(), "each independent count has its query");
}

fn ndjson(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "ndjson"));
    files.sort();
    files
}

/// Rows of all tables; 0 before the first import.
fn rows(dir: &Path) -> usize {
    if !dir.exists() {
        return 0;
    }
    let query = "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM unparsed)";
    sql(dir, query).trim().parse().unwrap()
}

/// The one number that the query returns.
fn sql(dir: &Path, query: &str) -> String {
    let out = finish(stakeout().args(["sql", query, "--format", "csv", "--data-dir"]).arg(dir), &[0]);
    out.lines().nth(1).unwrap_or_else(|| panic!("{query}: {out}")).to_owned()
}

/// CloudTrail's files of an organization, one of them read twice under two names, beside what is no log.
#[test]
fn buckets_are_imported_as_they_lie() {
    let Some(data) = crate::real_events() else { return };
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("bucket/AWSLogs");
    let mut events = BTreeSet::new();
    for file in ndjson(&data.join("cloudtrail")) {
        let bytes = fs::read(file).unwrap();
        events.extend(bytes.split(|b| *b == b'\n').filter(|l| !l.trim_ascii().is_empty()).map(<[u8]>::to_vec));
    }
    let lines: Vec<&Vec<u8>> = events.iter().collect();
    let per_file = lines.len() / 220;
    let mut files = 0;
    for (number, records) in lines.chunks(per_file).enumerate() {
        let (account, region) =
            (["111122223333", "o-abc/444455556666"][number % 2], ["eu-west-1", "us-east-1"][number / 2 % 2]);
        let day = bucket.join(account).join("CloudTrail").join(region).join(format!("2026/01/{:02}", number % 28 + 1));
        fs::create_dir_all(&day).unwrap();
        let records: Vec<&[u8]> = records.iter().map(|record| record.as_slice()).collect();
        let document = [&b"{\"Records\":["[..], &records.join(&b","[..])[..], b"]}"].concat();
        let name = format!("1_CloudTrail_{region}_202601{:02}T{:02}00Z_{number}.json", number % 28 + 1, number % 24);
        fs::write(day.join(name), document).unwrap();
        files += 1;
    }
    assert!(files >= 200);
    let digests = bucket.join("111122223333/CloudTrail-Digest/eu-west-1");
    fs::create_dir_all(&digests).unwrap();
    fs::write(digests.join("1_CloudTrail-Digest_eu-west-1_x.json"), "{\"digestS3Bucket\":\"b\"}").unwrap();
    assert!(Command::new("gzip").arg("-r").arg(&bucket).status().expect("gzip is installed").success());
    fs::write(bucket.join("readme"), "text").unwrap();
    std::os::unix::fs::symlink(&bucket, bucket.join("111122223333/loop")).unwrap();

    let store = dir.path().join("data");
    let import = |args: &[&str], code: i32| {
        let mut command = stakeout();
        command.args(["import", "--source", "cloudtrail", "--data-dir"]).arg(&store).args(args).arg(&bucket);
        talk(&mut command, code)
    };
    let said = import(&["--dry-run"], 0);
    assert!(said.contains(&format!("would read {files} files")) && !store.exists(), "{said}");
    let said = import(&[], 0);
    assert!(said.contains(&format!("imported {} events from {files} files", lines.len())), "{said}");
    assert!(said.contains("0 unparsed") && said.contains("skipped 1: CloudTrail digests"), "{said}");
    assert!(said.contains("found before under another name") && said.contains("no JSON by their content"), "{said}");
    assert_eq!(rows(&store), lines.len());
    // The order of times in the names is the order of rows.
    let first = cells(&store, "SELECT topic FROM cloudtrail").remove(0);
    assert!(first.contains("_20260101T0000Z_"), "{first}");

    let said = import(&[], 0);
    assert!(said.contains("from 0 files") && said.contains(&format!("{files} files were imported before")), "{said}");
    let said = import(&["--again"], 0);
    assert!(said.contains("imported 0 events") && said.contains(&format!("{} duplicates", lines.len())), "{said}");
    assert_eq!(rows(&store), lines.len());
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let events = trail(3, 300);
    let text = events.join(&b'\n');
    fs::write(dir.path().join("whole.ndjson"), &text).unwrap();
    fs::write(dir.path().join("cut.json"), &text).unwrap();
    assert!(Command::new("gzip").arg(dir.path().join("cut.json")).status().expect("gzip is installed").success());
    let packed = fs::read(dir.path().join("cut.json.gz")).unwrap();
    fs::write(dir.path().join("cut.json.gz"), &packed[..packed.len() / 2]).unwrap();
    fs::write(dir.path().join("wide.json"), b"\xff\xfe{\0}\0").unwrap();
    fs::write(dir.path().join("odd.log"), b"\0\0\0{}\n\xff\xfe\n{\"a\":\r\n").unwrap();
    let data = dir.path().join("data");
    let mut command = stakeout();
    command.args(["import", "--source", "cloudtrail", "--data-dir"]).arg(&data).arg(dir.path());
    let said = talk(&mut command, 2);
    assert!(said.contains("error: 2 files could not be read, or not in full; all others are imported"), "{said}");
    assert!(said.contains("cut.json.gz: line ") && said.contains("the gzip data breaks off here"), "{said}");
    assert!(said.contains("wide.json: is UTF-16\nhint: convert it"), "{said}");
    assert!(said.contains("not UTF-8: invalid byte at byte #"), "{said}");
    let distinct: BTreeSet<_> = events.iter().collect();
    assert_eq!(sql(&data, "SELECT count(*) FROM cloudtrail"), distinct.len().to_string());
}

/// However an import ends, the next one goes on: rows and findings are those of an import that nobody disturbed.
#[test]
fn interrupted_imports_are_resumed() {
    let seed = std::env::var("STAKEOUT_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    let number = |name: &str, default| std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    let (count, kills) = (number("STAKEOUT_IMPORT_EVENTS", 12_000), number("STAKEOUT_IMPORT_KILLS", 3));
    println!("seed {seed}, {count} events, {kills} kills");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    let events = trail(seed, count);
    let distinct: BTreeSet<_> = events.iter().map(|event| hash(event)).collect();
    split(&logs, &events, &mut random);

    let broken = dir.path().join("broken");
    let mut child = import(dir.path(), &broken, &logs, 2).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while !(heeds_interrupts(child.id()) && broken.join("lease").exists()) {
        assert!(started.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("stopped before the end") && said.contains("hint: run the same command again"), "{said}");

    let mut midway = 0;
    for kill in 0..kills {
        let mut child = import(dir.path(), &broken, &logs, 2).stderr(Stdio::null()).spawn().unwrap();
        let wanted = distinct.len() * (kill + 1) / (kills + 1);
        let started = Instant::now();
        while stored::committed(&broken).1 < wanted as u64 && child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(120), "never came to {wanted} rows");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..20)));
        child.kill().unwrap();
        child.wait().unwrap();
        let rows = stored::committed(&broken).1;
        println!("killed at {rows} rows");
        midway += usize::from(rows > 0 && rows < distinct.len() as u64);
    }
    // A quick machine may be done before the last ones.
    assert!(midway * 2 >= kills, "only {midway} of {kills} kills came midway");
    let said = talk(&mut import(dir.path(), &broken, &logs, 2), 0);
    assert!(said.contains("files were imported before"), "{said}");
    let whole = dir.path().join("whole");
    talk(&mut import(dir.path(), &whole, &logs, 2), 0);

    for data in [&broken, &whole] {
        let hashes = cells(data, "SELECT row_hash FROM cloudtrail");
        assert_eq!(hashes.len(), distinct.len(), "seed {seed}: rows of {}", data.display());
        assert_eq!(hashes.into_iter().collect::<BTreeSet<_>>(), distinct, "seed {seed}");
    }
    assert_eq!(findings(&broken), findings(&whole), "seed {seed}");
    assert!(!findings(&whole).is_empty(), "the stream has attacks in it");
    // A file that changes is read again.
    let more = trail(seed ^ 1, 10);
    fs::write(logs.join("000.ndjson"), more.join(&b'\n')).unwrap();
    let new = more.iter().map(|event| hash(event)).filter(|hash| !distinct.contains(hash)).collect::<BTreeSet<_>>();
    let said = talk(&mut import(dir.path(), &whole, &logs, 2), 0);
    assert!(said.contains("from 1 files") && said.contains(&format!("imported {} events", new.len())), "{said}");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    split(&logs, &trail(7, 9_000), &mut StdRng::seed_from_u64(7));
    let [one, four] = [1, 4].map(|jobs| {
        let data = dir.path().join(format!("jobs-{jobs}"));
        talk(&mut import(dir.path(), &data, &logs, jobs), 0);
        let columns = "topic, \"offset\", message_index, file_sha256, event_uid, row_hash, source_watermark, time, raw";
        (cells(&data, &format!("SELECT {columns} FROM cloudtrail")), findings(&data))
    });
    assert_eq!(one.0.len(), four.0.len());
    assert!(one == four, "the same rows in the same order, the same findings");
}

/// Has the process a handler for SIGINT yet? (Bit 1 of the caught signals.)
fn heeds_interrupts(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    u64::from_str_radix(caught.trim(), 16).is_ok_and(|caught| caught & 2 != 0)
}

fn import(dir: &Path, data: &Path, logs: &Path, jobs: u32) -> Command {
    let config = dir.join("stakeout.yaml");
    fs::write(&config, "seal: {bytes: 1MiB, age: 1s}\n").unwrap();
    let mut command = stakeout();
    command.args(["import", "--source", "cloudtrail", "--jobs", &jobs.to_string(), "--config"]).arg(config);
    command.arg("--data-dir").arg(data).arg(logs);
    command
}

/// What the command said on stderr.
fn talk(command: &mut Command, code: i32) -> String {
    let Output { status, stderr, .. } = command.output().expect("the binary starts");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(code), "{command:?}\n{said}");
    said
}

/// Generated CloudTrail events with attacks among them.
fn trail(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let start = 1_768_467_600_000_000;
    let stream = Options { seed, start, gap: 10_000, attack_every: 2_000, ..Options::default() };
    let events = Generator::new(stream).filter(|event| event.source == Source::CloudTrail);
    events.map(|event| event.bytes).take(count).collect()
}

/// Files of various shapes and sizes, some of them packed.
fn split(logs: &Path, events: &[Vec<u8>], random: &mut StdRng) {
    fs::create_dir_all(logs).unwrap();
    let (mut rest, mut number) = (events, 0);
    let mut packed = Vec::new();
    while !rest.is_empty() {
        let (these, those) = rest.split_at(random.random_range(1..400).min(rest.len()));
        let lines: Vec<&[u8]> = these.iter().map(Vec::as_slice).collect();
        let list = number % 3 == 1;
        let text = match list {
            true => [&b"{\"Records\":["[..], &lines.join(&b","[..])[..], b"]}"].concat(),
            false => lines.join(&b"\n"[..]),
        };
        let path = logs.join(format!("{number:03}.{}", if list { "json" } else { "ndjson" }));
        fs::write(&path, text).unwrap();
        if number % 2 == 1 {
            packed.push(path);
        }
        (rest, number) = (those, number + 1);
    }
    assert!(Command::new("gzip").args(packed).status().expect("gzip is installed").success());
}

fn hash(event: &[u8]) -> String {
    Sha256::digest(event)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Rows of a query over one table in the order in which they are stored.
fn cells(data: &Path, query: &str) -> Vec<String> {
    let options = FormatOptions::default();
    let mut rows = Vec::new();
    for batch in stored::query(data, query) {
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for number in 0..batch.num_rows() {
            let row: Vec<String> = columns.iter().map(|column| column.value(number).to_string()).collect();
            rows.push(row.join(" | "));
        }
    }
    rows
}

/// Id to rule, time and evidence.
fn findings(data: &Path) -> BTreeMap<String, (String, i64, u64)> {
    let reader = Reader::open(&data.join("alerts.db")).unwrap();
    let findings = reader.findings(&Filter::default()).unwrap().into_iter();
    findings
        .map(|f| (f.finding.id.clone(), (f.finding.rule.clone(), f.finding.time.last(), f.finding.evidence.count)))
        .collect()
}
