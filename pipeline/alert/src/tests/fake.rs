//! A receiver that answers by script, over real sockets, and remembers what it was sent.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use event::Micros;

use crate::{Clock, SystemClock};

#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// Status, one further header line (or none) and a body.
    Status(u16, &'static str, &'static str),
    /// Closes the connection without an answer, having read the request.
    Reset,
    /// Answers only after the client has given up.
    Slow(Duration),
}

#[derive(Clone, Debug)]
pub(super) struct Received {
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// What it was answered; 0 for nothing.
    pub status: u16,
}

impl Received {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Clone)]
pub(super) struct Fake {
    pub url: String,
    script: Arc<Mutex<VecDeque<Reply>>>,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Fake {
    /// Answers by `script`, then always with `otherwise`. The thread ends with the test process.
    pub fn start(script: impl IntoIterator<Item = Reply>, otherwise: Reply) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Fake {
            url: format!("http://{}/in", listener.local_addr().unwrap()),
            script: Arc::new(Mutex::new(script.into_iter().collect())),
            received: Arc::default(),
        };
        let serving = fake.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let reply = serving.script.lock().unwrap().pop_front().unwrap_or(otherwise.clone());
                serving.serve(stream, reply);
            }
        });
        fake
    }

    fn serve(&self, stream: TcpStream, reply: Reply) {
        let Some(mut request) = read_request(&stream) else { return };
        if let Reply::Status(status, ..) = reply {
            request.status = status;
        }
        self.received.lock().unwrap().push(request);
        match reply {
            Reply::Status(status, header, body) => answer(stream, status, header, body),
            Reply::Reset => drop(stream),
            Reply::Slow(wait) => {
                std::thread::sleep(wait);
                answer(stream, 200, "", "");
            }
        }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// What was received once there are `count` requests.
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        eventually(|| self.received().len() >= count, &format!("{count} requests"));
        self.received()
    }
}

fn read_request(stream: &TcpStream) -> Option<Received> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Received { headers, body, status: 0 })
}

fn answer(mut stream: TcpStream, status: u16, header: &str, body: &str) {
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    let length = body.len();
    let text = format!("HTTP/1.1 {status} X\r\n{header}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let _ = stream.write_all(text.as_bytes());
}

/// Waits for a fact that other threads bring about.
pub(super) fn eventually(fact: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !fact() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A wall clock that runs `scale` times as fast.
pub(super) struct FastClock {
    begun: Instant,
    at: Micros,
    scale: u32,
}

impl FastClock {
    pub fn new(scale: u32) -> FastClock {
        FastClock { begun: Instant::now(), at: SystemClock.now(), scale }
    }
}

impl Clock for FastClock {
    fn now(&self) -> Micros {
        self.at + i64::try_from((self.begun.elapsed() * self.scale).as_micros()).unwrap()
    }

    fn real(&self, span_us: i64) -> Duration {
        Duration::from_micros(u64::try_from(span_us).unwrap_or(0)) / self.scale
    }
}
