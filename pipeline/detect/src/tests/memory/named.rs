//! What rules that remember say in named situations, what is kept of them, and how they are refused.

use arrow::array::AsArray;

use super::*;

/// What is told of one row after the other, each in a unit of its own: standing and uid.
async fn told(sql: &str, header: &str, rows: &[Row], marks: &[i64]) -> Vec<(Standing, String)> {
    let states = [("state/things.sql".into(), THINGS.to_owned())];
    let files = [("d/rule.sql".into(), rule_text("actor_user_name", header, sql))];
    let rules = with_states(&states, &files, "").await.unwrap_or_else(|e| panic!("{e}"));
    let mut engine = Engine::new(rules, Frontier::default(), &Watermarks::default());
    let mut store = Store::default();
    engine.rebuild(Vec::new(), &store).await.expect("the store answers");
    let mut findings = Vec::new();
    for row in rows {
        findings.extend(engine.on_admitted(&admitted(std::slice::from_ref(row))).await.expect("evaluates").findings);
        store.add(std::slice::from_ref(row));
    }
    for mark in marks {
        let committed = Watermarks(Source::ALL.map(|s| (s, *mark)).into());
        let mut pending = true;
        while pending {
            let output = engine.on_commit(&committed, &Offsets::default(), &store).await.expect("the store answers");
            pending = output.pending;
            findings.extend(output.findings);
        }
    }
    findings.into_iter().map(|f| (f.standing, f.evidence.events[0].event_uid.clone())).collect()
}

fn user(time: i64, uid: &str, who: &str, stamp: i64) -> Row {
    let cells =
        [("actor_user_name", who.into()), ("status", "Success".into()), ("source_watermark", (START + stamp).into())];
    row("kubernetes", START + time, uid, &cells)
}

#[tokio::test]
async fn findings_are_provisional_until_the_watermarks_have_passed() {
    use Standing::{Confirmed, Provisional, Retracted};
    let check = async |rows: &[Row], marks: &[i64], expected: &[(Standing, &str)]| {
        let marks: Vec<i64> = marks.iter().map(|m| START + m).collect();
        let sql = "SELECT actor_user_name FROM kubernetes WHERE first_seen(INTERVAL '6 hours', actor_user_name)";
        let got = told(sql, "", rows, &marks).await;
        let got: Vec<(Standing, &str)> = got.iter().map(|(s, u)| (*s, u.as_str())).collect();
        assert_eq!(got, expected);
    };
    let (a, b) = (user(10 * H, "a", "x", 9 * H), user(16 * H, "b", "x", 9 * H));
    check(std::slice::from_ref(&a), &[10 * H], &[(Provisional, "a")]).await;
    check(std::slice::from_ref(&a), &[10 * H + 1], &[(Provisional, "a"), (Confirmed, "a")]).await;
    // Exactly six hours are within the interval, a microsecond more is not.
    check(&[a.clone(), b], &[17 * H], &[(Provisional, "a"), (Confirmed, "a")]).await;
    let after = user(16 * H + 1, "b", "x", 9 * H);
    check(
        &[a.clone(), after],
        &[17 * H],
        &[(Provisional, "a"), (Provisional, "b"), (Confirmed, "a"), (Confirmed, "b")],
    )
    .await;
    // A late row before it takes it back, if it came before the boundary of the row.
    let late = user(8 * H, "late", "x", 10 * H);
    check(
        &[a.clone(), late],
        &[20 * H],
        &[(Provisional, "a"), (Provisional, "late"), (Retracted, "a"), (Confirmed, "late")],
    )
    .await;
    let too_late = user(8 * H, "late", "x", 10 * H + 1);
    check(
        &[a.clone(), too_late],
        &[20 * H],
        &[(Provisional, "a"), (Provisional, "late"), (Confirmed, "a"), (Confirmed, "late")],
    )
    .await;
    // Of two at one instant the smaller uid is first; a row that is nobody's is never new.
    let tie = user(10 * H, "0", "x", 9 * H);
    check(&[a.clone(), tie], &[20 * H], &[(Provisional, "a"), (Provisional, "0"), (Retracted, "a"), (Confirmed, "0")])
        .await;
    let mut nobody = user(10 * H, "n", "x", 9 * H);
    nobody.cells.remove("actor_user_name");
    check(&[nobody], &[20 * H], &[]).await;
}

#[tokio::test]
async fn a_version_that_comes_later_can_make_a_row_fire() {
    use Standing::{Confirmed, Provisional};
    let sql = "SELECT e.actor_user_name, s.thing FROM cloudtrail e JOIN things s ON s.owner = e.actor_user_name \
               AND e.time >= s.valid_from AND e.time < s.valid_to";
    let cells = |stamp: i64| vec![("actor_user_name", Cell::from("x")), ("source_watermark", (START + stamp).into())];
    let event = row("cloudtrail", START + 10 * H, "e", &cells(9 * H));
    let mut version = cells(9 * H);
    version.extend([("verb", "create".into()), ("resource_name", "a".into())]);
    let version = row("kubernetes", START + 9 * H, "v", &version);
    let got = told(sql, "", &[event.clone(), version.clone()], &[START + 20 * H]).await;
    assert_eq!(got, [(Confirmed, "e".to_owned())]);
    let got = told(sql, "", &[version, event], &[START + 20 * H]).await;
    assert_eq!(got, [(Provisional, "e".to_owned()), (Confirmed, "e".to_owned())]);
}

