//! `stakeout bench`, as small as it gets: every figure is there, the file says what it was measured on, and two files can
//! be compared. No figure is judged here.

use std::path::Path;

use serde_json::Value;

use crate::process::{finish, root, stakeout};

#[test]
fn a_small_run_writes_all_figures_and_compares_with_itself_and_with_a_worse_one() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.json"), dir.path().join("b.json"));
    let table = finish(stakeout().args(["bench", "--quick", "--events", "2000", "--json"]).arg(&a), &[0]);
    println!("{table}");
    let report: Value = serde_json::from_slice(&std::fs::read(&a).unwrap()).unwrap();
    for key in ["date", "commit", "profile", "version"] {
        assert!(report[key].is_string(), "{key}: {}", report[key]);
    }
    assert_eq!((&report["events"], &report["seed"], &report["quick"]), (&2000.into(), &1.into(), &true.into()));
    assert!(report["machine"]["cores"].as_u64() > Some(0) && report["machine"]["memory_mib"].as_u64() > Some(0));

    let figures = report["figures"].as_array().unwrap();
    for name in names_in_goals() {
        let Some(figure) = figures.iter().find(|f| f["name"] == name.as_str()) else {
            assert!(name == "normalize-real" && crate::real_events().is_none(), "{name} is missing");
            continue;
        };
        assert!(figure["value"].as_f64() > Some(0.0), "{figure}");
        assert_eq!(figure["ratio"].is_null(), figure["floor"].is_null(), "{figure}");
        assert_eq!(figure["reached"].is_null(), figure["goal"].is_null(), "{figure}");
        assert!(table.contains(figure["what"].as_str().unwrap()), "{name} is not in\n{table}");
    }

    // Against itself nothing has changed.
    let same = finish(stakeout().args(["bench", "--compare"]).args([&a, &a]), &[0]);
    assert!(same.contains("0 of ") && !same.contains(" worse\n") && !same.contains(" better\n"), "{same}");

    // Twice as much on disk is worse one way round, and better the other.
    let mut other = report.clone();
    let disk = other["figures"].as_array_mut().unwrap().iter_mut().find(|f| f["name"] == "disk-sealed").unwrap();
    disk["value"] = (disk["value"].as_f64().unwrap() * 2.0).into();
    std::fs::write(&b, other.to_string()).unwrap();
    let compare = |a: &Path, b: &Path, code: i32, more: &[&str]| {
        finish(stakeout().args(["bench", "--compare"]).args([a, b]).args(more), &[code])
    };
    let worse = compare(&a, &b, 1, &[]);
    assert!(line_of(&worse, "on disk").ends_with("worse") && worse.contains("1 of "), "{worse}");
    let better = compare(&b, &a, 0, &[]);
    assert!(line_of(&better, "on disk").ends_with("better"), "{better}");
    compare(&a, &b, 0, &["--threshold", "60"]);
}

#[test]
fn what_is_no_report_is_named_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("no-report.json");
    std::fs::write(&file, "{\"figures\": 1}").unwrap();
    let output = stakeout().args(["bench", "--compare"]).args([&file, &file]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("no-report.json") && said.contains("hint: "), "{said}");
}

fn names_in_goals() -> Vec<String> {
    let goals = std::fs::read_to_string(root().join("benches/goals.yaml")).unwrap();
    let name = |line: &str| Some(line.strip_prefix("- {name: ")?.split_once(',')?.0.to_owned());
    let names: Vec<String> = goals.lines().filter_map(name).collect();
    assert!(names.len() > 30, "{names:?}");
    names
}

fn line_of<'a>(text: &'a str, what: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(what)).unwrap_or_else(|| panic!("no line of {what} in\n{text}"))
}
