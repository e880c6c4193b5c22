//! Imports through the door: files on disk in, messages out.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn import(paths: &[PathBuf]) -> (Vec<Message>, Result<(), SourceError>, Import) {
    let mut import = Import::open(paths, Source::CloudTrail, None).unwrap();
    let mut messages = Vec::new();
    while !import.finished() {
        match import.poll(Duration::ZERO) {
            Ok(polled) => messages.extend(polled.messages),
            Err(error) => return (messages, Err(error), import),
        }
    }
    (messages, Ok(()), import)
}

#[test]
fn plain_and_multi_member_gzip_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.json"), "{\"a\":1}\n\n{\"a\":2}\n").unwrap();
    fs::write(dir.path().join("b.json.gz"), [gzip("{\"b\":1}\n{\"b\""), gzip(":2}\n")].concat()).unwrap();
    fs::write(dir.path().join("c.json"), "{\n \"Records\": []\n}\n").unwrap();
    let (messages, outcome, import) = import(&[dir.path().to_owned()]);
    outcome.unwrap();
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
}

#[test]
fn what_cannot_be_read_is_named_after_what_could() {
    let dir = tempfile::tempdir().unwrap();
    let lines: String = (0..20_000).map(|i| format!("{{\"number\":{i}}}\n")).collect();
    let whole = gzip(&lines);
    fs::write(dir.path().join("cut.gz"), &whole[..whole.len() / 2]).unwrap();
    let (messages, outcome, _) = import(&[dir.path().join("cut.gz")]);
    assert!(messages.len() > 1000);
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains(&format!("read line {} of", messages.len() + 1)) && error.contains("cut.gz"), "{error}");
}

#[test]
fn a_cluster_is_required_where_events_do_not_name_it() {
    let error = Import::open(&[], Source::Falco, None).err().unwrap().to_string();
    assert!(error.ends_with("hint: --cluster NAME"), "{error}");
}

#[test]
fn polls_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("many.log"), "{}\n".repeat(POLL_MESSAGES_MAX + 1)).unwrap();
    fs::write(dir.path().join("wide.log"), format!("{}\n", "x".repeat(3 << 20)).repeat(3)).unwrap();
    let mut import = Import::open(&[dir.path().to_owned()], Source::CloudTrail, None).unwrap();
    let mut counts = Vec::new();
    while !import.finished() {
        counts.push(import.poll(Duration::ZERO).unwrap().messages.len());
    }
    counts.retain(|count| *count > 0);
    assert_eq!(counts, [POLL_MESSAGES_MAX, 3, 1]);
}

#[test]
fn real_files_come_through_whole() {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    if !data.exists() {
        println!("skipped: no real events here");
        return;
    }
    let (messages, outcome, import) = import(&[data.to_owned()]);
    outcome.unwrap();
    let bytes: usize = messages.iter().map(|m| m.bytes.len()).sum();
    println!("{} messages, {bytes} bytes from {} files", messages.len(), import.progress().files_done);
    assert!(messages.len() > import.progress().files_done / 2);
}
