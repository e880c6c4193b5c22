//! The search language: what queries find, and that both evaluators agree on random queries over random rows.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Row, found, open, row, tables, unit};
use crate::Store;

fn store(dir: &tempfile::TempDir, rows: &[Row]) -> Store {
    let store = open(dir.path());
    store.append(&unit(&tables()[0], rows)).unwrap();
    store
}

#[test]
fn finds_what_is_meant() {
    let raws = [
        r#"{"verb":"get","code":200,"user":{"name":"system:admin"},"ips":["10.0.0.1","192.168.1.5"],"dry":true}"#,
        r#"{"verb":"GetObject","code":404,"user":{"name":"Alice Admin"},"a":{"b.c":[{"d":"x-ray"},{"d":null}]}}"#,
        r#"{"verb":"list","size":1.50,"empty":"","at":"2023-07-10T11:42:36Z","path":"/etc/shadow","v":"10"}"#,
        "plain text, not JSON: token=abc",
    ];
    let day = 1_688_947_200_000_000;
    let rows: Vec<Row> = raws.iter().enumerate().map(|(n, raw)| row(day - n as i64, n as i64, *raw)).collect();
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir, &rows);
    for sealed in [false, true] {
        let check = |query: &str, expected: &str| {
            assert_eq!(found(&store, query).join(""), expected, "{query} (sealed: {sealed})");
        };
        check("", "0123");
        check("admin", "01");
        check("ADMIN -alice", "0");
        check("user.name:admin", "01");
        check("User_Name:\"system admin\"", "0");
        check("\"admin system\"", "");
        check("verb:get", "0");
        check("verb:get*", "01");
        check("verb:*obj*", "1");
        check("verb:(get OR list)", "02");
        check("verb:IN [get, list]", "02");
        check("code:404", "1");
        check("code:>=200", "01");
        check("code:{200 TO 404]", "1");
        check("code:2?0", "0");
        check("dry:true", "0");
        check("ips:10.0.0.0/8", "0");
        check("ips:192.168.1.5", "0");
        check("ips:\"1 192\"", "");
        check("192.168.0.0/16", "0");
        check("a.b.c.d:x-ray", "1");
        check("a.b.c.d:*", "1");
        check("a:*", "1");
        check("empty:*", "2");
        check("NOT verb:*", "3");
        check("size:1.50", "2");
        check("size:1.5", "");
        check("size:[1 TO 2]", "2");
        check("v:<=10", "2");
        check("at:>2023-07-10", "2");
        check("path:/etc/shadow", "2");
        check("path:/\\/ETC\\/.*/", "2");
        check("user.name:/admin/", "");
        check("token", "3");
        check("time:>=2023-07-10", "0");
        check("time:2023-07-09*", "123");
        check("event_uid:[1 TO 2]", "12");
        check("(verb:get OR token) AND NOT code:[* TO 300]", "3");
        if !sealed {
            store.seal().unwrap().unwrap();
        }
    }
}

const WORDS: [&str; 12] =
    ["get", "Get", "list", "secret", "10", "1.5", "-5", "10.0.0.7", "a:b", "é", "2023-07-10T11:00:00Z", ""];
const KEYS: [&str; 8] = ["verb", "code", "ips", "dry", "a", "b.c", "d_e", "long"];

fn pick<'a>(rng: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(rng).unwrap()
}

fn phrase(rng: &mut StdRng) -> String {
    let words: Vec<&str> = (0..rng.random_range(1..4)).map(|_| pick(rng, &WORDS)).collect();
    words.join(pick(rng, &[" ", "-", "/", ""]))
}

fn json(rng: &mut StdRng, depth: u32) -> serde_json::Value {
    match rng.random_range(0..if depth > 2 { 6 } else { 9 }) {
        0..=2 => phrase(rng).into(),
        3 => rng.random_range(-20..20i64).into(),
        4 => serde_json::json!(rng.random_range(-20..20i64) as f64 / 4.0),
        5 => [true.into(), false.into(), serde_json::Value::Null][rng.random_range(0..3)].clone(),
        6 => (0..rng.random_range(0..4)).map(|_| json(rng, depth + 1)).collect(),
        _ => object(rng, depth + 1),
    }
}

