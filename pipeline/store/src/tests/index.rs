//! What the index finds, against a scan of every row: on the real events and on made ones, in segments of today, of older formats,
//! and merged from both.

use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::schema::{describe_anew, segment};
use super::{Row, format2, format3, found, hash, open, row, tables, unit};
use crate::search::leaves::{Leaf, Leaves};
use crate::search::query::Phrase;
use crate::search::words::is_code;
use crate::segment::FileMeta;
use crate::segment::index::written;
use crate::segment::invert::Inverter;
use crate::{Compaction, Store};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/");

/// Replaces the index of the only segment by one as the older format had it, and gives it a `dedup.bin`.
fn as_older(dir: &Path, rows: &[Row], format: u32) {
    let folder = segment(dir);
    fs::remove_dir_all(folder.join("index")).unwrap();
    fs::create_dir(folder.join("index")).unwrap();
    let raws = || rows.iter().map(|row| row.raw.as_str());
    let mut files = match format {
        2 => format2::build(raws()),
        3 => format3::build(raws()),
        _ => {
            let mut inverter = Inverter::of_format(format);
            raws().for_each(|raw| inverter.add(raw));
            written(inverter).unwrap()
        }
    };
    if format < 4 {
        files.push(format3::dedup_file(raws(), true));
    }
    for file in &files {
        fs::write(folder.join(&file.name), &file.bytes).unwrap();
    }
    describe_anew(dir, |meta| {
        meta["format"] = json!(format);
        let described = meta["files"].as_array_mut().unwrap();
        described.retain(|file| !file["name"].as_str().unwrap().starts_with("index/"));
        described.extend(files.iter().map(|file| serde_json::to_value(FileMeta::of(file)).unwrap()));
    });
}

fn put(store: &Store, rows: &[Row]) {
    store.append(&unit(&tables()[0], rows)).unwrap();
}

/// The first half as a segment of an older format, if any, the rest as one of today; then both merged.
fn check(rows: &[Row], queries: &[String], older: Option<u32>) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let brute = open(dir.path());
    put(&brute, rows);
    let expected: Vec<Vec<String>> = queries.iter().map(|query| found(&brute, query)).collect();
    drop(brute);
    let same = |store: &Store, what: &str| {
        for (query, expected) in queries.iter().zip(&expected) {
            assert!(&found(store, query) == expected, "{what} (older: {older:?}): {query}");
        }
    };
    let (first, second) = rows.split_at(rows.len() / 2);
    let store = open(dir.path());
    put(&store, first);
    store.seal().unwrap();
    drop(store);
    if let Some(format) = older {
        as_older(dir.path(), first, format);
    }
    let store = open(dir.path());
    put(&store, second);
    store.seal().unwrap();
    assert_eq!((store.stats().unwrap().segments, store.stats().unwrap().tail_rows), (2, 0));
    same(&store, "sealed");
    let policy = Compaction { inputs_min: 2, ..Compaction::default() };
    assert_eq!(store.compact(&policy, 0, &|| false).unwrap().unwrap().inputs, 2);
    store.sweep().unwrap();
    same(&store, "merged");
    store.verify().unwrap();
    expected.iter().filter(|rows| !rows.is_empty()).count()
}