#[tokio::test]
async fn a_finding_with_a_state_table_rests_on_both_events() {
    let sql = "SELECT e.actor_user_name, s.thing FROM cloudtrail e JOIN things s ON s.owner = e.actor_user_name \
               AND e.time >= s.valid_from AND e.time < s.valid_to";
    let states = [("state/things.sql".into(), THINGS.to_owned())];
    let files = [("d/rule.sql".into(), rule_text("actor_user_name", "", sql))];
    let rules = with_states(&states, &files, "").await.expect("a good rule");
    assert_eq!(rules.rules[0].tables, ["cloudtrail", "kubernetes"]);
    let who = ("actor_user_name", Cell::from("x"));
    let version =
        row("kubernetes", START, "it's", &[who.clone(), ("verb", "create".into()), ("resource_name", "a".into())]);
    let event = row("cloudtrail", START + H, "e", &[who]);
    let store = Store::of(&[version.clone(), event.clone()]);
    let mut engine = Engine::new(rules, Frontier::default(), &Watermarks::default());
    engine.on_admitted(&admitted(&[version, event])).await.expect("evaluates");
    let found = engine.finish_bounded(Origin::Live, None, &store).await.expect("the store answers").findings;
    assert_eq!(found.len(), 1);
    let evidence = &found[0].evidence;
    let uids: Vec<_> = evidence.events.iter().map(|e| e.event_uid.as_str()).collect();
    assert_eq!((uids.as_slice(), evidence.count), (["e", "it's"].as_slice(), 2));
    let mut hunted = crate::tests::single::hunt(&store, &evidence.query).await;
    hunted.sort();
    assert_eq!(hunted, ["e", "it's"]);
    assert_eq!(found[0].tables, ["cloudtrail"]);
}

/// A value that cannot be computed is left out, and hides nobody: when it is read back, and when it is judged.
#[tokio::test]
async fn odd_values_do_not_hide_their_neighbours() {
    let new = "SELECT actor_user_name FROM events WHERE CAST(actor_user_name AS INT) > 0 \
               AND first_seen(INTERVAL '6 hours', actor_user_name)";
    let joined = "SELECT e.actor_user_name FROM cloudtrail e JOIN things s ON s.owner = e.actor_user_name \
                  AND e.time >= s.valid_from AND e.time < s.valid_to WHERE CAST(s.thing AS INT) > 0";
    let states = [("state/things.sql".into(), THINGS.to_owned())];
    let files = [
        ("d/joined.sql".into(), rule_text("actor_user_name", "", joined)),
        ("d/new.sql".into(), rule_text("actor_user_name", "", new)),
    ];
    let rules = with_states(&states, &files, "").await.unwrap_or_else(|e| panic!("{e}"));
    let call = |table, time: i64, uid: &str, who: &str, thing: &str| {
        let cells = [("actor_user_name", Cell::from(who)), ("resource_name", thing.into()), ("verb", "create".into())];
        row(table, START + time * H, uid, if table == "kubernetes" { &cells } else { &cells[..1] })
    };
    let stored: Vec<Row> = [("1", "7"), ("2", "odd"), ("x", "8"), ("3", "9")]
        .iter()
        .enumerate()
        .map(|(n, (who, thing))| call("kubernetes", n as i64, who, who, thing))
        .collect();
    let store = Store::of(&stored);
    let committed = Watermarks(Source::ALL.map(|s| (s, START + 4 * H)).into());
    let mut engine = Engine::new(rules, Frontier::default(), &committed);
    engine.rebuild(Vec::new(), &store).await.expect("the store answers");
    let rows: Vec<Row> = ["2", "y", "4", "3", "1"]
        .iter()
        .enumerate()
        .map(|(n, who)| call("cloudtrail", 5, &format!("now{n}"), who, ""))
        .collect();
    let told = engine.on_admitted(&admitted(&rows)).await.expect("evaluates").findings;
    let mut told: Vec<_> = told.iter().map(|f| (f.rule.as_str(), f.entity[0].1.as_str())).collect();
    told.sort_unstable();
    assert_eq!(told, [("joined", "1"), ("joined", "3"), ("new", "4")]);
    let last = engine.finish_bounded(Origin::Live, None, &Store::of(&[stored, rows].concat())).await.expect("answers");
    let mut last: Vec<_> = last.findings.iter().map(|f| (f.rule.as_str(), f.entity[0].1.as_str())).collect();
    last.sort_unstable();
    assert_eq!(last, told);
}

