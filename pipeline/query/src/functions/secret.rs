//! `redacted_match`: credentials in text that should have none. What it returns can be shown in a finding: enough
//! to tell which credential it is, with the secret part masked. Time is linear in the text.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::text::shannon;
use super::{Args, Cell, Function, Known, Takes, distinct, refused};
use crate::{Problem, nearest};
use arrow::array::ArrayRef;
use datafusion::error::Result;

const MASK: &str = "****";

/// Bits per character above which a value looks made by a machine, and its length in bytes at least.
const ENTROPY_MIN: f64 = 3.5;
const PASSWORD_BYTES_MIN: usize = 9;

/// How far apart the halves of an AWS key may stand: two lines of a file, two keys of a ConfigMap.
const PAIR_BYTES_MAX: usize = 300;

/// All classes; the first that matches is the answer.
const ANY: &str = "any";

struct Class {
    name: &'static str,
    pattern: LazyLock<Regex>,
    /// The match as it is shown; `None` when it is none after all.
    show: fn(&Captures, &str) -> Option<String>,
}

macro_rules! class {
    ($name:literal, $pattern:literal, $show:expr) => {
        Class { name: $name, pattern: LazyLock::new(|| Regex::new($pattern).expect("a valid pattern")), show: $show }
    };
}

/// The first group is what is shown, a mask what follows it, the second group what is shown after that.
fn groups(captures: &Captures, _: &str) -> Option<String> {
    let group = |n: usize| captures.get(n).map_or("", |m| m.as_str());
    Some(format!("{}{MASK}{}", group(1), group(2)))
}

static CLASSES: [Class; 11] = [
    class!("aws-key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", aws_pair),
    class!("aws-key-id", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", |found, _| Some(found[0].to_owned())),
    class!("private-key", r"(-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)", groups),
    class!("github-token", r"\b(gh[pousr]_|github_pat_)[A-Za-z0-9_]{22,255}", groups),
    class!("gitlab-token", r"\b(gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent)-)[A-Za-z0-9_.-]{20,}", groups),
    class!("slack-token", r"\b(xox[abeoprs]-|https://hooks\.slack\.com/services/)[A-Za-z0-9/-]{10,}", groups),
    class!("google-key", r"\b(AIza)[A-Za-z0-9_-]{35}", groups),
    class!("jwt", r"\b(eyJ)[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}", groups),
    class!("bearer-token", r"(?i)\b(bearer )\s*[a-z0-9._~+/-]{16,}=*", groups),
    class!(
        "connection-string",
        r#"(?i)(\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@"'\\]{0,64}:)[^\s/@"'\\]{3,256}(@[a-z0-9._\[\]-]{1,253})|\b(?:AccountKey|SharedAccessKey)=[a-z0-9+/]{20,}=*"#,
        connection
    ),
    class!(
        "password-assignment",
        r#"(?i)([a-z0-9_.-]{0,40}(?:passwd|password|passphrase|pwd))[\\"']{0,4}\s{0,8}[:=]\s{0,8}[\\"']{0,4}([^\s"'\\&;,]{9,512})"#,
        password
    ),
];

pub(super) fn functions() -> Vec<Function> {
    let takes = [Takes::Text, Takes::Text];
    let function = Function::new("redacted_match", &takes, Option::<String>::data_type(), redacted_match);
    vec![function.constants(|known| constant_class(known).map(drop))]
}

/// `redacted_match(text, class)`.
fn redacted_match(args: &Args) -> Result<ArrayRef> {
    let texts = args.texts(0)?;
    let classes = constant_class(&args.known()).map_err(refused)?;
    let (cells, rows) = distinct(texts.iter(), |text| text.and_then(|text| found(text, &classes)));
    Ok(Option::<String>::array(&cells, &rows))
}

/// The class is part of the rule: a column for it would hide a slip until it matters.
fn constant_class(known: &[Known]) -> Result<Vec<&'static Class>, Problem> {
    let names = || CLASSES.iter().map(|c| c.name).chain([ANY]);
    let Some(name) = known[1] else {
        let list = names().collect::<Vec<_>>().join(", ");
        return Err(Problem::new("`redacted_match` takes a constant class").hint(format!("one of {list}")));
    };
    let classes: Vec<&Class> = CLASSES.iter().filter(|c| c.name == name || name == ANY).collect();
    if classes.is_empty() {
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of {}", names().collect::<Vec<_>>().join(", ")),
        };
        return Err(Problem::new(format!("unknown class `{name}` of secrets")).hint(hint));
    }
    Ok(classes)
}

fn found(text: &str, classes: &[&Class]) -> Option<String> {
    classes.iter().find_map(|class| {
        let shown = class.pattern.captures_iter(text).find_map(|captures| (class.show)(&captures, text))?;
        Some(if classes.len() > 1 { format!("{}: {shown}", class.name) } else { shown })
    })
}

/// The id of a key is no secret; it counts with the secret half nearby: 40 characters of base64 that vary.
fn aws_pair(captures: &Captures, text: &str) -> Option<String> {
    let id = captures.get(0)?;
    let from = id.start().saturating_sub(PAIR_BYTES_MAX);
    let to = (id.end() + PAIR_BYTES_MAX).min(text.len());
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || b"/+".contains(b);
    let mut runs = text.as_bytes()[from..to].split(|b| !is_base64(b));
    let secret = runs.any(|run| {
        run.len() == 40 && std::str::from_utf8(run).is_ok_and(|run| shannon(run) > ENTROPY_MIN) && is_mixed(run)
    });
    secret.then(|| format!("{} {MASK}", id.as_str()))
}

