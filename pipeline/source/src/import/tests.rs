//! Imports through the door: files on disk in, messages out.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use event::Origin;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// All messages and what became of the files.
fn import(paths: &[PathBuf], jobs: usize) -> (Vec<Message>, Vec<FileRead>, Import) {
    let survey = Survey::of(paths, Source::CloudTrail).unwrap();
    let mut import = Import::start(survey.files, Source::CloudTrail, None, jobs).unwrap();
    let (mut messages, mut read) = (Vec::new(), Vec::new());
    while !import.finished() {
        messages.extend(import.poll(Duration::ZERO).unwrap().messages);
        read.extend(import.take_read());
    }
    (messages, read, import)
}

#[test]
fn plain_and_multi_member_gzip_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.json"), "{\"a\":1}\n\n{\"a\":2}\n").unwrap();
    fs::write(dir.path().join("b.json.gz"), [gzip("{\"b\":1}\n{\"b\""), gzip(":2}\n")].concat()).unwrap();
    fs::write(dir.path().join("c.json"), "{\n \"Records\": []\n}\n").unwrap();
    let (messages, read, import) = import(&[dir.path().to_owned()], 3);
    let got: Vec<(i64, &str)> = messages.iter().map(|m| (m.offset, std::str::from_utf8(&m.bytes).unwrap())).collect();
    assert_eq!(
        got,
        [(0, "{\"a\":1}"), (2, "{\"a\":2}"), (0, "{\"b\":1}"), (1, "{\"b\":2}"), (0, "{\n \"Records\": []\n}")]
    );
    let first = &messages[0];
    assert_eq!(&*first.topic, format!("file:{}/a.json", dir.path().display()));
    // printf '{"a":1}\n\n{"a":2}\n' | sha256sum
    let sha256 = first.file_sha256.as_deref().unwrap();
    assert_eq!(sha256, "03d3c8409ad259618058af771adfc2539209489abd477364538f148a9f0439b0");
    assert_eq!((first.origin, first.partition), (Origin::Import, 0));
    let progress = import.progress();
    assert_eq!((progress.files_done, progress.files_total), (3, 3));
    assert_eq!(progress.bytes_done, progress.bytes_total);
    assert!(read.iter().all(|read| read.errors.is_empty() && read.notes.is_empty()));
    assert_eq!(read.iter().map(|read| read.messages).collect::<Vec<_>>(), [2, 2, 1]);
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let lines: String = (0..20_000).map(|i| format!("{{\"number\":{i}}}\n")).collect();
    let whole = gzip(&lines);
    fs::write(dir.path().join("a-cut.gz"), &whole[..whole.len() / 2]).unwrap();
    fs::write(dir.path().join("b-wide.json"), [0xff, 0xfe, b'{', 0]).unwrap();
    fs::write(dir.path().join("c-gone.json"), "{}").unwrap();
    fs::write(dir.path().join("d.json.gz"), [gzip("{}\n"), b"behind".to_vec()].concat()).unwrap();
    let survey = Survey::of(&[dir.path().to_owned()], Source::CloudTrail).unwrap();
    fs::remove_file(dir.path().join("c-gone.json")).unwrap();
    let mut import = Import::start(survey.files, Source::CloudTrail, None, 2).unwrap();
    let (mut messages, mut read) = (Vec::new(), Vec::new());
    while !import.finished() {
        messages.extend(import.poll(Duration::ZERO).unwrap().messages);
        read.extend(import.take_read());
    }
    let cut = messages.len() as u64 - 1;
    assert!(cut > 1000 && read[0].messages == cut);
    assert_eq!(read[0].errors, [format!("line {}: the gzip data breaks off here", cut + 1)]);
    assert!(read[1].errors[0].contains("UTF-16\nhint: convert it with `iconv"), "{:?}", read[1].errors);
    assert!(read[2].errors[0].contains("No such file"), "{:?}", read[2].errors);
    assert_eq!((read[3].errors.len(), read[3].messages), (0, 1));
    assert_eq!(read[3].notes, ["6 bytes behind the end of the gzip data were not read"]);
}

#[test]
fn a_cluster_is_required_where_events_do_not_name_it() {
    let error = Import::start(Vec::new(), Source::Falco, None, 1).err().unwrap().to_string();
    assert!(error.ends_with("hint: --cluster NAME"), "{error}");
}

#[test]
fn polls_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("many.log"), "{}\n".repeat(POLL_MESSAGES_MAX + 1)).unwrap();
    fs::write(dir.path().join("wide.log"), format!("{}\n", "x".repeat(3 << 20)).repeat(3)).unwrap();
    let survey = Survey::of(&[dir.path().to_owned()], Source::CloudTrail).unwrap();
    let mut import = Import::start(survey.files, Source::CloudTrail, None, 2).unwrap();
    let mut counts = Vec::new();
    while !import.finished() {
        counts.push(import.poll(Duration::ZERO).unwrap().messages.len());
    }
    counts.retain(|count| *count > 0);
    assert_eq!(counts, [POLL_MESSAGES_MAX, 3, 1]);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for file in 0..300 {
        // Of very different sizes, the largest beyond what may be read ahead.
        let (lines, wide) = if file % 100 == 50 { (200, 200_000) } else { (file, 10) };
        let wide = "x".repeat(wide);
        let text: String = (0..lines).map(|line| format!("{{\"{wide}\":{line}}}\n")).collect();
        fs::write(dir.path().join(format!("{file:03}.log")), text).unwrap();
    }
    let all = |jobs| {
        let (messages, read, _) = import(&[dir.path().to_owned()], jobs);
        let mut hasher = sha2::Sha256::default();
        for message in &messages {
            sha2::Digest::update(&mut hasher, [&message.bytes, message.topic.as_bytes()].concat());
        }
        let hashes: Vec<_> = read.iter().map(|read| read.sha256.clone()).collect();
        (messages.len(), sha2::Digest::finalize(hasher), hashes)
    };
    let one = all(1);
    assert_eq!(one, all(4));
    assert!(one.0 > 40_000);
}

#[test]
fn stopping_early_ends_the_threads() {
    let dir = tempfile::tempdir().unwrap();
    for file in 0..4 {
        fs::write(dir.path().join(format!("{file}.log")), "{\"a\":1}\n".repeat(5 << 20)).unwrap();
    }
    let survey = Survey::of(&[dir.path().to_owned()], Source::CloudTrail).unwrap();
    let mut import = Import::start(survey.files, Source::CloudTrail, None, 4).unwrap();
    assert!(!import.poll(Duration::ZERO).unwrap().messages.is_empty());
    // Joins them.
    drop(import);
}

#[test]
fn real_files_come_through_whole() {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    if !data.exists() {
        println!("skipped: no real events here");
        return;
    }
    let (messages, read, import) = import(&[data.to_owned()], 2);
    assert!(read.iter().all(|read| read.errors.is_empty()), "{read:?}");
    let bytes: usize = messages.iter().map(|m| m.bytes.len()).sum();
    println!("{} messages, {bytes} bytes from {} files", messages.len(), import.progress().files_done);
    assert!(messages.len() > import.progress().files_done / 2);
}