/// Beyond its budget a rule or state table stops, with those that need it, and nobody else.
#[tokio::test]
async fn a_rule_that_needs_too_much_memory_stops_alone() {
    let rules = rules().await;
    let user = |n: i64, table: &'static str, verb: &str| {
        let cells = [
            ("actor_user_name", format!("user{n}").into()),
            ("verb", verb.into()),
            ("resource_name", "a thing of some length that is remembered".into()),
            ("offset", n.into()),
            ("source_watermark", (START - H).into()),
        ];
        row(table, START + n, &format!("u{n}"), &cells)
    };
    // Calls of many users are too many keys for `new_without_thing` and `new_anywhere`, but no versions.
    let check = async |rows: Vec<Row>, expected: &[&str], running: &[&str]| {
        let mut engine = Engine::new(rules.clone(), Frontier::default(), &Watermarks::default());
        engine.rebuild(Vec::new(), &Store::default()).await.expect("the store answers");
        for unit in rows.chunks(1_000) {
            engine.on_admitted(&admitted(unit)).await.expect("evaluates");
        }
        let after = user(1_000_000, "cloudtrail", "get");
        let mut odd = user(1_000_001, "kubernetes", "get");
        odd.cells.insert("status".into(), "Success".into());
        let mut told: Vec<String> = engine
            .on_admitted(&admitted(&[after, odd]))
            .await
            .expect("evaluates")
            .findings
            .into_iter()
            .map(|f| f.rule)
            .collect();
        told.sort();
        told.dedup();
        assert_eq!(told, expected);
        let (bytes, _) = engine.remembered();
        assert!(bytes < 3 << 20, "{bytes} bytes");
        // A restart meets the same, and what is stopped does not move its boundary.
        let store = Store::of(&rows);
        let mut again = Engine::new(rules.clone(), Frontier::default(), &Watermarks::default());
        again.rebuild(Vec::new(), &store).await.expect("the store answers");
        let committed = Watermarks(Source::ALL.map(|s| (s, START - 2 * H)).into());
        let frontier = again
            .on_commit(&committed, &Offsets::default(), &store)
            .await
            .expect("the store answers")
            .frontier
            .boundaries;
        for (rule, boundary) in frontier {
            assert_eq!(boundary != Micros::MIN, running.contains(&rule.as_str()), "{rule}");
        }
        // So do new rules.
        engine.replace_rules(rules.clone(), Vec::new(), &store).await.expect("the store answers");
        let output = engine.on_commit(&committed, &Offsets::default(), &store).await.expect("the store answers");
        for (rule, boundary) in output.frontier.boundaries {
            assert_eq!(boundary != Micros::MIN, running.contains(&rule.as_str()), "{rule} after new rules");
        }
    };
    let told = ["new_anywhere", "new_user", "new_without_thing"];
    let all = RULES.map(|(id, _, _)| id);
    check(Vec::new(), &told, &all).await;
    let calls = (0..6_000).map(|n| user(n, "cloudtrail", "get")).collect();
    check(calls, &["new_user"], &["new_user", "other_thing", "changed"]).await;
    // Many versions are too much for the state table, and so for all that join it.
    let versions = (0..12_000).map(|n| user(n, "kubernetes", "create")).collect();
    check(versions, &["new_user"], &["new_user"]).await;
}

/// The versions that a boundary sees: from memory, from SQL over the stored rows, and by plain loops.
#[tokio::test]
async fn a_state_table_at_a_boundary_is_its_view() {
    let rules = rules().await;
    let view = rules.states[0].clone();
    for seed in 0..12 {
        let mut random = Random(seed * 7_919 + 3);
        let mut rows = random_rows(&mut random);
        let mut door = Door { marks: Watermarks::default(), lateness: random.pick(&[0, 5 * H]) };
        door.stamp(&mut rows);
        let store = Store::of(&rows);
        let mut engine = Engine::new(rules.clone(), Frontier::default(), &Watermarks::default());
        engine.on_admitted(&admitted(&rows)).await.expect("evaluates");
        engine.on_commit(&door.marks, &Offsets::default(), &store).await.expect("the store answers");
        let mut bare = Engine::new(rules.clone(), Frontier::default(), &Watermarks::default());
        bare.rebuild(Vec::new(), &Store::default()).await.expect("the store answers");
        for _ in 0..6 {
            let boundary = START + random.below(450) as i64 * H;
            let since = boundary - random.pick(&[0, 20 * H, 500 * H]);
            let shown = async |origin: Origin, engine: &Engine| {
                let table = engine.state_at("things", origin, boundary, since, &store).await.expect("answers");
                let mut rows: Vec<String> = (0..table.num_rows())
                    .map(|row| serde_json::Value::from(crate::value::row(&table, row)).to_string())
                    .collect();
                rows.sort();
                rows
            };
            let plain: Vec<Plain> = rows.iter().map(Plain::of).collect();
            for origin in [Origin::Live, Origin::Import] {
                let ctx = query::fork(&rules.base);
                query::register_tables(&ctx, &rules.schemas, &|name| crate::History::table(&store, name))
                    .expect("tables");
                let stored =
                    crate::memory::versions_stored(&view, origin, boundary, since, &ctx).await.expect("answers");
                assert_eq!(stored.schema(), view.schema);
                let mut from_sql: Vec<String> = (0..stored.num_rows())
                    .map(|row| serde_json::Value::from(crate::value::row(&stored, row)).to_string())
                    .collect();
                from_sql.sort();
                assert_eq!(shown(origin, &engine).await, from_sql, "seed {seed} {origin:?}");
                assert_eq!(from_sql, naive_versions(&plain, origin, boundary, since), "seed {seed} {origin:?}");
            }
        }
    }
}

