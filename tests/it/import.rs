//! All real events, imported by the real binary: each line that repeats no other is a row, importing again adds
//! nothing, and what `search` and `sql` count is what an independent Python script counts over the raw files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{finish, root, stakeout};

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
