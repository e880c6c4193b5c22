//! An HTTP client with one connection that stays open, plain or TLS.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

pub struct Connection {
    stream: Box<dyn Stream>,
    /// Read and not yet an answer.
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// A request whose length is known.
pub fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

impl Connection {
    pub fn plain(address: SocketAddr) -> Connection {
        Connection::try_plain(address).unwrap()
    }

    pub fn try_plain(address: SocketAddr) -> io::Result<Connection> {
        Ok(Connection { stream: Box::new(connect(address)?), buffer: Vec::new() })
    }

    /// Trusts only `cert`.
    pub fn tls(address: SocketAddr, cert: &Path) -> Connection {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        Connection { stream: Box::new(StreamOwned::new(session, connect(address).unwrap())), buffer: Vec::new() }
    }

    pub fn stream(&mut self) -> &mut dyn Stream {
        &mut *self.stream
    }

    /// Sends a whole request and reads its answer.
    pub fn send(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request)?;
        self.stream.flush()?;
        self.read()
    }

    pub fn read(&mut self) -> io::Result<Answer> {
        let head = loop {
            match self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(end) => break end,
                None => self.more()?,
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).into_owned();
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {text}")))?;
        let headers: BTreeMap<String, String> =
            lines.filter_map(|l| l.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned())).collect();
        let length: usize = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        while self.buffer.len() < head + 4 + length {
            self.more()?;
        }
        let body = String::from_utf8_lossy(&self.buffer[head + 4..head + 4 + length]).into_owned();
        self.buffer.drain(..head + 4 + length);
        Ok(Answer { status, headers, body })
    }

    fn more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            got => {
                self.buffer.extend_from_slice(&chunk[..got]);
                Ok(())
            }
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}
