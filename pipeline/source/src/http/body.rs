//! From the bytes of a body to the bytes of a record: decompressed within bounds, and JSON. Pure.

use std::io::Read;

use axum::http::StatusCode;
use flate2::bufread::MultiGzDecoder;
use serde::de::IgnoredAny;

use super::Refusal;

/// Senders of the formats at hand reach 10 to 30, the most repetitive real lists somewhat over 100.
const GZIP_RATIO_MAX: usize = 200;
/// Up to this size the ratio does not matter.
const GZIP_FREE_BYTES: usize = 1 << 20;
/// Decompressed bytes are reserved in steps of at least this size.
const GZIP_STEP_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Before and after decompression.
    pub body_bytes_max: usize,
}

/// The record that a body becomes, byte for byte as it was before it was compressed. `reserve` is asked before memory
/// for that many decompressed bytes is taken; where it says no, the answer is 429.
pub fn check_body(
    content_type: Option<&str>,
    encoding: Option<&str>,
    bytes: Vec<u8>,
    limits: &BodyLimits,
    reserve: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<u8>, Refusal> {
    check_type(content_type)?;
    let encoding = Encoding::of(encoding)?;
    if bytes.len() > limits.body_bytes_max {
        return Err(too_large(bytes.len(), limits));
    }
    let text = match encoding {
        Encoding::Plain => bytes,
        Encoding::Gzip => gunzip(&bytes, limits, reserve)?,
    };
    check_json(&text)?;
    Ok(text)
}

pub(super) fn too_large(bytes: usize, limits: &BodyLimits) -> Refusal {
    Refusal::too_large(
        format!("the body has {bytes} bytes, more than the {} that are taken", limits.body_bytes_max),
        "send smaller batches, or raise `body_max` of the receivers",
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
}

impl Encoding {
    pub(super) fn of(header: Option<&str>) -> Result<Encoding, Refusal> {
        let named = header.map(str::trim).unwrap_or_default();
        let is = |name: &str| named.eq_ignore_ascii_case(name);
        if named.is_empty() || is("identity") {
            return Ok(Encoding::Plain);
        }
        if is("gzip") || is("x-gzip") {
            return Ok(Encoding::Gzip);
        }
        Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            format!("content-encoding `{}` is not understood", shown(named)),
            "send the body plain or with `Content-Encoding: gzip`",
        ))
    }
}

/// JSON under its many names; senders that name nothing, or text, are taken at their bytes.
pub(super) fn check_type(header: Option<&str>) -> Result<(), Refusal> {
    let named = header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = named.strip_prefix("application/");
    let json = subtype.is_some_and(|s| {
        matches!(s, "json" | "x-json" | "x-ndjson" | "ndjson" | "jsonlines" | "x-jsonlines" | "octet-stream")
            || s.ends_with("+json")
    });
    if named.is_empty() || json || matches!(named.as_str(), "text/plain" | "text/json") {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_type",
        format!("content-type `{}` is not JSON", shown(&named)),
        "send JSON with `Content-Type: application/json`",
    ))
}

/// Of what a stranger wrote, as much as helps.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

fn gunzip(bytes: &[u8], limits: &BodyLimits, reserve: &mut dyn FnMut(usize) -> bool) -> Result<Vec<u8>, Refusal> {
    let by_ratio = bytes.len().saturating_mul(GZIP_RATIO_MAX).max(GZIP_FREE_BYTES);
    let allowed = by_ratio.min(limits.body_bytes_max);
    let mut decoder = MultiGzDecoder::new(bytes);
    let mut text: Vec<u8> = Vec::new();
    loop {
        let filled = text.len();
        // One byte more than allowed tells a text that ends there from one that goes on.
        let step = GZIP_STEP_BYTES.max(filled / 2).min(allowed + 1 - filled);
        if !reserve(step) {
            return Err(Refusal::busy());
        }
        text.reserve_exact(step);
        text.resize(filled + step, 0);
        let got = fill(&mut decoder, &mut text[filled..]).map_err(|error| {
            Refusal::bad(
                "bad_gzip",
                format!("the body is not whole gzip: {error}"),
                "was it compressed and sent whole?",
            )
        })?;
        text.truncate(filled + got);
        if text.len() > allowed {
            let what =
                if allowed < limits.body_bytes_max { "unreasonably more than it is compressed" } else { "too much" };
            return Err(Refusal::too_large(
                format!("the body is over {allowed} bytes once decompressed, {what}"),
                "send smaller batches, or raise `body_max` of the receivers",
            ));
        }
        if got < step {
            return Ok(text);
        }
    }
}

