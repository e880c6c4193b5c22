//! Slow, greedy and many senders.

use std::io::{Read, Write};

use super::client::{connect, exchange, read, request};
use super::*;

#[test]
fn slow_senders_are_let_go() {
    let mut setup = Setup::new();
    setup.listen.head_timeout = Duration::from_millis(300);
    setup.limits.body_timeout = Duration::from_millis(300);
    let server = setup.start();

    let mut head = connect(server.address);
    head.write_all(b"POST /v1/receive/kubernetes HTTP/1.1\r\nhost:").unwrap();
    let mut rest = Vec::new();
    let _ = head.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 2"), "ended by the server");

    let mut body = connect(server.address);
    let whole = request("POST", "/v1/receive/kubernetes", &bearer(), b"{\"a\":1}");
    body.write_all(&whole[..whole.len() - 1]).unwrap();
    let answer = read(&mut body);
    assert_eq!(answer.status, 408, "{answer:?}");
    assert!(answer.body.contains("\"timeout\""));

    // A trickle is as slow as a pause.
    let mut trickle = connect(server.address);
    trickle.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    trickle.write_all(&request("POST", "/v1/receive/kubernetes", &bearer(), &[b' '; 100_000])[..300]).unwrap();
    let (started, mut byte) = (std::time::Instant::now(), [0]);
    while trickle.read(&mut byte).is_err() {
        assert!(started.elapsed() < Duration::from_secs(15), "a trickle is read for ever");
        let _ = trickle.write_all(b" ");
    }
    assert_eq!(setup.kept(), []);
}

#[test]
fn who_never_reads_answers_is_let_go() {
    let mut setup = Setup::new();
    setup.listen.connections_max = 1;
    setup.listen.head_timeout = Duration::from_millis(500);
    let server = setup.start();
    let mut deaf = connect(server.address);
    deaf.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let requests = "GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    // Until both sides' buffers are full of answers and requests that nobody reads, and then until it is cut off.
    let started = std::time::Instant::now();
    let mut sent = 0;
    let cut_off = loop {
        match deaf.write(&requests.as_bytes()[sent..]) {
            Ok(more) => sent = (sent + more) % requests.len(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => break error,
        }
        assert!(started.elapsed() < Duration::from_secs(60), "held for ever");
    };
    assert!(
        matches!(cut_off.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
        "{cut_off}"
    );
    assert_eq!(post(server.address, "/v1/receive/kubernetes", &bearer(), b"{}").status, 200);
}

#[test]
fn bytes_in_flight_are_bounded_and_come_back() {
    let mut setup = Setup::new();
    setup.limits.in_flight_bytes_max = 1 << 20;
    setup.sink.hold.store(true, Ordering::SeqCst);
    let server = setup.start();
    let address = server.address;
    let body = [b"[".to_vec(), b" ".repeat(400_000), b"]".to_vec()].concat();
    let send = {
        let body = body.clone();
        move || post(address, "/v1/receive/kubernetes", &bearer(), &body)
    };
    let waiting: Vec<_> = (0..2).map(|_| std::thread::spawn(send.clone())).collect();
    setup.sink.wait_for(2);
    let third = send();
    assert_eq!((third.status, third.headers["retry-after"].as_str()), (429, "1"), "{third:?}");
    // What grows only once it is decompressed is bounded as well.
    let zipped =
        post(address, "/v1/receive/kubernetes", &format!("{}content-encoding: gzip\r\n", bearer()), &gzip(&body));
    assert_eq!(zipped.status, 429, "{zipped:?}");
    setup.sink.release();
    for sender in waiting {
        assert_eq!(sender.join().unwrap().status, 200);
    }
    setup.sink.hold.store(false, Ordering::SeqCst);
    assert_eq!(send().status, 200);
    assert_eq!(setup.kept().len(), 1, "the refused ones were not kept");
}

#[test]
fn a_sender_in_line_gets_the_room_of_another() {
    let mut setup = Setup::new();
    setup.limits.in_flight_bytes_max = 1 << 20;
    setup.sink.hold.store(true, Ordering::SeqCst);
    let server = setup.start();
    let address = server.address;
    let body = [b"[".to_vec(), b" ".repeat(800_000), b"]".to_vec()].concat();
    let send = move || post(address, "/v1/receive/kubernetes", &bearer(), &body);
    let first = std::thread::spawn(send.clone());
    setup.sink.wait_for(1);
    let second = std::thread::spawn(send);
    setup.sink.release();
    assert_eq!(first.join().unwrap().status, 200);
    setup.sink.wait_for(2);
    setup.sink.release();
    assert_eq!(second.join().unwrap().status, 200);
}

#[test]
fn connections_beyond_the_bound_wait() {
    let mut setup = Setup::new();
    setup.listen.connections_max = 2;
    let server = setup.start();
    let (first, second) = (connect(server.address), connect(server.address));
    let request = request("POST", "/v1/receive/kubernetes", &bearer(), b"{}");
    let mut third = connect(server.address);
    third.write_all(&request).unwrap();
    third.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(third.read(&mut [0]).is_err(), "served beyond the bound");
    drop(first);
    third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(read(&mut third).status, 200);
    drop(second);
}

#[test]
fn heads_are_bounded() {
    let setup = Setup::new();
    let server = setup.start();
    let long = format!("x-long: {}\r\n", "x".repeat(100_000));
    let many = "x: y\r\n".repeat(200);
    for headers in [long, many] {
        let answer = exchange(server.address, &request("POST", "/v1/receive/kubernetes", &headers, b"{}"));
        assert_eq!(answer.status, 431, "{answer:?}");
    }
}

#[test]
fn garbage_is_survived() {
    let setup = Setup::new();
    let server = setup.start();
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"]
    {
        let mut stream = connect(server.address);
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(post(server.address, "/v1/receive/kubernetes", &bearer(), b"{}").status, 200);
}
