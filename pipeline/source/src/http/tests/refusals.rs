//! Every refusal with its status, code and shape; and that nothing of a refused request is kept.

use super::client::{exchange, post, request};
use super::*;

fn check(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let error = body["error"].as_object().unwrap();
    assert_eq!(error["code"], code);
    assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "hint", "message"]);
    assert!(error.values().all(|v| v.as_str().is_some_and(|text| !text.is_empty())), "{answer:?}");
    let retry = answer.headers.get("retry-after").map(String::as_str);
    assert_eq!(
        retry,
        match status {
            429 => Some("1"),
            503 => Some("5"),
            _ => None,
        }
    );
    assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
}

#[test]
fn each_refusal_says_what_to_do() {
    let setup = Setup::new();
    let server = setup.start();
    let to = |path: &str, headers: &str, body: &[u8]| post(server.address, path, headers, body);
    let k8s = "/v1/receive/kubernetes";
    let with = |header: &str| format!("{}{header}\r\n", bearer());

    check(&to(k8s, &bearer(), b"{\"kind\":"), 400, "not_json");
    check(&to(k8s, &bearer(), b""), 400, "empty");
    check(&to(k8s, &with("content-encoding: gzip"), b"{}"), 400, "bad_gzip");
    check(&to(k8s, "", b"{}"), 401, "unauthorized");
    check(&to(k8s, "authorization: Bearer kubernetes-secreT\r\n", b"{}"), 401, "unauthorized");
    check(&to("/v1/receive/falco/falco-secret-16c", "", b"{}"), 401, "unauthorized");
    check(&to("/v1/receive/falco", &bearer(), b"{}"), 403, "wrong_source");
    check(&to("/v1/receive/gcp", &bearer(), b"{}"), 404, "not_found");
    check(&to("/", "", b""), 404, "not_found");
    check(&exchange(server.address, &request("GET", k8s, &bearer(), b"")), 405, "method_not_allowed");
    check(&to(k8s, &with("content-encoding: br"), b"{}"), 415, "unsupported_encoding");
    check(&to(k8s, &with("content-type: application/x-www-form-urlencoded"), b"{}"), 415, "unsupported_type");
    check(&to(k8s, &with("content-type: \u{fc}"), b"{}"), 415, "unsupported_type");
    check(&to(k8s, &with("content-encoding: gzip"), &gzip(&b" ".repeat(64 << 20))), 413, "too_large");
    let livez = exchange(server.address, &request("GET", "/livez", "", b""));
    assert_eq!((livez.status, livez.body.as_str()), (200, "ok\n"));
    assert_eq!(setup.kept(), []);

    let byte = to(k8s, &bearer(), b"{\"kind\" 1}");
    assert!(byte.body.contains("expected `:` at byte 8"), "{byte:?}");
}

#[test]
fn what_cannot_be_kept_is_not_acknowledged() {
    let setup = Setup::new();
    let server = setup.start();
    let cases = [
        (NotKept::Busy, 503, "not_durable"),
        (NotKept::Backlog { bytes: 2, bytes_max: 1 }, 503, "backlog"),
        (NotKept::DiskFull("/secret/path is full".into()), 503, "disk_full"),
        (NotKept::Failed("/secret/path failed".into()), 503, "not_durable"),
        (NotKept::TooLarge("a record is too large".into()), 413, "too_large"),
    ];
    for (why, status, code) in cases {
        *setup.sink.refuse.lock().unwrap() = Some(why);
        let answer = post(server.address, "/v1/receive/kubernetes", &bearer(), b"{}");
        check(&answer, status, code);
        assert!(!answer.body.contains("/secret/path"), "paths are the operator's: {answer:?}");
    }
    *setup.sink.refuse.lock().unwrap() = None;
    assert_eq!(post(server.address, "/v1/receive/kubernetes", &bearer(), b"{}").status, 200);
}

#[test]
fn a_record_that_is_not_kept_in_time_is_not_acknowledged() {
    let mut setup = Setup::new();
    setup.limits.ack_timeout = Duration::from_millis(50);
    setup.sink.hold.store(true, Ordering::SeqCst);
    let server = setup.start();
    check(&post(server.address, "/v1/receive/kubernetes", &bearer(), b"{}"), 503, "not_durable");
}

#[test]
fn a_sender_that_is_still_writing_reads_the_refusal() {
    let setup = Setup::new();
    let server = setup.start();
    let large = b" ".repeat(16 << 20);
    check(&post(server.address, "/v1/receive/kubernetes", &bearer(), &large), 413, "too_large");
    check(&post(server.address, "/v1/receive/kubernetes", "", &large[..1 << 20]), 401, "unauthorized");
    // One that asks first is told before it sends.
    let asks = format!(
        "POST /v1/receive/kubernetes HTTP/1.1\r\nhost: x\r\n{}expect: 100-continue\r\ncontent-length: 99999999\r\n\r\n",
        bearer()
    );
    let started = std::time::Instant::now();
    check(&exchange(server.address, asks.as_bytes()), 413, "too_large");
    assert!(started.elapsed() < Duration::from_secs(2));
}