/// Reads until `buffer` is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// One or several objects or lists, separated by white space or not at all, as normalize reads them. What stands in
/// strings is not looked at: a sender's broken UTF-8 is evidence too.
fn check_json(text: &[u8]) -> Result<(), Refusal> {
    let mut at = skip_blank(text, 0);
    if at == text.len() {
        return Err(Refusal::bad("empty", "the body is empty", "send one event, a list of them, or one a line"));
    }
    while at < text.len() {
        if !matches!(text[at], b'{' | b'[') {
            return Err(not_json("expected an object or a list", at));
        }
        let rest = &text[at..];
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(IgnoredAny)) => at = skip_blank(text, at + values.byte_offset()),
            Some(Err(error)) => {
                let full = error.to_string();
                let what = full.rfind(" at line ").map_or(full.as_str(), |end| &full[..end]);
                return Err(not_json(what, at + error_offset(rest, &error)));
            }
            None => return Err(not_json("expected an object or a list", at)),
        }
    }
    Ok(())
}

fn not_json(what: &str, byte: usize) -> Refusal {
    Refusal::bad(
        "not_json",
        format!("the body is not JSON: {what} at byte {byte}"),
        "send JSON or one JSON object a line; Falco needs `json_output: true`",
    )
}

/// Behind white space and byte order marks.
fn skip_blank(text: &[u8], mut at: usize) -> usize {
    loop {
        match &text[at..] {
            [b' ' | b'\t' | b'\r' | b'\n', ..] => at += 1,
            [0xef, 0xbb, 0xbf, ..] => at += 3,
            _ => return at,
        }
    }
}