/// Not a hex digest, which has no capitals (or only those).
fn is_mixed(run: &[u8]) -> bool {
    run.iter().any(u8::is_ascii_lowercase) && run.iter().any(u8::is_ascii_uppercase)
}

fn connection(captures: &Captures, text: &str) -> Option<String> {
    match captures.get(1) {
        Some(_) => groups(captures, text),
        None => captures[0].split_once('=').map(|(key, _)| format!("{key}={MASK}")),
    }
}

fn password(captures: &Captures, _: &str) -> Option<String> {
    let value = &captures[2];
    // `$(PASSWORD)`, `{{ .Values.password }}` and `<password>` stand for a secret that is elsewhere.
    let is_reference = value.starts_with(['$', '{', '<', '(', '[', '*']);
    let is_secret = value.len() >= PASSWORD_BYTES_MIN && shannon(value) > ENTROPY_MIN && !is_reference;
    is_secret.then(|| format!("{}={MASK}", &captures[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In two parts, so that scanners of repositories do not take the tests for leaks.
    fn token(prefix: &str, rest: &str) -> String {
        format!("{prefix}{rest}")
    }

    fn check(class: &str, text: &str, expected: Option<&str>) {
        let classes = constant_class(&[None, Some(class)]).expect("a known class");
        assert_eq!(found(text, &classes).as_deref(), expected, "{class}: {text}");
    }

    #[test]
    fn secrets_are_found_and_masked() {
        let id = token("AKIA", "IOSFODNN7EXAMPLE");
        let secret = token("wJalrXUtnFEMI/K7MDENG/", "bPxRfiCYEXAMPLEKEY");
        let data = format!(r#"{{"aws_access_key_id":"{id}","aws_secret_access_key":"{secret}"}}"#);
        check("aws-key", &data, Some(&format!("{id} ****")));
        check("aws-key", &id, None);
        check("aws-key", &format!("{id} {}", "0123456789abcdef0123".repeat(2)), None);
        check("aws-key-id", &id, Some(&id));
        check("aws-key-id", &format!("X{id}"), None);
        let pem = token("-----BEGIN RSA PRIVATE", " KEY-----\nMIIE…\n");
        check("private-key", &pem, Some(&token("-----BEGIN RSA PRIVATE", " KEY-----****")));
        check("private-key", "-----BEGIN CERTIFICATE-----", None);
        check("github-token", &token("ghp_", &"aB3".repeat(12)), Some("ghp_****"));
        check("gitlab-token", &token("glpat-", &"aB3_".repeat(5)), Some("glpat-****"));
        check("slack-token", &token("xoxb-", "123456789012-abc"), Some("xoxb-****"));
        check("google-key", &token("AIza", &"Sy9_-".repeat(7)), Some("AIza****"));
        let jwt = token("eyJhbGciOiJIUzI1NiJ9.", "eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl");
        check("jwt", &jwt, Some("eyJ****"));
        check("bearer-token", "Authorization: Bearer 0123456789abcdef==", Some("Bearer ****"));
        check("bearer-token", "bearer of good news", None);
        let dsn = "postgres://app:hunter2@db.prod.internal:5432/orders";
        check("connection-string", dsn, Some("postgres://app:****@db.prod.internal"));
        check("connection-string", "https://example.com:8443/a@b", None);
        check("connection-string", &format!("x;AccountKey={}==;y", "aB3/".repeat(20)), Some("AccountKey=****"));
        check("any", dsn, Some("connection-string: postgres://app:****@db.prod.internal"));
        check("any", "nothing to see", None);
    }

    #[test]
    fn passwords_are_values_that_look_random() {
        let strong = "aX7#qLp2!vRt9$wZ";
        check("password-assignment", &format!("DB_PASSWORD={strong}"), Some("DB_PASSWORD=****"));
        check("password-assignment", &format!(r#"{{"password": "{strong}"}}"#), Some("password=****"));
        check("password-assignment", &format!(r#"{{\"passwd\":\"{strong}\"}}"#), Some("passwd=****"));
        check("password-assignment", &format!("password: changeme12 password: {strong}"), Some("password=****"));
        check("password-assignment", "password=aaaaaaaaaaaaaaaa", None);
        check("password-assignment", "password=$(cat /run/secrets/db-1A2b3C)", None);
        check("password-assignment", "password={{ .Values.database.password }}", None);
        check("password-assignment", "passwordSecretRef: database-credentials-7Gh2", None);
    }

    #[test]
    fn hostile_text_costs_linear_time() {
        let started = std::time::Instant::now();
        for piece in ["AKIAIOSFODNN7EXAMPLE ", "eyJ", "password=", "a://b:", "-----BEGIN A ", "Bearer ", "xoxb-"] {
            let classes = constant_class(&[None, Some("any")]).expect("a known class");
            let long = piece.repeat(200_000 / piece.len());
            assert!(found(&long, &classes).is_none_or(|shown| shown.len() < 100), "{piece}");
        }
        let seconds = started.elapsed().as_secs();
        assert!(seconds < 60, "{seconds} s for 1.4 MB");
    }

    #[test]
    fn classes_are_checked() {
        let check = |class: Option<&str>, expected: &str| {
            let problem = constant_class(&[None, class]).err().expect("refused").to_string();
            assert!(problem.contains(expected), "{problem}");
        };
        check(Some("aws-keys"), "did you mean `aws-key`?");
        check(Some("nonsense"), "one of aws-key, aws-key-id");
        check(None, "takes a constant class");
    }
}
