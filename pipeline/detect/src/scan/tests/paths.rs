//! Paths into JSON: what the shared walk gives against what each function gives by itself, for text that is JSON, that
//! nearly is, and for events as they come.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::config::ConfigOptions;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::scalar::ScalarValue;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::differential::seed;
use crate::scan::expr::Expr;
use crate::scan::json::Json;

const FUNCTIONS: [&str; 11] = [
    "json_as_text",
    "json_contains",
    "json_get",
    "json_get_array",
    "json_get_bool",
    "json_get_float",
    "json_get_int",
    "json_get_json",
    "json_get_str",
    "json_length",
    "json_object_keys",
];
const KEYS: [&str; 7] = ["a", "b", "c", "a\"b", "ü", "0", ""];

type Steps = Vec<ScalarValue>;

fn key(text: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(text.to_owned()))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("raw", DataType::Utf8View, true)]))
}

fn call(function: &str, steps: &Steps) -> Expr {
    let session = query::session(&query::Limits::RULE);
    let fun = session.state().scalar_functions().get(function).expect("a function of the session").clone();
    let mut args: Vec<Expr> = vec![Arc::new(Column::new("raw", 0))];
    args.extend(steps.iter().map(|step| Arc::new(Literal::new(step.clone())) as Expr));
    let call = ScalarFunctionExpr::try_new(fun, args, &schema(), Arc::new(ConfigOptions::default()));
    Arc::new(call.expect("the arguments fit"))
}

/// All functions along all paths, for all rows and for every other one.
fn check(texts: &[Option<String>], paths: &[Steps], seed: u64) {
    let raw: StringViewArray = texts.iter().map(Option::as_deref).collect();
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(raw.clone())]).expect("one column");
    // Equal calls become one column.
    let mut paths = paths.to_vec();
    paths.sort_by_key(|path| format!("{path:?}"));
    paths.dedup();
    let calls: Vec<Expr> = paths.iter().flat_map(|path| FUNCTIONS.map(|f| call(f, path))).collect();
    let mut json = Json::new(0, 1);
    let mut columns = Vec::new();
    for call in &calls {
        let rewritten = json.rewrite(call).expect("rewrites");
        columns.push(rewritten.downcast_ref::<Column>().expect("the call became a column").index());
    }
    let all: Vec<u32> = (0..texts.len() as u32).collect();
    let some: Vec<u32> = all.iter().copied().filter(|row| row % 2 == 1).collect();
    for rows in [all, some] {
        // Not all of the columns, either: what is not asked for must not be in the way.
        for columns in [columns.clone(), columns.iter().copied().step_by(3).collect()] {
            let got = json.compute(&raw, &rows, &columns).expect("computes");
            for (got, column) in got.iter().zip(&columns) {
                let call = &calls[column - 1];
                let expected = call.evaluate(&batch).and_then(|v| v.into_array(texts.len())).expect("evaluates");
                let expected = take(&expected, &UInt32Array::from(rows.clone()), None).expect("takes");
                same(got, &expected, &rows, texts, &format!("SEED={seed} {call}"));
            }
        }
    }
}

fn same(got: &ArrayRef, expected: &ArrayRef, rows: &[u32], texts: &[Option<String>], what: &str) {
    assert_eq!(got.data_type(), expected.data_type(), "{what}");
    let shown = |array: &ArrayRef, at: usize| ScalarValue::try_from_array(array, at).expect("a value");
    for (at, row) in rows.iter().enumerate() {
        let (got, expected) = (shown(got, at), shown(expected, at));
        // Two NaN are alike.
        let equal = got == expected || format!("{got:?}") == format!("{expected:?}");
        assert!(equal, "{what} of {:?}: got {got:?}, expected {expected:?}", texts[*row as usize]);
    }
}

