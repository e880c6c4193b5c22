//! Rows that expire are remembered: what rules find after a restart over a store without them is what they would have
//! found with them.

use std::path::Path;

use super::*;

const JOINED: &str = "SELECT e.actor_user_name, s.thing FROM cloudtrail e JOIN things s ON s.owner = e.actor_user_name \
    AND e.time >= s.valid_from AND e.time < s.valid_to";
const NEW: &str = "SELECT actor_user_name FROM cloudtrail WHERE first_seen(INTERVAL '90 days', actor_user_name)";

const DAY: i64 = 24 * H;

fn event(table: &'static str, time: Micros, who: &str, more: &[(&str, &str)]) -> Row {
    let mut cells = vec![("actor_user_name", Cell::from(who)), ("source_watermark", (time - H).into())];
    cells.extend(more.iter().map(|(name, value)| (*name, Cell::from(*value))));
    row(table, time, &format!("{who} at {}", (time - START) / H), &cells)
}

fn owns(time: Micros, who: &str, thing: &str) -> Row {
    event("kubernetes", time, who, &[("verb", "create"), ("resource_name", thing)])
}

fn acts(time: Micros, who: &str) -> Row {
    event("cloudtrail", time, who, &[])
}

fn all(time: Micros) -> Watermarks {
    let mut marks = Watermarks::default();
    Source::ALL.into_iter().for_each(|source| marks.advance(source, time));
    marks
}

async fn two(things: &str, new: &str) -> RuleSet {
    let states = [("state/things.sql".into(), things.to_owned())];
    let files = [
        ("d/joined.sql".into(), rule_text("actor_user_name", "", JOINED)),
        ("d/new.sql".into(), rule_text("actor_user_name", "learning: 7d", new)),
    ];
    with_states(&states, &files, "").await.unwrap_or_else(|e| panic!("{e}"))
}

/// What a process that starts over `store` finds in `rows`: rule, who, and whether it is still learning.
async fn found(rules: &RuleSet, store: &Store, rows: &[Row]) -> Vec<(String, String, bool)> {
    let start = START + 60 * DAY;
    let mut engine = Engine::new(rules.clone(), Frontier::default(), &all(start));
    engine.rebuild(Vec::new(), store).await.expect("the store answers");
    let mut found = engine.on_admitted(&admitted(rows)).await.expect("evaluates").findings;
    let after = store.with(rows);
    let marks = all(start + 10 * DAY);
    found.extend(engine.on_commit(&marks, &stored_up_to(rows), &after).await.expect("the store answers").findings);
    let settled = found.iter().filter(|f| f.standing == Standing::Confirmed);
    let mut told: Vec<_> =
        settled.map(|f| (f.rule.clone(), crate::value::plain(&f.values["actor_user_name"]), f.learning)).collect();
    told.sort();
    told
}

async fn fold(retained: &Retained, rules: &RuleSet, rows: &[Row]) -> crate::Folded {
    let tables = rows.iter().map(|row| row.table.to_owned()).collect();
    let going = Going { rows: &Store::of(rows), tables, stays: &|_| Micros::MAX };
    retained.fold(rules, &all(START + 60 * DAY), &going).await.expect("it reads what goes")
}