/// serde_json says line and column, both from 1.
fn error_offset(text: &[u8], error: &serde_json::Error) -> usize {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => memchr::memchr_iter(b'\n', text).nth(line - 2).map_or(0, |newline| newline + 1),
    };
    (line_start + error.column().saturating_sub(1)).min(text.len())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits { body_bytes_max: 4 << 20 };

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn check(encoding: &str, bytes: &[u8], expected: Result<&[u8], (u16, &str, &str)>) {
        let got = check_body(None, Some(encoding), bytes.to_vec(), &LIMITS, &mut |_| true);
        match (&got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err((status, code, part))) => {
                assert_eq!((got.status.as_u16(), got.code), (status, code), "{got:?}");
                assert!(got.message.contains(part), "{got:?}");
            }
            _ => panic!("{}: {got:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)])),
        }
    }

    #[test]
    fn json_is_taken_byte_for_byte() {
        for text in [
            r#"{"kind":"EventList","items":[]}"#,
            " [1, 2]\n",
            "{\"a\":1}\n\n{\"b\":2}\r\n",
            "{}{}",
            "\u{feff}{\"a\":\"\u{1f600}\"}\n\u{feff}{}",
            "{\n  \"a\": [\n    1e999\n  ]\n}",
        ] {
            check("", text.as_bytes(), Ok(text.as_bytes()));
            check("GZIP", &gzip(text.as_bytes()), Ok(text.as_bytes()));
        }
        check("identity", b"{\"a\":\"\xff\xfe\"}", Ok(b"{\"a\":\"\xff\xfe\"}"));
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        check("", &deep, Ok(&deep));
        let two = [gzip(b"{}\n"), gzip(b"[]")].concat();
        check("gzip", &two, Ok(b"{}\n[]"));
    }

    #[test]
    fn what_is_not_json_is_named_by_its_byte() {
        check("", b"", Err((400, "empty", "the body is empty")));
        check("", b" \n\t", Err((400, "empty", "the body is empty")));
        check("", b"hello", Err((400, "not_json", "expected an object or a list at byte 0")));
        check("", b"{}\n 42", Err((400, "not_json", "expected an object or a list at byte 4")));
        check("", b"{\"a\":1}\n{\"b\" 2}", Err((400, "not_json", "expected `:` at byte 13")));
        check("", b"{\n\n\"a\": x}", Err((400, "not_json", "expected value at byte 8")));
        check("", b"{\"a\":[1,2", Err((400, "not_json", "EOF while parsing a list at byte 8")));
        check("", b"{\"a\":\"\0\"}", Err((400, "not_json", "control character")));
        check("", b"\x1f\x8b\x08", Err((400, "not_json", "at byte 0")));
    }

    #[test]
    fn gzip_is_bounded_in_size_and_in_ratio() {
        check("gzip", b"{}", Err((400, "bad_gzip", "not whole gzip")));
        let whole = gzip(b"{\"a\":1}");
        check("gzip", &whole[..whole.len() - 4], Err((400, "bad_gzip", "not whole gzip")));
        check("gzip", &[whole.clone(), b"junk".to_vec()].concat(), Err((400, "bad_gzip", "not whole gzip")));
        check("gzip", &gzip(b""), Err((400, "empty", "empty")));
        let spaces = |bytes: usize| gzip(&[b" ".repeat(bytes - 2), b"{}".to_vec()].concat());
        check("gzip", &spaces(3 << 20), Err((413, "too_large", "unreasonably more")));
        check("gzip", &spaces(1 << 20), Ok(&[b" ".repeat((1 << 20) - 2), b"{}".to_vec()].concat()));
        check("gzip", &spaces(1 << 30), Err((413, "too_large", "too much")));
    }

    #[test]
    fn the_limit_is_exact_and_memory_is_asked_for_first() {
        let limits = BodyLimits { body_bytes_max: 100_000 };
        let text = |bytes: usize| [b"[".to_vec(), b" ".repeat(bytes - 2), b"]".to_vec()].concat();
        for (bytes, fits) in [(100_000, true), (100_001, false)] {
            for (encoding, body) in [(None, text(bytes)), (Some("gzip"), gzip(&text(bytes)))] {
                let mut reserved = 0;
                let got = check_body(None, encoding, body, &limits, &mut |step| {
                    reserved += step;
                    true
                });
                assert_eq!(
                    got.as_ref().map_err(|r| r.status.as_u16()).map(Vec::len),
                    if fits { Ok(bytes) } else { Err(413) }
                );
                assert!(reserved <= limits.body_bytes_max + 1, "{reserved}");
                assert!(got.is_err() || encoding.is_none() || reserved >= bytes);
            }
        }
        let refused = check_body(None, Some("gzip"), gzip(&text(90_000)), &limits, &mut |_| false).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.retry_after_seconds), (429, Some(1)));
    }

    #[test]
    fn types_and_encodings_of_others_are_refused_politely() {
        let of = |kind: &str| check_type(Some(kind)).map_err(|r| (r.status.as_u16(), r.code));
        for kind in
            ["application/json; charset=utf-8", "Application/JSON", "application/cloudevents+json", "text/plain", ""]
        {
            assert_eq!(of(kind), Ok(()), "{kind}");
        }
        for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/html"] {
            assert_eq!(of(kind), Err((415, "unsupported_type")), "{kind}");
        }
        check("br", b"{}", Err((415, "unsupported_encoding", "`br`")));
        check("gzip, gzip", b"{}", Err((415, "unsupported_encoding", "gzip, gzip")));
    }

    /// A short stand-in for the fuzz target, which goes on for longer.
    #[test]
    fn whatever_comes_is_taken_whole_or_refused() {
        use rand::rngs::StdRng;
        use rand::{Rng, SeedableRng};
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let limits = BodyLimits { body_bytes_max: 4096 };
        let text = b"\xef\xbb\xbf{\"a\":[1,-2.5e3,\"\\u00e9\",null]}\n[{\"b\":{}},true]\r\n{}".to_vec();
        for _ in 0..20_000 {
            let zipped = rng.random_bool(0.5);
            let mut body = if zipped { gzip(&text.repeat(rng.random_range(1..200))) } else { text.clone() };
            for _ in 0..rng.random_range(0..4) {
                let at = rng.random_range(0..body.len());
                match rng.random_range(0..3) {
                    0 => body[at] = rng.random(),
                    1 => body.truncate(at + 1),
                    _ => body.insert(at, rng.random()),
                }
            }
            let sent = body.clone();
            let mut reserved = 0;
            let got = check_body(None, zipped.then_some("gzip"), body, &limits, &mut |step| {
                reserved += step;
                true
            });
            assert!(reserved <= limits.body_bytes_max + 1, "seed {seed}: {reserved}");
            match got {
                Ok(record) => assert!(zipped && record.len() <= limits.body_bytes_max || record == sent, "seed {seed}"),
                Err(refusal) => assert!(matches!(refusal.status.as_u16(), 400 | 413), "seed {seed}: {refusal:?}"),
            }
        }
    }
}