fn object(rng: &mut StdRng, depth: u32) -> serde_json::Value {
    let fields = (0..rng.random_range(0..6)).map(|_| (pick(rng, &KEYS).to_owned(), json(rng, depth)));
    serde_json::Value::Object(fields.collect())
}

fn query(rng: &mut StdRng, depth: u32) -> String {
    match rng.random_range(0..if depth > 3 { 6 } else { 10 }) {
        0..=5 => {
            let field = match rng.random_range(0..5) {
                0 => return free(rng),
                1 => format!("{}.{}", pick(rng, &KEYS), pick(rng, &KEYS)),
                _ => pick(rng, &KEYS).to_owned(),
            };
            format!("{field}:{}", value(rng))
        }
        6 => format!("NOT ({})", query(rng, depth + 1)),
        7 => format!("({} OR {})", query(rng, depth + 1), query(rng, depth + 1)),
        _ => format!("({} {})", query(rng, depth + 1), query(rng, depth + 1)),
    }
}

fn free(rng: &mut StdRng) -> String {
    match rng.random_range(0..3) {
        0 => quoted(rng),
        1 => pick(rng, &["g*", "*e*", "1?", "sec*t", "10.0.0.0/8", "g?t-l*"]).to_owned(),
        _ => pick(rng, &["get", "LIST", "10", "é", "true", "b", "-5", "1.5"]).to_owned(),
    }
}

fn quoted(rng: &mut StdRng) -> String {
    let text = phrase(rng);
    match text.chars().any(char::is_alphanumeric) {
        true => format!("\"{text}\""),
        false => "\"get\"".to_owned(),
    }
}

fn value(rng: &mut StdRng) -> String {
    match rng.random_range(0..8) {
        0 => "*".to_owned(),
        1 => pick(rng, &["g*", "*e*", "1?", "10-*", "*-10", "-*", "?", "*5", "**t"]).to_owned(),
        2 => pick(rng, &["10.0.0.0/8", "10.0.0.7/32", "::/0"]).to_owned(),
        3 => pick(rng, &["/g.t/", "/.*1.*/", "/(get|list).*/", "/-?[0-9]+/", "/.*/"]).to_owned(),
        4 => pick(rng, &[">=2", "<0", ">1.25", "<=get", ">2023-07-10", "[-3 TO 4}", "{* TO m]", "[* TO *]"]).to_owned(),
        5 => pick(rng, &["(get OR list)", "(get NOT secret)", "IN [10, -5, \"a b\"]", "IN [g*]"]).to_owned(),
        6 => pick(rng, &["get", "10", "1.5", "-5", "true", "GET-LIST", "2.0", "-1.25"]).to_owned(),
        _ => quoted(rng),
    }
}

#[test]
fn both_evaluators_agree() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..4 {
        let mut rows: Vec<Row> = (0..150)
            .map(|n| {
                let raw = match rng.random_range(0..12) {
                    0 => phrase(&mut rng),
                    1 => format!("{{\"long\":\"{}\"}}", "z".repeat(rng.random_range(250..260))),
                    _ => object(&mut rng, 0).to_string(),
                };
                row(rng.random_range(0..50), n, raw)
            })
            .collect();
        rows.push(row(1, 150, r#"{"verb":"get","n":12345678901234567890123.50,"u":"\u00e9\ud83d\ude00","k\u0000":1}"#));
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir, &rows);
        let queries: Vec<String> = (0..150).map(|_| query(&mut rng, 0)).collect();
        let brute: Vec<_> = queries.iter().map(|query| found(&store, query)).collect();
        store.seal().unwrap();
        let mut some = 0;
        for (query, expected) in queries.iter().zip(&brute) {
            assert_eq!(&found(&store, query), expected, "seed {seed}, round {round}: {query}");
            some += usize::from(!expected.is_empty() && expected.len() < rows.len());
        }
        assert!(some > 50, "seed {seed}: only {some} queries tell rows apart");
    }
}