/// Shown by what a start knows although the store no longer has it.
#[tokio::test]
async fn a_start_takes_what_was_kept_and_reads_what_came_since() {
    let rules = rules().await;
    let thing = |offset: i64, owner: &str| {
        let mut row = user(offset, &format!("u{offset}"), owner, offset - 1);
        row.cells.insert("verb".into(), "create".into());
        row.cells.insert("offset".into(), offset.into());
        row
    };
    let all: Vec<Row> = ["ada", "ben", "cleo", "dan"].into_iter().zip(10..).map(|(who, n)| thing(n, who)).collect();
    let (before, after) = all.split_at(2);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("derived/things.versions");
    let kept = |build: &str| Arc::new(Derived::new(dir.path().join("derived"), build.into()));
    let mut marks = Watermarks::default();
    Source::ALL.into_iter().for_each(|source| marks.advance(source, START + 100));
    let owners = async |rules: &RuleSet, build: &str, committed: Offsets| {
        let store = Store::of(after);
        let mut engine = Engine::new(rules.clone(), Frontier::default(), &marks).derived_in(kept(build));
        engine.stored_up_to(committed);
        engine.rebuild(Vec::new(), &store).await.expect("the store answers");
        let shown = engine.state_at("things", Origin::Live, START + 50, START, &store).await.expect("answers");
        let owners = shown.column_by_name("owner").expect("its key").as_string_view();
        owners.iter().flatten().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let (everyone, the_new) = (["ada", "ben", "cleo", "dan"].map(String::from), ["cleo", "dan"].map(String::from));
    let refresh = async || {
        let refreshed = kept("1").refresh(&rules, (&marks, &stored_up_to(before)), &Store::of(before)).await;
        refreshed.expect("the store answers")
    };
    std::fs::create_dir(dir.path().join("derived")).expect("a folder");
    let (gone, note) = (dir.path().join("derived/gone.versions"), dir.path().join("derived/note"));
    [&gone, &note].into_iter().for_each(|path| std::fs::write(path, b"x").expect("a file"));
    assert_eq!((refresh().await, refresh().await), (1, 0), "the second time nothing has come");
    assert!(!gone.exists() && note.exists(), "what was kept of a table that is no more goes");
    let first = std::fs::read(&path).expect("it was kept");
    let again = || std::fs::write(&path, &first).expect("a file");

    assert_eq!(owners(&rules, "1", stored_up_to(&all)).await, everyone.clone().into());
    let now = std::fs::read(&path).expect("it was kept");
    assert!(now.len() > first.len(), "what a start had to read is kept too");
    again();
    assert_eq!(owners(&rules, "1", Offsets::default()).await, the_new.clone().into(), "a store that is further back");
    again();
    assert_eq!(owners(&rules, "2", stored_up_to(&all)).await, the_new.clone().into(), "another build");
    again();
    let states = [("state/things.sql".into(), THINGS.replace("'delete' AS", "'deletecollection' AS"))];
    let files = [("d/rule.sql".into(), rule_text("actor_user_name, thing", "", OTHER_THING))];
    let other = with_states(&states, &files, "fixtures").await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        owners(&other, "1", stored_up_to(&all)).await,
        the_new.clone().into(),
        "another state table of this name"
    );
    for damage in [first[..first.len() - 1].to_vec(), [&first[..], b"x"].concat(), b"{}\n".to_vec(), Vec::new()] {
        std::fs::write(&path, damage).expect("a file");
        assert_eq!(owners(&rules, "1", stored_up_to(&all)).await, the_new.clone().into(), "a damaged file");
    }
}

/// It was not read to its end, and looks small again once what is old has gone.
#[tokio::test]
async fn a_state_table_that_is_too_much_is_not_kept() {
    let rules = rules().await;
    let call = |n: i64, verb: &str| {
        let mut row = user(n, &format!("u{n}{verb}"), &format!("user{n}"), n);
        row.cells.insert("verb".into(), verb.into());
        row
    };
    let dir = tempfile::tempdir().expect("a folder");
    let derived = Derived::new(dir.path().to_owned(), "a build".into());
    let mut marks = Watermarks::default();
    Source::ALL.into_iter().for_each(|source| marks.advance(source, START + 10 * FORGET));
    for (users, kept) in [(100, true), (12_000, false)] {
        let rows: Vec<Row> = (0..users).flat_map(|n| ["create", "delete"].map(|verb| call(n, verb))).collect();
        let path = dir.path().join("things.versions");
        drop(std::fs::remove_file(&path));
        let offsets = stored_up_to(&rows);
        derived.refresh(&rules, (&marks, &offsets), &Store::of(&rows)).await.expect("the store answers");
        assert_eq!(path.exists(), kept, "{users} users");
    }
}