fn told(expected: &[(&str, &str, bool)]) -> Vec<(String, String, bool)> {
    expected.iter().map(|(rule, who, learning)| ((*rule).to_owned(), (*who).to_owned(), *learning)).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_expires_is_remembered() {
    let rules = two(THINGS, NEW).await;
    let dir = tempfile::tempdir().expect("a folder");
    let old = [owns(START, "alice", "a role"), acts(START + H, "alice"), acts(START + 2 * H, "bob")];
    let now = [acts(START + 61 * DAY, "alice"), acts(START + 61 * DAY, "bob"), acts(START + 61 * DAY, "carol")];
    let with_all = found(&rules, &Store::of(&old), &now).await;
    assert_eq!(with_all, told(&[("joined", "alice", false), ("new", "carol", false)]));
    // Retention without a memory: a role that nobody has, everyone is new, and learning begins anew.
    let nothing = Store::default();
    let forgot = found(&rules, &nothing, &now).await;
    assert_eq!(forgot, told(&[("new", "alice", true), ("new", "bob", true), ("new", "carol", true)]));

    let retained = Arc::new(Retained::new(dir.path().join("retained")));
    // In two parts, the second twice.
    for part in [&old[..2], &old[2..], &old[2..]] {
        let folded = fold(&retained, &rules, part).await;
        assert_eq!(folded.failed, []);
    }
    let mut emptied = Store::default();
    emptied.retained = Some(retained.clone());
    assert_eq!(found(&rules, &emptied, &now).await, with_all);

    // What is written around a SELECT does not matter.
    let commented = two(&THINGS.replace("what each owner has", "who has what"), &format!("-- a comment\n{NEW}")).await;
    assert_ne!(commented.states[0].version, rules.states[0].version);
    assert_eq!(found(&commented, &emptied, &now).await, with_all);
    // Another SELECT knows nothing, and the first one still all.
    let other =
        two(&THINGS.replace("'create', 'delete'", "'create', 'patch'"), &NEW.replace("90 days", "80 days")).await;
    assert_eq!(found(&other, &emptied, &now).await, forgot);
    fold(&retained, &other, &[]).await;
    assert_eq!(found(&rules, &emptied, &now).await, with_all);

    for _ in 0..2 {
        retained.clear().expect("it can be removed, also when it is gone");
    }
    assert_eq!(found(&rules, &emptied, &now).await, forgot);
}

/// A damaged file costs what it held, says so, and nothing else.
#[tokio::test]
async fn a_damaged_file_is_set_aside() {
    let rules = two(THINGS, NEW).await;
    let dir = tempfile::tempdir().expect("a folder");
    let retained = Arc::new(Retained::new(dir.path().to_owned()));
    let old = [owns(START, "alice", "a role"), acts(START + H, "alice")];
    fold(&retained, &rules, &old).await;
    let files = names(dir.path());
    assert_eq!(files.len(), 2, "{files:?}");
    let mut store = Store::default();
    store.retained = Some(retained.clone());
    let now = [acts(START + 61 * DAY, "alice")];
    assert_eq!(found(&rules, &store, &now).await, told(&[("joined", "alice", false)]));
    for file in &files {
        let bytes = std::fs::read(dir.path().join(file)).unwrap();
        std::fs::write(dir.path().join(file), &bytes[..bytes.len() / 2]).unwrap();
    }
    assert_eq!(found(&rules, &store, &now).await, told(&[("new", "alice", true)]));
    let aside = names(dir.path());
    assert!(
        aside.len() == 2 && aside.iter().zip(&files).all(|(now, file)| now.starts_with(&format!("{file}.damaged-")))
    );
    // What expires from now on is remembered again.
    fold(&retained, &rules, &old).await;
    assert_eq!(found(&rules, &store, &now).await, told(&[("joined", "alice", false)]));
}

/// Versions that nobody can ask for any more go, and so do keys that were not there for longer than a rule looks back.
#[tokio::test]
async fn what_remains_does_not_grow_with_what_goes() {
    let rules = two(THINGS, NEW).await;
    let dir = tempfile::tempdir().expect("a folder");
    let retained = Retained::new(dir.path().to_owned());
    let versions: Vec<Row> = (0..200).map(|n| owns(START + n * H, "alice", &format!("thing {n}"))).collect();
    let folded = fold(&retained, &rules, &versions).await;
    assert!(folded.rows < 10, "{folded:?}");
    let long_ago: Vec<Row> = (0..40).map(|n| acts(START - 20 * DAY, &format!("user {n}"))).collect();
    let kept = fold(&retained, &rules, &long_ago).await;
    assert!(kept.rows >= 40, "{kept:?}");
    let longer_ago: Vec<Row> = (0..50).map(|n| acts(START - 100 * DAY, &format!("other {n}"))).collect();
    assert_eq!(fold(&retained, &rules, &longer_ago).await.rows, kept.rows);
}

/// The end of a key that a kept state table has forgotten must not be forgotten with what expires before it.
#[tokio::test]
async fn what_has_ended_does_not_come_back() {
    let rules = two(THINGS, NEW).await;
    let dir = tempfile::tempdir().expect("a folder");
    let retained = Arc::new(Retained::new(dir.path().join("retained")));
    let derived = Arc::new(Derived::new(dir.path().join("derived"), "1".into()));
    let mut rows =
        [owns(START, "alice", "a role"), owns(START + H, "alice", "a role"), owns(START + 2 * H, "bob", "x")];
    rows[1].cells.insert("verb".into(), "delete".into());
    for (n, row) in rows.iter_mut().enumerate() {
        row.cells.insert("offset".into(), (n as i64).into());
    }
    let (committed, marks) = (stored_up_to(&rows), all(START + 60 * DAY));
    derived.refresh(&rules, (&marks, &committed), &Store::of(&rows)).await.expect("the store answers");
    // The first row goes, the end of what it began stays.
    let going = Going { rows: &Store::of(&rows[..1]), tables: ["kubernetes".to_owned()].into(), stays: &|_| START + H };
    assert_eq!(retained.fold(&rules, &marks, &going).await.expect("it reads what goes").failed, []);
    let owners = async |rest: &[Row], kept: bool| {
        let mut store = Store::of(rest);
        store.retained = Some(retained.clone());
        let mut engine = Engine::new(rules.clone(), Frontier::default(), &marks);
        if kept {
            engine = engine.derived_in(derived.clone());
        }
        engine.stored_up_to(committed.clone());
        engine.rebuild(Vec::new(), &store).await.expect("the store answers");
        let at = START + 59 * DAY;
        let shown = engine.state_at("things", Origin::Live, at, at - H, &store).await.expect("answers");
        let owners = arrow::array::AsArray::as_string_view(shown.column_by_name("owner").expect("its key"));
        let mut owners: Vec<String> = owners.iter().flatten().map(str::to_owned).collect();
        owners.sort();
        owners
    };
    assert_eq!(owners(&rows[1..], false).await, ["bob"], "from the store");
    assert_eq!(owners(&rows[1..], true).await, ["bob"], "beside what was kept");
    let kept = std::fs::read(dir.path().join("derived/things.versions")).expect("it was kept");
    fault::inject(Some(Fault::EndForgotten));
    assert_eq!(owners(&rows[1..], true).await, ["alice", "bob"], "this test would see it");
    fault::inject(None);
    std::fs::write(dir.path().join("derived/things.versions"), kept).expect("a file");
    // The end goes while what it ended is held.
    for (fault, expected) in [(None, &["bob"][..]), (Some(Fault::EndForgotten), &["alice", "bob"])] {
        retained.clear().expect("it can be removed");
        let going =
            Going { rows: &Store::of(&rows[1..2]), tables: ["kubernetes".to_owned()].into(), stays: &|_| START };
        fault::inject(fault);
        assert_eq!(retained.fold(&rules, &marks, &going).await.expect("it reads what goes").failed, []);
        fault::inject(None);
        assert_eq!(owners(&[rows[0].clone(), rows[2].clone()], false).await, expected, "{fault:?}");
    }
}
