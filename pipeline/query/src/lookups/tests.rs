//! Lookup files as the functions and tables see them, and what is refused.

use super::*;

fn parse(files: &[(&str, &str)]) -> Result<Lookups, Vec<LookupProblem>> {
    let files: Vec<(PathBuf, String)> =
        files.iter().map(|(name, text)| (Path::new("lookups").join(name), text.to_string())).collect();
    Lookups::parse(&files)
}

fn lookup(name: &str, text: &str) -> Lookups {
    parse(&[(name, text)]).unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[test]
fn rows_are_found_by_their_key() {
    let csv = "namespace,user,owner,reason,expires\n\
               kube-system , system:node:a,ops,\"nodes, of course\",\n\
               prod,alice,ops,break glass,2026-12-31\n\
               \"a:b\",c,,,\n";
    let json = r#"[{"namespace":"kube-system","user":"system:node:a"},
        {"namespace":"prod","user":"alice","reason":null},{"user":"c","namespace":"a:b"}]"#;
    for (name, text) in [("exec_allow.csv", csv), ("exec_allow.json", json)] {
        let lookups = lookup(name, text);
        let table = lookups.get("exec_allow").expect("is there");
        let check = |values: &[&str], expected: Option<usize>| assert_eq!(table.exact(values), expected, "{values:?}");
        check(&["kube-system", "system:node:a"], Some(0));
        check(&["prod", "alice"], Some(1));
        check(&["prod", "bob"], None);
        check(&["prod"], Some(1));
        check(&["Prod"], None);
        check(&["a:b", "c"], Some(2));
        check(&["a", "b:c"], None);
        check(&[""], None);
        assert!(table.takes(3).is_err());
    }
}

#[test]
fn scalars_are_a_lookup_of_one_column() {
    let lookups = lookup("own_accounts.json", "[\"000000000001\",\n 222222222222, true, \"000000000001\"]");
    let table = lookups.get("own_accounts").expect("is there");
    assert_eq!(table.values(None), ["000000000001", "222222222222", "true"]);
    assert_eq!(table.exact(&["222222222222"]), Some(1));
}

#[test]
fn patterns_prefixes_and_blocks_match() {
    let lookups = parse(&[
        ("principals.csv", "arn,service\narn:aws:iam::*:role/ci-*,*\narn:aws:iam::1:user/root,iam\n"),
        ("prefixes.csv", "prefix,namespace\nteam/a/,a\nteam/,shared\nteam/a/,b\nä,u\n"),
        ("networks.csv", "cidr,bucket\n10.0.0.0/8,logs\n10.1.0.0/16,state\n2001:db8::/32,logs\n192.0.2.1,logs\n"),
    ])
    .expect("good lookups");
    let like = |values: &[&str], expected: bool| {
        assert_eq!(lookups.get("principals").expect("there").like(values), expected, "{values:?}");
    };
    like(&["arn:aws:iam::9:role/ci-x"], true);
    like(&["arn:aws:iam::9:role/ci-x", "anything"], true);
    like(&["arn:aws:iam::1:user/root", "iam"], true);
    like(&["arn:aws:iam::1:user/root", "ec2"], false);
    like(&["arn:aws:iam::9:role/x"], false);
    let prefix = |values: &[&str], expected: bool| {
        assert_eq!(lookups.get("prefixes").expect("there").prefix(values), expected, "{values:?}");
    };
    prefix(&["team/a/db"], true);
    prefix(&["team/a/db", "b"], true);
    prefix(&["team/a/db", "shared"], true);
    prefix(&["team/b", "a"], false);
    prefix(&["tea"], false);
    prefix(&["äh"], true);
    prefix(&["ö"], false);
    let cidr = |values: &[&str], expected: bool| {
        let table = lookups.get("networks").expect("there");
        assert_eq!(table.cidr(values).expect("blocks"), expected, "{values:?}");
    };
    cidr(&["10.1.2.3"], true);
    cidr(&["::ffff:10.1.2.3", "state"], true);
    cidr(&["10.2.2.3", "state"], false);
    cidr(&["10.2.2.3", "logs"], true);
    cidr(&["2001:db8::9"], true);
    cidr(&["192.0.2.1"], true);
    cidr(&["192.0.2.2"], false);
    cidr(&["s3.amazonaws.com"], false);
}