fn naive_versions(rows: &[Plain], origin: Origin, boundary: Micros, since: Micros) -> Vec<String> {
    let mut by_owner: BTreeMap<&str, Vec<&Plain>> = BTreeMap::new();
    for row in rows {
        let is_version = row.table == "kubernetes" && ["create", "delete"].contains(&row.get("verb").unwrap_or(""));
        if is_version && row.origin == origin && row.time < boundary && row.stamp < boundary {
            row.get("actor_user_name").into_iter().for_each(|owner| by_owner.entry(owner).or_default().push(row));
        }
    }
    let mut shown = Vec::new();
    for (owner, mut versions) in by_owner {
        versions.sort_by_key(|s| (s.time, s.uid.clone(), s.hash.clone()));
        for (at, version) in versions.iter().enumerate().filter(|(_, v)| v.get("verb") == Some("create")) {
            let to = versions.get(at + 1).map(|next| next.time);
            let before = (0..at).rev().find(|at| versions[*at].get("verb") == Some("create"));
            let before = before.filter(|b| version.time - versions[b + 1].time <= FORGET);
            if to.is_none_or(|to| to > since) {
                let text = serde_json::json!({
                    "owner": owner,
                    "thing": version.get("resource_name"),
                    "valid_from": event::format_micros(version.time),
                    "valid_to": to.map(event::format_micros),
                    "event_uid": version.uid,
                    "prev_thing": before.and_then(|at| versions[at].get("resource_name")),
                });
                shown.push(text.to_string());
            }
        }
    }
    shown.sort();
    shown
}

/// Keys that functions compute are text as columns are.
#[tokio::test]
async fn joins_are_on_what_is_computed_too() {
    let state = "/*\ntitle: T\nkey: [what, n]\n*/\nSELECT raw->>'a' AS what, response_code AS n, lower(verb) AS how FROM kubernetes";
    let sql = "SELECT e.cluster, s.how, s.prev_how FROM kubernetes e JOIN odd s ON s.what = e.raw->>'a' AND s.n = e.response_code \
               AND e.time >= s.valid_from AND e.time < s.valid_to WHERE s.how <> s.prev_how";
    let states = [("state/odd.sql".into(), state.to_owned())];
    let parse = async |sql: &str| {
        let files = [("d/rule.sql".into(), rule_text("cluster", "", sql))];
        with_states(&states, &files, "").await
    };
    let rules = parse(sql).await.unwrap_or_else(|e| panic!("{e}"));
    parse(&sql.replace("e.raw->>'a'", "e.actor_user_name")).await.unwrap_or_else(|e| panic!("{e}"));
    // A number equals text only as a number: the key itself would have to be computed.
    let wrong = parse(&sql.replace("e.raw->>'a'", "e.response_code")).await.err().expect("refused").to_string();
    assert!(wrong.contains("`what`") && wrong.contains("of the same type"), "{wrong}");
    let call = |time: i64, uid: &str, verb: &str, a: &str| {
        let cells =
            [("verb", Cell::from(verb)), ("response_code", 1.into()), ("raw", format!("{{\"a\":\"{a}\"}}").into())];
        row("kubernetes", START + time * H, uid, &cells)
    };
    let rows =
        [call(0, "a", "Get", "x"), call(1, "b", "GET", "x"), call(2, "c", "list", "y"), call(3, "d", "List", "x")];
    let mut engine = Engine::new(rules, Frontier::default(), &Watermarks::default());
    engine.on_admitted(&admitted(&rows)).await.expect("evaluates");
    let found = engine.finish_bounded(Origin::Live, None, &Store::of(&rows)).await.expect("the store answers").findings;
    let uids: Vec<_> =
        found.iter().map(|f| (f.evidence.events[0].event_uid.as_str(), f.values["prev_how"].as_str())).collect();
    assert_eq!(uids, [("d", Some("get"))]);
}

async fn refused(state: Option<&str>, rule: &str, expected: &[&str]) {
    let states: Vec<(PathBuf, String)> = [("state/things.sql", THINGS)]
        .into_iter()
        .chain(state.map(|text| ("state/odd.sql", text)))
        .map(|(path, text)| (path.into(), text.to_owned()))
        .collect();
    let files = [("d/rule.sql".into(), rule.to_owned())];
    let errors = with_states(&states, &files, "").await.err();
    let shown = errors.unwrap_or_else(|| panic!("was not refused: {state:?} {rule}")).to_string();
    for part in expected {
        assert!(shown.contains(part), "expected `{part}` in:\n{shown}");
    }
}

