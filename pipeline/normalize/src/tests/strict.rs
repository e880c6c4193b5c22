//! The walk accepts exactly what `serde_json` accepts, and finds what a walk by way of serde finds.

use std::cell::RefCell;
use std::collections::HashMap;

use event::Source;
use serde::de::IgnoredAny;

use super::{Random, oracle, real_lines};
use crate::Schemas;
use crate::program::Program;
use crate::walk::Scratch;

/// Pieces that matter to a JSON reader, to be put where they do not belong.
const PIECES: [&str; 40] = [
    "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "\\u00e9", "\\ud800", "\\\"", "\\x", "null", "nul", "true",
    "false", "0", "01", "-", "-0", "1.", "1.5", ".5", "1e", "1E+9", "1e999", " ", "\n", "\t", "\u{b}", "\0", "\u{1f}",
    "é", "\u{feff}", "{}", "[]", "\"a\"", "\"a\":1,", "/",
];

fn program(source: Source) -> Program {
    Program::new(Schemas::builtin().plans().iter().find(|plan| plan.source == source).unwrap())
}

/// Puts a piece somewhere into the text, or takes some of it away.
fn mutate(text: &mut String, random: &mut Random) {
    let mut place = || {
        let at = random.below(text.len() + 1);
        (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap()
    };
    let (a, b) = (place(), place());
    let near = (a.min(b)..=text.len()).take(4).filter(|at| text.is_char_boundary(*at)).last().unwrap();
    let piece = PIECES[random.below(PIECES.len())];
    match random.below(8) {
        0 => text.truncate(a),
        1 => text.replace_range(a.min(b)..near, ""),
        2 => text.replace_range(a.min(b)..near, piece),
        3 => text.replace_range(a.min(b)..a.max(b), piece),
        _ => text.insert_str(a, piece),
    }
}

fn check(program: &Program, text: &str) {
    // What earlier texts made the walk expect must not show, so each kind of event has one scratch for all of them.
    thread_local!(static SCRATCH: RefCell<HashMap<String, Scratch>> = RefCell::default());
    SCRATCH.with_borrow_mut(|all| {
        let scratch = all.entry(program.table.name.clone()).or_insert_with(|| program.scratch());
        check_with(program, scratch, text);
    });
}

fn check_with(program: &Program, scratch: &mut Scratch, text: &str) {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let expected = match stream.next() {
        // Of numbers and words the stream wants more than that they are one.
        Some(Ok(_)) => Some(stream.byte_offset()),
        _ => None,
    };
    let end = program.walk(text, scratch);
    let whole = serde_json::from_str::<IgnoredAny>(text).is_ok();
    assert_eq!(end.is_some_and(|end| text[end..].trim_matches([' ', '\n', '\t', '\r']).is_empty()), whole, "{text}");
    if text.trim_start_matches([' ', '\n', '\t', '\r']).starts_with(['{', '[', '"']) {
        assert_eq!(end, expected, "{text}");
    }
    let Ok(oracle) = program.walk_by_serde(text) else {
        return;
    };
    let list = scratch.take_list().map(|list| list.into_iter().map(|range| &text[range]).collect::<Vec<_>>());
    assert_eq!(list, oracle.list.map(|list| list.iter().map(|element| element.get()).collect()), "{text}");
    let found = scratch.found(text);
    assert_eq!(found.object, oracle.object, "{text}");
    for (slot, expected) in oracle.slots.iter().enumerate() {
        assert_eq!(found.json(slot), *expected, "slot {slot} of {text}");
        let part = expected.filter(|json| !json.starts_with('"') || !json.contains('\\'));
        assert_eq!(found.text_part(slot).map(|part| &text[part]), part.map(|json| json.trim_matches('"')), "{text}");
        assert_eq!(found.is_string(slot), expected.is_some_and(|json| json.starts_with('"')), "{text}");
    }
}

fn check_mutations(source: Source, file: &str, random: &mut Random) {
    let program = program(source);
    let lines = real_lines(file);
    for _ in 0..if lines.is_empty() { 0 } else { 10_000 } {
        let mut text = String::from_utf8(lines[random.below(lines.len())].clone()).unwrap();
        check(&program, &text);
        // Some mistakes hide others, so few at a time.
        (0..1 + random.below(3)).for_each(|_| mutate(&mut text, random));
        check(&program, &text);
    }
}

#[test]
fn mutated_events_are_read_as_serde_reads_them() {
    let mut random = Random::new();
    check_mutations(Source::Kubernetes, "kubernetes/openshift_audit.ndjson", &mut random);
    check_mutations(Source::Kubernetes, "kubernetes/falco_traces.ndjson", &mut random);
    check_mutations(Source::CloudTrail, "cloudtrail/invictus.ndjson", &mut random);
    check_mutations(Source::Falco, "falco/falco_docs.ndjson", &mut random);
}

#[test]
fn small_events_are_read_as_serde_reads_them() {
    let mut random = Random::new();
    let seeds = [
        (Source::Kubernetes, r#"{"auditID":"a","user":{"username":"x","groups":["g"]},"items":[{"a":1}, 2]}"#),
        (Source::CloudTrail, r#"{"Records":[{"n":[1,{}]}],"resources":[{"ARN":"r"},{"type":null}],"x":-1.5e3}"#),
        (Source::CloudTrail, r#"[{"eventName":"\u00e9","userIdentity":{"type":true,"arn":"é\n"}}, null ]"#),
        (Source::Falco, r#"{"rule":"r","output_fields":{"k8s.ns.name":"w","user.name":{"a":[[]]}},"tags":["t"]}"#),
    ];
    for (source, seed) in seeds {
        let program = program(source);
        for _ in 0..40_000 {
            let mut text = seed.to_owned();
            (0..random.below(5)).for_each(|_| mutate(&mut text, &mut random));
            check(&program, &text);
        }
    }
}

#[test]
fn soup_is_read_as_serde_reads_it() {
    let mut random = Random::new();
    let program = program(Source::CloudTrail);
    for _ in 0..200_000 {
        let text: String = (0..random.below(9)).map(|_| PIECES[random.below(PIECES.len())]).collect();
        check(&program, &text);
    }
}

#[test]
fn nesting_is_read_at_any_depth() {
    let program = program(Source::CloudTrail);
    for depth in [1, 63, 64, 65, 66, 127, 128, 129, 1000] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"a":"#, "}]")] {
            for text in [
                format!("{}1{}", open.repeat(depth), close.repeat(depth)),
                format!("{}1{}", open.repeat(depth), close.repeat(depth + 1)),
                format!("{}1{}", open.repeat(depth), close.repeat(depth - 1)),
                format!("{}1{}]", open.repeat(depth), close.repeat(depth - 1)),
                format!("{}1{}}}", open.repeat(depth), close.repeat(depth - 1)),
                format!("{}1{}", open.repeat(depth / 2), close.repeat(depth / 2)) + ",",
            ] {
                check(&program, &format!(r#"{{"x":{text}}}"#));
            }
        }
    }
}

impl Program {
    fn walk_by_serde<'de>(&self, text: &'de str) -> Result<oracle::Found<'de>, serde_json::Error> {
        let (trie, list_slot) = self.paths();
        oracle::walk(trie, list_slot, text)
    }
}
