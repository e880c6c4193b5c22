//! Functions on text: JSON that is one value or many, query parameters, paths, entropy; and one on their lists.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use datafusion::error::Result;
use serde_json::value::RawValue;

use super::{Args, Cell, Function, Takes, distinct, each};

type Texts = Vec<String>;

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::of_text("json_list", json_list),
        Function::new("url_params", &[Takes::Text, Takes::Text], Texts::data_type(), url_params),
        Function::of_text("norm_path", |path| Some(norm_path(path))),
        Function::of_text("shannon", |text| Some(shannon(text))),
        Function::new("list_after", &[Takes::List, Takes::Text], Texts::data_type(), list_after),
    ]
}

/// `json_list(text)`: the values of a field that vendors write as one value or as an array. Text stays, anything
/// else is its JSON; null is no value.
fn json_list(text: &str) -> Texts {
    let itself = || vec![text.to_owned()];
    match text.trim_start().bytes().next() {
        Some(b'[') => match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(items) => items.into_iter().filter_map(|item| plain(item.get())).collect(),
            Err(_) => itself(),
        },
        Some(b'"') => serde_json::from_str::<String>(text).map_or_else(|_| itself(), |text| vec![text]),
        Some(b'n') if text.trim() == "null" => Vec::new(),
        _ => itself(),
    }
}

fn plain(json: &str) -> Option<String> {
    match json.bytes().next() {
        Some(b'n') => None,
        // Half a surrogate pair is not text; its JSON still tells it from another.
        Some(b'"') => Some(serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())),
        _ => Some(json.to_owned()),
    }
}

/// `url_params(uri, name)`: the decoded values of a query parameter, in order.
fn url_params(args: &Args) -> Result<ArrayRef> {
    let uris = args.texts(0)?;
    if let Some(name) = args.constant(1) {
        return Ok(each(&uris, |uri| name.map_or_else(Texts::new, |name| values_of(uri, name))));
    }
    let names = args.texts(1)?;
    let (cells, rows) = distinct(uris.iter().zip(names.iter()), |(uri, name)| match (uri, name) {
        (Some(uri), Some(name)) => values_of(uri, name),
        _ => Texts::new(),
    });
    Ok(Texts::array(&cells, &rows))
}

fn values_of(uri: &str, name: &str) -> Texts {
    let uri = uri.split('#').next().unwrap_or_default();
    let Some((_, query)) = uri.split_once('?') else { return Texts::new() };
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(key, _)| form_decoded(key) == name).map(|(_, value)| form_decoded(value)).collect()
}

/// As HTML forms write it: `+` is a space.
fn form_decoded(text: &str) -> String {
    percent_decoded(&text.replace('+', " "))
}

/// What is no escape stays as it is; bytes that are not UTF-8 become U+FFFD.
pub(super) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match escape.and_then(|two| Some(hex(two[0])? << 4 | hex(two[1])?)) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

/// `norm_path(path)`: one slash where there are several, `.` and `..` resolved, no slash at the end. As the kernel
/// does it, the parent of the root is the root.
fn norm_path(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) if !path.is_empty() => ".".to_owned(),
        (false, _) => parts.join("/"),
    }
}

/// `shannon(text)`: bits per character of the distribution of its characters (Shannon 1948, equation for H).
pub(super) fn shannon(text: &str) -> f64 {
    let mut counts: HashMap<char, u32> = HashMap::new();
    text.chars().for_each(|c| *counts.entry(c).or_default() += 1);
    let mut counts: Vec<u32> = counts.into_values().collect();
    // Floating-point sums depend on their order, and the same text must always give the same number.
    counts.sort_unstable();
    let total = f64::from(counts.iter().sum::<u32>());
    counts.into_iter().map(|n| f64::from(n) / total).map(|p| -p * p.log2()).sum::<f64>().max(0.0)
}

/// `list_after(list, prefix)`: what follows the prefix, of the values that begin with it.
fn list_after(args: &Args) -> Result<ArrayRef> {
    let (lists, prefixes) = (args.lists(0)?, args.texts(1)?);
    let tails = |(list, prefix): (Texts, Option<&str>)| -> Texts {
        list.iter().filter_map(|text| text.strip_prefix(prefix?)).map(str::to_owned).collect()
    };
    let cells: Vec<Texts> = lists.into_iter().zip(prefixes.iter()).map(tails).collect();
    let rows: Vec<usize> = (0..cells.len()).collect();
    Ok(Texts::array(&cells, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_or_many_is_a_list() {
        let check = |text: &str, expected: &[&str]| assert_eq!(json_list(text), expected, "{text}");
        check("arn:aws:iam::1:root", &["arn:aws:iam::1:root"]);
        check(r#"["a","b\n",3,null,true,{"k":[1]},["x"]]"#, &["a", "b\n", "3", "true", r#"{"k":[1]}"#, r#"["x"]"#]);
        check(r#""quoted""#, &["quoted"]);
        check(r#"{"k":1}"#, &[r#"{"k":1}"#]);
        check("12345678901234567890123", &["12345678901234567890123"]);
        check("null", &[]);
        check("nullable", &["nullable"]);
        check("[]", &[]);
        check("", &[""]);
        check("a,b", &["a,b"]);
        check("[not json", &["[not json"]);
        check(r#""not json"#, &[r#""not json"#]);
        check(r#"["\ud800"]"#, &[r#""\ud800""#]);
        let deep = "[".repeat(100_000);
        check(&deep, &[&deep]);
    }

    #[test]
    fn query_parameters_are_decoded() {
        let check = |uri: &str, name: &str, expected: &[&str]| assert_eq!(values_of(uri, name), expected, "{uri}");
        let exec = "/api/v1/namespaces/a/pods/b/exec?command=sh&command=-c&command=cat+%2Fetc%2Fshadow&tty=true#x";
        check(exec, "command", &["sh", "-c", "cat /etc/shadow"]);
        check(exec, "tty", &["true"]);
        check(exec, "stdin", &[]);
        check("/x?c%6fmmand=id", "command", &["id"]);
        check("/x?a=1?a=2", "a", &["1?a=2"]);
        check("/x?a&a=&&=", "a", &["", ""]);
        check("/x?a=%zz%4", "a", &["%zz%4"]);
        check("/x?a=%ff", "a", &["\u{fffd}"]);
        check("/x#?a=1", "a", &[]);
        check("a=1", "a", &[]);
    }

    #[test]
    fn paths_are_resolved() {
        let check = |path: &str, expected: &str| assert_eq!(norm_path(path), expected, "{path}");
        check("/", "/");
        check("//var///run/", "/var/run");
        check("/var/log/../../etc/./kubernetes", "/etc/kubernetes");
        check("/../../..", "/");
        check("a/../../b", "../b");
        check("a/..", ".");
        check("", "");
        check(&"/..".repeat(50_000), "/");
    }

    #[test]
    fn entropy_is_per_character() {
        let check = |text: &str, expected: f64| assert!((shannon(text) - expected).abs() < 1e-9, "{text}");
        check("", 0.0);
        check("aaaa", 0.0);
        check("abab", 1.0);
        check("abcd", 2.0);
        check("äöüß", 2.0);
    }
}