#[tokio::test]
async fn rules_that_remember_are_refused_with_a_reason() {
    let check = async |sql: &str, expected: &[&str]| refused(None, &rule_text("cluster", "", sql), expected).await;
    let join = "SELECT e.cluster FROM cloudtrail e JOIN things s ON";
    check(&format!("{join} s.owner = e.actor_user_name"), &["does not say when", "things.valid_from"]).await;
    check(
        &format!("{join} e.time >= s.valid_from AND e.time < s.valid_to"),
        &["its key column `owner`", "its key is owner"],
    )
    .await;
    check(
        &format!("{join} s.owner = e.actor_user_name AND e.ingest_time >= s.valid_from AND e.time < s.valid_to"),
        &["does not say when"],
    )
    .await;
    check(&format!("{join} s.ownr = e.actor_user_name"), &["d/rule.sql:8: unknown column `ownr`"]).await;
    check(
        "SELECT e.cluster FROM cloudtrail e JOIN falco f ON e.cluster = f.cluster",
        &["it joins tables", "give it a `window`"],
    )
    .await;
    check(
        "SELECT cluster FROM falco WHERE rule = 'a' OR first_seen(INTERVAL '1 day', rule)",
        &["no condition of its own"],
    )
    .await;
    check("SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 month', rule)", &["months", "INTERVAL '30 days'"])
        .await;
    check("SELECT cluster FROM falco WHERE first_seen('1 day', rule)", &["does not begin with an interval"]).await;
    check("SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 day', rul)", &["d/rule.sql:8: unknown column `rul`"])
        .await;
    check("SELECT cluster FROM falco WHERE first_seen(INTERVAL '0 days', rule)", &["not between"]).await;
    check("SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 day', rule) GROUP BY cluster", &["it aggregates"])
        .await;
    check("SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 day', rule) LIMIT 1", &["LIMIT"]).await;
    check(
        "SELECT cluster FROM falco WHERE rule = 'a' AND rule = 'b' AND first_seen(INTERVAL '1 day', rule)",
        &["can never fire"],
    )
    .await;
    check("SELECT cluster FROM falco WHERE rule IN (SELECT thing FROM things)", &["subquery"]).await;
    let windowed =
        rule_text("cluster", "window: 10m", "SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 day', rule)");
    refused(None, &windowed, &["a rule with a window uses first_seen"]).await;
    let learning = |sql: &str| rule_text("cluster", "learning: 7d", sql);
    refused(None, &learning("SELECT cluster FROM falco"), &["`learning` without first_seen"]).await;
    let odd =
        rule_text("cluster", "learning: week", "SELECT cluster FROM falco WHERE first_seen(INTERVAL '1 d', rule)");
    refused(None, &odd, &["d/rule.sql:6: `learning: week` is not a span"]).await;
}

#[tokio::test]
async fn state_tables_are_checked_all_at_once() {
    let state = |header: &str, sql: &str| format!("/*\n{header}\n*/\n{sql}\n");
    let good_rule = rule_text("cluster", "", "SELECT cluster FROM falco");
    let check = async |header: &str, sql: &str, expected: &[&str]| {
        refused(Some(&state(header, sql)), &good_rule, expected).await;
    };
    let header = "title: T\nkey: [rule]";
    check(
        "title: T\nkey: [rul]",
        "SELECT rule FROM falco",
        &["state/odd.sql:3: key column `rul`", "did you mean `rule`?"],
    )
    .await;
    check("title: T\nkey: []", "SELECT rule FROM falco", &["`key` is empty"]).await;
    check("title: T", "SELECT rule FROM falco", &["state/odd.sql", "missing field"]).await;
    check("title: T\nkeys: [rule]", "SELECT rule FROM falco", &["unknown field"]).await;
    check(header, "SELECT rule FROM falc", &["state/odd.sql:5: unknown table `falc`"]).await;
    check(header, "SELECT rule, count(*) AS n FROM falco GROUP BY rule", &["state/odd.sql", "it aggregates"]).await;
    check(header, "SELECT actor_user_name AS rule FROM events", &["several stored tables"]).await;
    check(header, "SELECT rule, time AS valid_from FROM falco", &["`valid_from` has a name of the table's own"]).await;
    check(header, "SELECT rule, cluster AS prev_rule FROM falco", &["`prev_rule`"]).await;
    check(header, "SELECT rule, cluster AS deleted FROM falco", &["column `deleted` is"]).await;
    check(header, "SELECT rule, raw->'a' AS a FROM falco", &["column `a` cannot be kept"]).await;
    check(header, "SELECT rule FROM falco WHERE rule = 'a' AND rule = 'b'", &["never have a row"]).await;
    check(header, "SELECT rule FROM falco WHERE first_seen(INTERVAL '1 day', rule)", &["it calls first_seen"]).await;
    refused(Some("SELECT rule FROM falco"), &good_rule, &["state/odd.sql:1: the state table has no header"]).await;
    let both = state("title: T\nkey: [rul]", "SELECT rule FROM falco");
    let rule = rule_text("clster", "", "SELECT cluster FROM falco");
    refused(Some(&both), &rule, &["state/odd.sql:3: key column", "d/rule.sql:4: entity column `clster`"]).await;
    for name in ["state/falco.sql", "state/kubernetes_calls.sql", "state/Pods-1.sql"] {
        let states = [(name.into(), state(header, "SELECT rule FROM falco"))];
        let errors = with_states(&states, &[], "").await.err().expect("refused").to_string();
        assert!(errors.contains("stored table or view") || errors.contains("no name for a state table"), "{errors}");
    }
}

