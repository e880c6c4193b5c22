//! The HTTP face: liveness, readiness and Prometheus metrics, on loopback, and the receivers. Servers run on tokio
//! runtimes of their own, away from the threads that compute.

pub mod receivers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use source::http::{Listen, Server};

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

/// Serves `router` on loopback until dropped.
pub fn serve(listen: SocketAddr, router: Router) -> anyhow::Result<Server> {
    Server::start(&Listen::plain("api", listen), router)
        .with_context(|| format!("cannot listen on {listen}\nhint: set another `listen` address, or `off`"))
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