/// Queries of every kind about what some row holds at some path.
fn queries(rng: &mut StdRng, rows: &[Row], count: usize) -> Vec<String> {
    let mut leaves = Leaves::default();
    let mut all = Vec::new();
    while all.len() < count {
        leaves.read(&rows.choose(rng).unwrap().raw);
        let of_row: Vec<(&str, Leaf<'_>)> = leaves.iter().collect();
        let Some((path, leaf)) = of_row.choose(rng) else { continue };
        let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_');
        let text = match leaf {
            Leaf::Text(text) | Leaf::Number(text) => *text,
            _ => "true",
        };
        let words = crate::search::words::words(text);
        if !plain || path.is_empty() || words.is_empty() || words.iter().any(|word| word.len() > 60) {
            continue;
        }
        let codes: Vec<usize> = (0..words.len()).filter(|at| is_code(&words[*at])).collect();
        let from = match codes.choose(rng) {
            Some(code) if rng.random_bool(0.5) => *code,
            _ => rng.random_range(0..words.len()),
        };
        let to = rng.random_range(from..words.len().min(from + 5)) + 1;
        let (word, some) = (&words[from], words[from..to].join(" "));
        let head = &word[..word.floor_char_boundary(3)];
        let backwards: Vec<&str> = words[from..to].iter().rev().map(String::as_str).collect();
        let last = &word[word.ceil_char_boundary(word.len().saturating_sub(2))..];
        all.push(match rng.random_range(0..14) {
            0 => format!("\"{word}\""),
            1 => format!("\"{some}\""),
            2 => format!("{path}:\"{word}\""),
            3 => format!("{path}:\"{some}\""),
            4 => format!("{path}:\"{}\"", words[..words.len().min(Phrase::WORDS_MAX)].join(" ")),
            5 => format!("{path}:\"{}\"", backwards.join(" ")),
            6 => format!("{path}:{head}*"),
            7 => format!("{path}:*{head}*"),
            8 => format!("{path}:*"),
            9 => format!("NOT {path}:\"{some}\""),
            10 => format!("{path}:/.*{head}.*/"),
            11 => format!("{path}:{word}*"),
            12 => format!("{path}:{head}*{last}*"),
            _ => format!("{path}:>=\"{word}\""),
        });
    }
    all
}

fn real(file: &str, count: usize) -> Option<Vec<Row>> {
    let text = fs::read_to_string(format!("{DATA}{file}")).ok()?;
    Some(text.lines().take(count).zip(0..).map(|(line, n)| row(n, n, line)).collect())
}

#[test]
fn agrees_with_a_scan_over_real_events() {
    let files = [
        ("cloudtrail/invictus.ndjson", 900),
        ("kubernetes/openshift_audit.ndjson", 300),
        ("falco/falco_docs.ndjson", 100),
    ];
    for (file, count) in files {
        let Some(rows) = real(file, count) else {
            println!("skipped: {file} is not there");
            continue;
        };
        let seed: u64 = rand::rng().random();
        let mut rng = StdRng::seed_from_u64(seed);
        let queries = queries(&mut rng, &rows, 120);
        println!("{file}, seed {seed}");
        let some = check(&rows, &queries, [None, Some(2), Some(3), Some(4)][seed as usize % 4]);
        assert!(some > 80, "{file}, seed {seed}: only {some} queries find something");
    }
}

/// Words around the bound between rare and not, alone and in company, more rows than a block of postings has, values that come
/// twice in a row, ids that never repeat, times and UUIDs that share some of their words, codes that come now and then.
#[test]
fn agrees_with_a_scan_over_made_events() {
    let raw = |n: i64| {
        let user = format!("system:user-{}", n % 90);
        let rare = format!("the {} of {}", ["rare", "odd"][usize::from(n % 100 == 7)], n % 200);
        let verb = ["get", "list", "get all"][n as usize % 3];
        let mixed = if n % 4 == 0 { json!(n % 7) } else { json!(format!("{} {}", n % 7, n % 3)) };
        let at = format!("2026-01-15T09:{:02}:{:02}.{:06}Z", n / 600 % 60, n / 10 % 60, n * 7919 % 1_000_000);
        let hex = hash(&(n / 2).to_string()).map(|b| format!("{b:02x}")).concat();
        let uid = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        let arn = format!("arn:aws:iam::{:012}:user/{}", 123_456_789_000 + n % 150, n % 11);
        json!({
            "at": at, "uid": uid, "arn": arn, "version": (10_000_000 + n * 31).to_string(), "bytes": 20_000_000 + n / 3,
            "id": format!("{n:08x}-{:04x}", n * 7919 % 65536), "user": user, "rare": rare, "verb": verb,
            "groups": ["system:all", format!("system:{}", n % 5), "system:all"], "n": n % 50, "s": (n % 50).to_string(),
            "mixed": mixed, "empty": "", "dash": "--", "flag": n % 2 == 0,
        })
        .to_string()
    };
    let rows: Vec<Row> = (0..3000).map(|n| row(n, n, raw(n))).collect();
    let seed: u64 = rand::rng().random();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut all = queries(&mut rng, &rows, 150);
    let fixed = [
        "user:\"system user 7\"",
        "user:\"user system\"",
        "\"all system\"",
        "groups:\"system all\"",
        "groups:\"all system 3\"",
        "rare:\"the odd\"",
        "rare:\"odd of 7\"",
        "rare:\"rare of 7\"",
        "rare:\"the * of 1*\"",
        "verb:\"get all\"",
        "verb:get",
        "mixed:3",
        "mixed:\"3 1\"",
        "mixed:\"3 *\"",
        "n:7",
        "s:7",
        "n:<7",
        "empty:*",
        "dash:*",
        "flag:true",
        "id:00000007*",
        "id:\"00000007\"",
        "NOT user:\"user 1\"",
        "groups:\"system 4\" verb:list",
        "\"2026 01 15t09\"",
        "at:\"2026-01-15T09:01:07.005433Z\"",
        "at:\"09 01 *\"",
        "at:\"01 07 0*\"",
        "at:0054*",
        "at:*z",
        "*5433z",
        "at:\"* 007919z\"",
        "arn:\"iam 123456789007\"",
        "arn:\"iam 123456789007 user\"",
        "123456789007",
        "arn:\"aws iam\"",
        "version:10000031",
        "10000031",
        "version:1000003?",
        "bytes:20000001",
        "20000001",
        "NOT uid:*a*",
        "uid:\"* 0* *\" n:7",
    ];
    all.extend(fixed.map(str::to_owned));
    println!("seed {seed}");
    for older in [None, Some(2), Some(3), Some(4)] {
        assert!(check(&rows, &all, older) > 85, "seed {seed}");
    }
}
