//! The receivers over real sockets, with a sink that does as it is told.

mod bounds;
mod client;
mod refusals;
mod secure;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event::Source;

use super::{Done, Limits, Listen, NotKept, Receiver, Record, Server, Sink, Token, Tokens, router};
use client::{Answer, post};

const SECRET: &str = "kubernetes-secret";
const FALCO_SECRET: &str = "falco-secret-16b";
const BODY_BYTES_MAX: usize = 1 << 20;

/// Keeps payloads with their topics; acknowledges at once, never, or refuses.
#[derive(Default)]
struct Fake {
    kept: Mutex<Vec<(String, Vec<u8>)>>,
    refuse: Mutex<Option<NotKept>>,
    hold: std::sync::atomic::AtomicBool,
    held: Mutex<Vec<(Record, Done)>>,
    arrived: AtomicUsize,
}

impl Fake {
    fn release(&self) {
        for (record, done) in self.held.lock().unwrap().drain(..) {
            drop(record);
            done(Ok(()));
        }
    }

    fn wait_for(&self, records: usize) {
        wait_until("records arrive", || self.arrived.load(Ordering::SeqCst) >= records);
    }
}

impl Sink for Fake {
    fn ready(&self, _: &Token) -> Result<(), NotKept> {
        match &*self.refuse.lock().unwrap() {
            Some(NotKept::Backlog { bytes, bytes_max }) => {
                Err(NotKept::Backlog { bytes: *bytes, bytes_max: *bytes_max })
            }
            _ => Ok(()),
        }
    }

    fn send(&self, token: &Token, record: Record, done: Done) -> Result<(), NotKept> {
        match &*self.refuse.lock().unwrap() {
            Some(NotKept::Busy) => return Err(NotKept::Busy),
            Some(why) => {
                done(Err(why.clone()));
                return Ok(());
            }
            None => {}
        }
        if self.hold.load(Ordering::SeqCst) {
            self.held.lock().unwrap().push((record, done));
        } else {
            self.kept.lock().unwrap().push((token.topic.clone(), record.payload));
            done(Ok(()));
        }
        self.arrived.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct Setup {
    listen: Listen,
    limits: Limits,
    sink: Arc<Fake>,
}

impl Setup {
    fn new() -> Setup {
        let limits = Limits {
            body_bytes_max: BODY_BYTES_MAX,
            in_flight_bytes_max: 4 << 20,
            body_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_secs(10),
        };
        let listen = Listen { threads: 2, ..Listen::plain("receivers", ([127, 0, 0, 1], 0).into()) };
        Setup { listen, limits, sink: Arc::default() }
    }

    fn start(&self) -> Server {
        let tokens = Tokens(vec![
            Token::new(SECRET, "k8s", Source::Kubernetes, Some("prod"), "audit"),
            Token::new(FALCO_SECRET, "falco", Source::Falco, Some("prod"), "falco"),
        ]);
        Server::start(&self.listen, router(Receiver::new(tokens, self.sink.clone(), self.limits))).unwrap()
    }

    fn kept(&self) -> Vec<(String, Vec<u8>)> {
        self.sink.kept.lock().unwrap().clone()
    }
}

fn bearer() -> String {
    format!("authorization: Bearer {SECRET}\r\n")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn bodies_become_records_byte_for_byte() {
    let setup = Setup::new();
    let server = setup.start();
    let body = br#"{"kind":"EventList","items":[{"auditID":"1"}]}"#;
    let take = |path: &str, headers: &str, sent: &[u8]| {
        let answer = post(server.address, path, headers, sent);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body, format!("{{\"bytes\":{}}}", body.len()));
    };
    take("/v1/receive/kubernetes", &bearer(), body);
    take("/v1/receive/kubernetes?timeout=30s", &format!("{}content-encoding: gzip\r\n", bearer()), &gzip(body));
    take(&format!("/v1/receive/falco/{FALCO_SECRET}"), "content-type: application/json\r\n", body);
    // falco:falco-secret-16b
    take("/v1/receive/falco", "authorization: Basic ZmFsY286ZmFsY28tc2VjcmV0LTE2Yg==\r\n", body);
    let expected = ["audit", "audit", "falco", "falco"].map(|topic| (topic.to_owned(), body.to_vec()));
    assert_eq!(setup.kept(), expected);
}

#[test]
fn chunked_bodies_are_whole_or_nothing() {
    let setup = Setup::new();
    let server = setup.start();
    let head = format!(
        "POST /v1/receive/kubernetes HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}transfer-encoding: chunked\r\n\r\n",
        bearer()
    );
    let large = [b"[".to_vec(), b" ".repeat(500_000), b"]".to_vec()].concat();
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let whole =
        [head.clone().into_bytes(), chunk(b"{\"a\":"), chunk(b"1}\n"), chunk(&large), b"0\r\n\r\n".to_vec()].concat();
    assert_eq!(client::exchange(server.address, &whole).status, 200);
    assert_eq!(setup.kept()[0].1, [b"{\"a\":1}\n".to_vec(), large.clone()].concat());

    let over = [head.clone().into_bytes(), chunk(&large), chunk(&large), chunk(&large), b"0\r\n\r\n".to_vec()].concat();
    assert_eq!(client::exchange(server.address, &over).status, 413);
    let broken = [head.into_bytes(), chunk(b"{}\n"), b"zz\r\n".to_vec()].concat();
    assert_eq!(client::exchange(server.address, &broken).status, 400);
    assert_eq!(setup.kept().len(), 1);
}

#[test]
fn nothing_is_acknowledged_before_it_is_kept() {
    let setup = Setup::new();
    setup.sink.hold.store(true, Ordering::SeqCst);
    let server = setup.start();
    let address = server.address;
    let (answered, answers) = std::sync::mpsc::channel();
    let sender = std::thread::spawn(move || answered.send(post(address, "/v1/receive/kubernetes", &bearer(), b"{}")));
    setup.sink.wait_for(1);
    assert!(answers.recv_timeout(Duration::from_millis(100)).is_err(), "answered before the sink did");
    setup.sink.release();
    assert_eq!(answers.recv().unwrap().status, 200);
    sender.join().unwrap().unwrap();
}

#[test]
fn a_stop_lets_requests_finish() {
    let setup = Setup::new();
    setup.sink.hold.store(true, Ordering::SeqCst);
    let server = Setup { listen: Listen { drain_timeout: Duration::from_secs(20), ..setup.listen.clone() }, ..setup };
    let (setup, server) = (&server, server.start());
    let address = server.address;
    let idle = std::net::TcpStream::connect(address).unwrap();
    let sender = std::thread::spawn(move || post(address, "/v1/receive/kubernetes", &bearer(), b"{}"));
    setup.sink.wait_for(1);
    let stopping = std::thread::spawn(move || drop(server));
    wait_until("nobody is accepted any more", || std::net::TcpStream::connect(address).is_err());
    assert!(!stopping.is_finished());
    setup.sink.release();
    assert_eq!(sender.join().unwrap().status, 200);
    stopping.join().unwrap();
    drop(idle);
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, self.body)
    }
}
