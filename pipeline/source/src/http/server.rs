//! An HTTP/1.1 server on a runtime of its own, plain or TLS: the receivers' and the API's. Bounded in connections, in
//! time per head and per handshake, and in what a head may hold; at the bound it stops accepting, and the kernel's
//! queue makes clients wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::TlsFiles;
use super::impatient::Impatient;
use super::tls::Certificate;
use crate::SourceError;

/// What a connection buffers of what it reads.
const BUFFER_BYTES: usize = 64 << 10;
const HEAD_BYTES_MAX: usize = 32 << 10;
const HEADERS_MAX: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Out of file descriptors, mostly: some connection will end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Certificates are renewed days before they end.
const RELOAD_EVERY: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Listen {
    /// Names the threads.
    pub name: &'static str,
    pub address: SocketAddr,
    pub tls: Option<TlsFiles>,
    pub connections_max: usize,
    /// For the head of a request, for an answer to be read, and how long a connection may stay idle.
    pub head_timeout: Duration,
    /// How long requests under way may take once the server is told to stop.
    pub drain_timeout: Duration,
    pub threads: usize,
    pub reload_every: Duration,
}

impl Listen {
    /// Plain, small, with what is usual.
    pub fn plain(name: &'static str, address: SocketAddr) -> Listen {
        Listen {
            name,
            address,
            tls: None,
            connections_max: 64,
            head_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(1),
            threads: 1,
            reload_every: RELOAD_EVERY,
        }
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// Answers until dropped; then finishes what it is answering, within the bound.
pub struct Server {
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    runtime: Option<tokio::runtime::Runtime>,
    accepting: Option<tokio::task::JoinHandle<()>>,
}

impl Server {
    /// Binds and reads the certificate before it returns, so that what is wrong with them is an error of the caller.
    pub fn start(listen: &Listen, router: Router) -> Result<Server, SourceError> {
        let certificate = listen.tls.as_ref().map(Certificate::load).transpose()?;
        let acceptor = match &certificate {
            Some(certificate) => Some(TlsAcceptor::from(certificate.server_config()?)),
            None => None,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(listen.threads)
            .max_blocking_threads(listen.threads)
            .thread_name(listen.name)
            .enable_all()
            .build()
            .map_err(SourceError::io("start threads"))?;
        let listening = || SourceError::io(format!("listen on {}", listen.address));
        let listener = runtime.block_on(TcpListener::bind(listen.address)).map_err(listening())?;
        let address = listener.local_addr().map_err(listening())?;
        let (stop, stopped) = watch::channel(false);
        if let Some(certificate) = certificate {
            runtime.spawn(reload(certificate, listen.reload_every, stopped.clone()));
        }
        let serving = Serving { listen: listen.clone(), acceptor, router, stopped };
        let accepting = Some(runtime.spawn(accept(listener, Arc::new(serving))));
        Ok(Server { address, stop, runtime: Some(runtime), accepting })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let (Some(runtime), Some(accepting)) = (self.runtime.take(), self.accepting.take()) {
            let _ = runtime.block_on(accepting);
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

struct Serving {
    listen: Listen,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    stopped: watch::Receiver<bool>,
}

async fn accept(listener: TcpListener, serving: Arc<Serving>) {
    let slots = Arc::new(Semaphore::new(serving.listen.connections_max));
    let mut connections = JoinSet::new();
    let mut stopped = serving.stopped.clone();
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let serving = serving.clone();
                connections.spawn(async move {
                    serve(&serving, stream, peer).await;
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(serving.listen.drain_timeout, drained).await.is_err() {
        warn!(server = serving.listen.name, "requests under way were cut off at the stop");
    }
}

async fn serve(serving: &Serving, stream: TcpStream, peer: SocketAddr) {
    // Answers are small and awaited.
    let _ = stream.set_nodelay(true);
    let stream = Impatient::new(stream, serving.listen.head_timeout);
    let Some(acceptor) = &serving.acceptor else { return http(serving, stream, peer).await };
    let mut stopped = serving.stopped.clone();
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => handshake,
        _ = stopped.wait_for(|stopped| *stopped) => return,
    };
    match handshake {
        Ok(Ok(stream)) => http(serving, stream, peer).await,
        Ok(Err(_)) | Err(_) => metrics::counter!("stakeout_tls_handshakes_failed_total").increment(1),
    }
}

async fn http(serving: &Serving, stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr) {
    let service = TowerToHyperService::new(serving.router.clone().layer(Extension(Peer(peer))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(serving.listen.head_timeout)
        .max_buf_size(BUFFER_BYTES)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut stopped = serving.stopped.clone();
    // Errors are the peer's: broken off, not HTTP, too slow.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn reload(certificate: Arc<Certificate>, every: Duration, mut stopped: watch::Receiver<bool>) {
    while tokio::time::timeout(every, stopped.wait_for(|stopped| *stopped)).await.is_err() {
        let certificate = certificate.clone();
        let _ = tokio::task::spawn_blocking(move || certificate.reload()).await;
    }
}
