//! What a request's URI says: its path, and the parameters that exec and dry runs have.
//! https://kubernetes.io/docs/reference/using-api/api-concepts/

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;

/// The path as the server reads it: without the query, `%2F` and its like decoded once.
pub(crate) fn path(uri: &str) -> Cow<'_, str> {
    decoded(split(uri).0, false)
}

/// The values of `command` of an exec or attach, which are its argv. `None` for other requests and without a command.
pub(crate) fn exec_argv(uri: &str) -> Option<Vec<Cow<'_, str>>> {
    let (path, query) = split(uri);
    if query.is_empty() {
        return None;
    }
    let last = path.trim_end_matches('/').rsplit('/').next()?;
    let by_kubelet = |at: usize| path[at..].starts_with("/exec/") || path[at..].starts_with("/run/");
    if !matches!(last, "exec" | "attach") && !memchr::memchr_iter(b'/', path.as_bytes()).any(by_kubelet) {
        return None;
    }
    let argv: Vec<_> =
        parameters(query).filter(|(name, _)| matches!(&**name, "command" | "cmd")).map(|(_, v)| v).collect();
    (!argv.is_empty()).then_some(argv)
}

/// Does the query ask for nothing to be stored?
pub(crate) fn is_dry_run(uri: &str) -> bool {
    let query = split(uri).1;
    // Without an escape the name stands there as it is. Few URIs get further.
    static NAME: LazyLock<Finder> = LazyLock::new(|| Finder::new("dryRun"));
    let bytes = query.as_bytes();
    let may_be = !bytes.is_empty() && (NAME.find(bytes).is_some() || memchr::memchr(b'%', bytes).is_some());
    may_be && parameters(query).any(|(name, value)| name == "dryRun" && !value.is_empty())
}

/// The first value of a parameter.
pub(crate) fn parameter<'u>(uri: &'u str, name: &str) -> Option<Cow<'u, str>> {
    parameters(split(uri).1).find(|(n, _)| n == name).map(|(_, value)| value)
}

fn split(uri: &str) -> (&str, &str) {
    memchr::memchr(b'?', uri.as_bytes()).map_or((uri, ""), |mark| (&uri[..mark], &uri[mark + 1..]))
}

fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name, true), decoded(value, true))
    })
}

/// Percent escapes decoded, and `+` as a space in a query. What is no escape, or does not give UTF-8, stays.
fn decoded(text: &str, query: bool) -> Cow<'_, str> {
    let plus = if query { b'+' } else { b'%' };
    if memchr::memchr2(b'%', plus, text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = bytes.get(at + 1..at + 3).and_then(|digits| hex(digits[0]).zip(hex(digits[1])));
        match (byte, escaped) {
            (b'%', Some((high, low))) => {
                out.push(high << 4 | low);
                at += 3;
                continue;
            }
            (b'+', _) if query => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_paths_and_parameters() {
        let check = |uri, expected: &str| assert_eq!(path(uri), expected, "{uri}");
        check("/api/v1/pods?watch=1", "/api/v1/pods");
        check("/api/v1/nodes/n/proxy/%72un%2Fa?x=%41", "/api/v1/nodes/n/proxy/run/a");
        check("/a+b%", "/a+b%");
        check("/%ff%zz", "/%ff%zz");
        let check = |uri: &str, expected: Option<&[&str]>| {
            assert_eq!(exec_argv(uri), expected.map(|argv| argv.iter().map(|a| Cow::Borrowed(*a)).collect()), "{uri}");
        };
        let pod = "/api/v1/namespaces/web/pods/p";
        check(
            &format!("{pod}/exec?command=sh&command=-c&command=cat+%2Fetc%2Fshadow&stdin=true"),
            Some(&["sh", "-c", "cat /etc/shadow"]),
        );
        check(&format!("{pod}/exec?container=c"), None);
        check(&format!("{pod}?command=sh"), None);
        check("/api/v1/nodes/n/proxy/run/ns/p/c?cmd=id", Some(&["id"]));
        check("", None);
        assert!(is_dry_run(&format!("{pod}?dryRun=All")) && !is_dry_run(&format!("{pod}?dryRun=")) && !is_dry_run(pod));
        assert_eq!(parameter("/x?a=1&container=c%20d", "container").as_deref(), Some("c d"));
    }
}