fn random_json(random: &mut StdRng, depth: u32, text: &mut String) {
    let scalars = [
        "1",
        "-7",
        "2.50",
        "1e3",
        "1e400",
        "123456789012345678901234567890",
        "true",
        "false",
        "null",
        "\"x\"",
        "\"\"",
        "\"\\u00e9\\n\"",
        "\"12\"",
        "\"true\"",
        "NaN",
        "01",
        "-",
        "\"open",
        "tru",
        "\"\\x\"",
    ];
    let space = |random: &mut StdRng, text: &mut String| {
        if random.random_ratio(1, 5) {
            text.push_str([" ", "\n\t", "  "].choose(random).expect("a choice"));
        }
    };
    space(random, text);
    match random.random_range(0..if depth == 0 { 1 } else { 4 }) {
        0 => {
            // Mostly values that are whole.
            let whole = if random.random_ratio(1, 12) { scalars.len() } else { 14 };
            text.push_str(scalars[random.random_range(0..whole)]);
        }
        1 => {
            text.push('[');
            for n in 0..random.random_range(0..4) {
                if n > 0 {
                    text.push(',');
                }
                random_json(random, depth - 1, text);
            }
            text.push(']');
        }
        _ => {
            text.push('{');
            for n in 0..random.random_range(0..6) {
                if n > 0 {
                    text.push(',');
                }
                space(random, text);
                let key = *KEYS.choose(random).expect("a choice");
                match random.random_ratio(1, 6) {
                    // The same key, written in another way.
                    true if key == "a" => text.push_str("\"\\u0061\""),
                    _ => text.push_str(&serde_json::to_string(key).expect("a key is text")),
                }
                space(random, text);
                text.push(':');
                random_json(random, depth - 1, text);
            }
            text.push('}');
        }
    }
    space(random, text);
}

fn random_path(random: &mut StdRng) -> Steps {
    let step = |random: &mut StdRng| match random.random_ratio(1, 4) {
        true => ScalarValue::Int64(Some(random.random_range(-3..4))),
        false => key(KEYS.choose(random).expect("a choice")),
    };
    (0..random.random_range(1..4)).map(|_| step(random)).collect()
}

#[test]
fn paths_are_followed_as_the_functions_follow_them() {
    let seed = seed();
    let random = &mut StdRng::seed_from_u64(seed);
    for _ in 0..20 {
        let paths: Vec<Steps> = (0..12).map(|_| random_path(random)).collect();
        let mut texts: Vec<Option<String>> = vec![None, Some(String::new()), Some("x".into())];
        for _ in 0..60 {
            let mut text = String::new();
            random_json(random, 4, &mut text);
            if random.random_ratio(1, 8) {
                let cut = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect::<Vec<_>>();
                text.truncate(*cut.choose(random).expect("a choice"));
            }
            texts.push(Some(text));
        }
        check(&texts, &paths, seed);
    }
}

#[test]
fn paths_into_events_as_they_come() {
    let seed = seed();
    let random = &mut StdRng::seed_from_u64(seed);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    for file in ["cloudtrail/invictus.ndjson", "kubernetes/falco_traces.ndjson", "falco/falco_docs.ndjson"] {
        let Ok(text) = std::fs::read_to_string(data.join(file)) else {
            println!("{file} is not here");
            continue;
        };
        let lines: Vec<&str> = text.lines().collect();
        let lines: Vec<&str> = lines.choose_multiple(random, 150).copied().collect();
        let mut paths: Vec<Steps> = Vec::new();
        while paths.len() < 25 {
            let line = lines.choose(random).expect("the file has lines");
            let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
            let mut path = Steps::new();
            descend(random, &value, &mut path);
            if !path.is_empty() {
                paths.push(path);
            }
        }
        check(&lines.iter().map(|line| Some((*line).to_owned())).collect::<Vec<_>>(), &paths, seed);
    }
}

/// Some way down into a value.
fn descend(random: &mut StdRng, value: &Value, path: &mut Steps) {
    if path.len() > 3 || (!path.is_empty() && random.random_ratio(1, 4)) {
        return;
    }
    match value {
        Value::Object(object) => {
            let keys: Vec<&String> = object.keys().collect();
            if let Some(name) = keys.choose(random) {
                path.push(key(name));
                descend(random, &object[name.as_str()], path);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let index = random.random_range(0..items.len());
            path.push(ScalarValue::Int64(Some(index as i64)));
            descend(random, &items[index], path);
        }
        _ => {}
    }
}