#[tokio::test]
async fn the_bundle_knows_state_tables() {
    let bundle = async |text: &str| {
        let states = [("state/things.sql".into(), text.to_owned())];
        with_states(&states, &[], "").await.expect("a good state table").bundle
    };
    assert_ne!(bundle(THINGS).await, bundle(&THINGS.replace("Things", "Stuff")).await);
    let without = RuleSet::parse(&[], &schemas(), "").await.expect("nothing is wrong").bundle;
    assert_ne!(bundle(THINGS).await, without);
}

/// What the state tables that ship make of vendor events, as far as columns and bodies go.
#[tokio::test]
async fn state_tables_that_ship_keep_what_they_say() {
    let schemas = crate::fixtures::shipped_schemas();
    let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../detections"));
    let rules = RuleSet::load(dir, &schemas, "").await.unwrap_or_else(|e| panic!("{e}"));
    let check =
        async |state: &str, table: &'static str, cells: &[(&str, Cell)], raw: &str, expected: serde_json::Value| {
            let mut all = vec![
                ("stage", Cell::from("ResponseComplete")),
                ("response_code", 200.into()),
                ("status", "Success".into()),
                ("recipient_account_id", "111122223333".into()),
                ("principal", "arn:aws:iam::111122223333:user/al".into()),
                ("raw", raw.into()),
            ];
            all.extend(cells.iter().cloned());
            let store = Store::of_as(&schemas, &[row(table, START, "u", &all)]);
            let engine = Engine::new(rules.clone(), Frontier::default(), &Watermarks::default());
            let shown = engine.state_at(state, Origin::Live, START + H, START, &store).await.expect("answers");
            assert_eq!(shown.num_rows(), 1, "{state}");
            let got = serde_json::Value::from(crate::value::row(&shown, 0));
            for (name, value) in expected.as_object().expect("columns") {
                assert_eq!(&got[name], value, "{state}.{name} in {got}");
            }
        };
    let verb = |verb: &str| ("verb", Cell::from(verb));
    let of = |resource: &str| ("objectref_resource", Cell::from(resource));
    let named = |namespace: &str, name: &str| {
        vec![("objectref_namespace", Cell::from(namespace)), ("objectref_name", Cell::from(name))]
    };
    let pod = [verb("create"), of("pods"), ("objectref_namespace", "shop".into()), ("pod_spec_whole", true.into())];
    let raw = r#"{"responseObject":{"metadata":{"name":"web-7c9-x2x"}}}"#;
    check("pods", "kubernetes", &pod, raw, serde_json::json!({"pod": "web-7c9-x2x", "service_account": "default"}))
        .await;
    let mut binding = named("shop", "web");
    binding.extend([verb("create"), of("pods"), ("objectref_subresource", "binding".into())]);
    let raw = r#"{"requestObject":{"target":{"kind":"Node","name":"node-3"}}}"#;
    check("pod_nodes", "kubernetes", &binding, raw, serde_json::json!({"pod": "web", "node": "node-3"})).await;
    let node =
        [verb("patch"), of("nodes"), ("objectref_name", "n1".into()), ("objectref_subresource", "status".into())];
    let raw = r#"{"responseObject":{"spec":{"providerID":"aws:///eu-central-1a/i-0abc"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.7"}]}}}"#;
    let expected =
        serde_json::json!({"instance_id": "i-0abc", "addresses": r#"[{"type":"InternalIP","address":"10.0.0.7"}]"#});
    check("nodes", "kubernetes", &node, raw, expected).await;
    let namespace = [verb("create"), of("namespaces")];
    let raw =
        r#"{"requestObject":{"metadata":{"name":"shop","labels":{"pod-security.kubernetes.io/enforce":"baseline"}}}}"#;
    let expected = serde_json::json!({"namespace": "shop", "pod_security_enforce": "baseline"});
    check("namespaces", "kubernetes", &namespace, raw, expected).await;
    let mut policy = named("shop", "deny");
    policy.extend([verb("create"), of("networkpolicies")]);
    let raw = r#"{"requestObject":{"spec":{"podSelector":{}}}}"#;
    check("network_policies", "kubernetes", &policy, raw, serde_json::json!({"spec": r#"{"podSelector":{}}"#})).await;
    let auth = [verb("create"), of("configmaps"), ("objectref_namespace", "kube-system".into())];
    let raw = r#"{"requestObject":{"metadata":{"name":"aws-auth"},"data":{"mapRoles":"- a"}}}"#;
    check("object_specs", "kubernetes", &auth, raw, serde_json::json!({"spec": r#"{"mapRoles":"- a"}"#})).await;
    let mut token = named("ci", "builder");
    token.extend([verb("create"), of("serviceaccounts"), ("objectref_subresource", "token".into())]);
    token.push(("issued_credential_uid", "JTI=1".into()));
    let raw = r#"{"requestObject":{"spec":{"boundObjectRef":{"kind":"Pod","name":"web","uid":"p1"}}}}"#;
    let expected = serde_json::json!({"credential_uid": "JTI=1", "service_account": "builder", "bound_uid": "p1"});
    check("service_account_tokens", "kubernetes", &token, raw, expected).await;
    let mut deployment = named("shop", "web");
    deployment.extend([
        verb("update"),
        of("deployments"),
        ("pod_spec_whole", true.into()),
        ("pod_service_account", "w".into()),
    ]);
    check("workloads", "kubernetes", &deployment, "{}", serde_json::json!({"workload": "web", "service_account": "w"}))
        .await;
    let call = |source: &str, name: &str| vec![("event_source", Cell::from(source)), ("event_name", Cell::from(name))];
    let raw = r#"{"requestParameters":{"bucketName":"b","PublicAccessBlockConfiguration":{"BlockPublicAcls":true,"BlockPublicPolicy":false}}}"#;
    let expected = serde_json::json!({"bucket": "b", "block_public_acls": "true", "block_public_policy": "false"});
    check("bucket_public_access", "cloudtrail", &call("s3.amazonaws.com", "PutBucketPublicAccessBlock"), raw, expected)
        .await;
    let raw = r#"{"requestParameters":{"bucketName":"b","ServerSideEncryptionConfiguration":{"Rule":{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"AES256"}}}}}"#;
    check(
        "bucket_encryption",
        "cloudtrail",
        &call("s3.amazonaws.com", "PutBucketEncryption"),
        raw,
        serde_json::json!({"algorithm": "AES256"}),
    )
    .await;
    let raw = r#"{"requestParameters":{"bucketName":"b","VersioningConfiguration":{"Status":"Suspended"}}}"#;
    check(
        "bucket_versioning",
        "cloudtrail",
        &call("s3.amazonaws.com", "PutBucketVersioning"),
        raw,
        serde_json::json!({"versioning": "Suspended"}),
    )
    .await;
    let raw = r#"{"requestParameters":{"repositoryName":"app","imageTag":"v1"},"responseElements":{"image":{"imageId":{"imageDigest":"sha256:1"}}}}"#;
    let mut push = call("ecr.amazonaws.com", "PutImage");
    push.push(("cloud_region", "eu-central-1".into()));
    check("image_tags", "cloudtrail", &push, raw, serde_json::json!({"tag": "v1", "digest": "sha256:1"})).await;
    let mut assume = call("sts.amazonaws.com", "AssumeRoleWithWebIdentity");
    assume.extend([
        ("issued_access_key_id", "ASIA1".into()),
        ("web_identity_subject", "system:serviceaccount:ci:b".into()),
    ]);
    let expected = serde_json::json!({"access_key_id": "ASIA1", "web_identity_subject": "system:serviceaccount:ci:b"});
    check("cloud_sessions", "cloudtrail", &assume, "{}", expected).await;
    let iam = |name: &str| call("iam.amazonaws.com", name);
    let raw = r#"{"requestParameters":{"roleName":"r","policyDocument":"{}"}}"#;
    let expected = serde_json::json!({"kind": "role", "owner": "r", "document": "trust", "text": "{}"});
    check("iam_documents", "cloudtrail", &iam("UpdateAssumeRolePolicy"), raw, expected).await;
    let raw = r#"{"requestParameters":{"policyArn":"arn:p","policyDocument":"{}","setAsDefault":true}}"#;
    let expected = serde_json::json!({"kind": "managed", "owner": "arn:p", "document": "policy", "text": "{}"});
    check("iam_documents", "cloudtrail", &iam("CreatePolicyVersion"), raw, expected).await;
    let raw = r#"{"requestParameters":{"bucketName":"b","bucketPolicy":{"Version":"2012-10-17"}}}"#;
    let expected = serde_json::json!({"kind": "bucket", "owner": "b", "text": r#"{"Version":"2012-10-17"}"#});
    check("iam_documents", "cloudtrail", &call("s3.amazonaws.com", "PutBucketPolicy"), raw, expected).await;
}

/// A start over a store that has been looked at to its end looks for nothing in it.
#[tokio::test]
async fn a_start_looks_for_rows_only_if_some_are_behind() {
    let sql = "SELECT actor_user_name FROM kubernetes WHERE verb = 'get'";
    let rules = crate::fixtures::rules(&[("d/rule.sql", &rule_text("actor_user_name", "", sql))]).await;
    let mut one = user(1, "u1", "ada", 0);
    one.cells.extend([("verb".to_owned(), "get".into()), ("offset".to_owned(), 10.into())]);
    let store = Store::of(std::slice::from_ref(&one));
    let stored = stored_up_to(std::slice::from_ref(&one));
    let found = async |seen: i64, stored: &Offsets| {
        let seen = stored_up_to(std::slice::from_ref(&one)).0.into_keys().map(|partition| (partition, seen)).collect();
        let frontier = Frontier { offsets: seen, ..Frontier::default() };
        let mut engine = Engine::new(rules.clone(), frontier, &Watermarks::default());
        engine.stored_up_to(stored.clone());
        let reads = Arc::new(AtomicUsize::new(0));
        let read = Flaky { store: &store, reads: reads.clone(), one_in: 1 };
        let found = engine.catch_up(&read).await.expect("the store answers").findings.len();
        (found, reads.load(Ordering::Relaxed) > 0)
    };
    assert_eq!(found(11, &stored).await, (0, false));
    assert_eq!(found(10, &stored).await, (1, true));
    assert_eq!(found(11, &Offsets::default()).await, (0, true), "who was not told what is stored looks");
}