#[test]
fn expired_rows_are_reported_and_still_hold() {
    let lookups = lookup("hosts.csv", "host,expires\na,2026-01-31\nb,2026-02-01\nc,\n");
    let end = date_end("2026-01-31").expect("a date");
    assert_eq!(end, 1_769_904_000_000_000);
    let lines = |now: i64| lookups.expired(now).into_iter().map(|e| (e.line, e.date)).collect::<Vec<_>>();
    assert_eq!(lines(end - 1), []);
    assert_eq!(lines(end), [(2, "2026-01-31".to_owned())]);
    assert_eq!(lookups.get("hosts").expect("there").exact(&["a"]), Some(0));
}

#[test]
fn mistakes_are_reported_with_their_place() {
    let check = |name: &str, text: &str, expected: &[(u64, &str)]| {
        let problems = parse(&[(name, text)]).err().unwrap_or_else(|| panic!("was not refused: {text}"));
        let found: Vec<(u64, String)> = problems
            .into_iter()
            .map(|p| (p.line, [Some(p.message), p.hint].into_iter().flatten().collect::<Vec<_>>().join("; ")))
            .collect();
        for (line, part) in expected {
            assert!(found.iter().any(|(l, m)| l == line && m.contains(part)), "expected {line} {part} in {found:?}");
        }
    };
    check("a.csv", "", &[(1, "empty")]);
    check("a.csv", "host,host\nx,y\n", &[(1, "column `host` is there twice")]);
    check("a.csv", "Host\nx\n", &[(1, "`Host` cannot be the name")]);
    check("a.csv", "owner,reason\nx,y\n", &[(1, "no key")]);
    check("a.csv", "host,expire\nx,y\n", &[(1, "did you mean `expires`?")]);
    check(
        "a.csv",
        "host,expires\nx,soon\ny,2026-02-30\n,2026-01-01\nz,2026-1-1\n",
        &[
            (2, "`soon` is not a date"),
            (3, "`2026-02-30` is not a date"),
            (4, "the row has no `host`"),
            (5, "`2026-1-1` is not a date"),
        ],
    );
    check("a.csv", "host,team\nx\ny,a,b\n", &[(2, "has 1 values"), (3, "has 3 values")]);
    check("a.csv", "cidr\n10.0.0.0/8\n10.0.0/8\n", &[(3, "`10.0.0/8` is not an address block")]);
    check("a.csv", &format!("host\n{}\n", "x".repeat(5_000)), &[(2, "more than 4096 bytes")]);
    check("a.csv", &format!("host\n{}", "x\n".repeat(ROWS_MAX + 1)), &[(0, "100001 rows")]);
    check("a.json", "{}", &[(1, "not a JSON array")]);
    check("a.json", "[1,\n{\"a\":[1]},\n{\"b\":", &[(3, "not a JSON array")]);
    check("a.json", "[\"x\",\n\n[1]]", &[(3, "`value` is a list")]);
    check("a.json", "[{\"a\":\"1\"},\n{\"b\":\"1\"}]", &[(2, "the row has no `a`")]);
    check("cloudtrail.csv", "a\n", &[(0, "is a table of events")]);
    check("Own-Accounts.csv", "a\n", &[(0, "cannot be the name of a lookup")]);
    let twice = parse(&[("a.csv", "x\n"), ("a.json", "[]")]).expect_err("refused");
    assert!(twice[0].message.contains("is there twice"), "{twice:?}");
}

#[test]
fn folders_hold_lookups_and_pages() {
    let dir = std::env::temp_dir().join(format!("stakeout-lookups-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("writes");
    write("b.csv", "\u{feff}host\r\nx\r\n");
    write("a.json", "[]");
    write("README.md", "# what they are");
    let lookups = Lookups::load(&dir).expect("good lookups");
    assert_eq!(lookups.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(lookups.get("b").expect("there").exact(&["x"]), Some(0));
    write("c.txt", "x");
    let problems = Lookups::load(&dir).expect_err("refused");
    assert!(problems[0].message.contains("not a lookup"), "{problems:?}");
    std::fs::remove_dir_all(&dir).expect("is ours");
    assert_eq!(Lookups::load(&dir).expect("none is none").names().count(), 0);
}
