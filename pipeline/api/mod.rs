//! The HTTP face: liveness, readiness and Prometheus metrics, on loopback. Runs on a tokio runtime of its own, away
//! from the threads that compute.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

/// What the probes look at. `ready` turns true when the state is rebuilt and polling has begun, false at shutdown.
#[derive(Clone)]
pub struct Health {
    pub ready: Arc<AtomicBool>,
    metrics: PrometheusHandle,
}

impl Health {
    pub fn new(metrics: PrometheusHandle) -> Health {
        Health { ready: Arc::new(AtomicBool::new(false)), metrics }
    }
}

/// Answers until dropped.
pub struct Server {
    pub address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Binds before it returns, so that a taken port is an error of the caller.
    pub fn start(listen: SocketAddr, router: Router) -> anyhow::Result<Server> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(listen))
            .with_context(|| format!("cannot listen on {listen}\nhint: set another `listen` address, or `off`"))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("api".into()).spawn(move || {
            runtime.block_on(async move {
                let server = axum::serve(listener, router);
                tokio::select! {
                    result = async { server.await } => if let Err(error) = result { tracing::error!(%error, "the API stopped") },
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Server { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn router(health: Health) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(|State(health): State<Health>| async move { crate::telemetry::render(&health.metrics) }))
        .with_state(health)
}

async fn readyz(State(health): State<Health>) -> (StatusCode, &'static str) {
    match health.ready.load(Ordering::Relaxed) {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or stopping\n"),
    }
}
