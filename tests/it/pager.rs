//! A pager on loopback that answers every page with 200 and remembers which ids it acknowledged, and when.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

#[derive(Clone)]
pub struct Pager {
    pub address: SocketAddr,
    acknowledged: Arc<Mutex<BTreeMap<String, Vec<Instant>>>>,
}

impl Pager {
    pub fn start() -> Pager {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let pager = Pager { address: listener.local_addr().unwrap(), acknowledged: Arc::default() };
        let server = pager.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        pager
    }

    /// Times at which each id was acknowledged.
    pub fn acknowledged(&self) -> BTreeMap<String, Vec<Instant>> {
        self.acknowledged.lock().unwrap().clone()
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut writer = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let (mut id, mut length, mut line) = (String::new(), 0usize, String::new());
            while reader.read_line(&mut line).ok()? > 0 && line.trim() != "" {
                let (name, value) = line.split_once(':').unwrap_or((&line, ""));
                match name.to_ascii_lowercase().as_str() {
                    "webhook-id" => id = value.trim().to_owned(),
                    "content-length" => length = value.trim().parse().ok()?,
                    _ => {}
                }
                line.clear();
            }
            if id.is_empty() {
                return None;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            // Recorded before the answer leaves: from here on the page counts as acknowledged.
            self.acknowledged.lock().unwrap().entry(id).or_default().push(Instant::now());
            writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").ok()?;
        }
    }
}
