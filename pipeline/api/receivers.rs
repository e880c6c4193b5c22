//! The receivers of a run: from the configuration to a server whose bodies go to Kafka, else to the embedded log.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use event::Offsets;
use source::http::{Backlog, EmbeddedSink, KafkaSink, Limits, Listen, Receiver, Server, Sink, router};

use crate::config::{Config, Receivers, Topic};
use crate::generate::mapping;

/// kube-apiserver gives up on an answer after 30 s; ours is to come before.
const ACK_TIMEOUT: Duration = Duration::from_secs(20);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// They wait more than they work.
const THREADS: usize = 2;

/// Receives until dropped; then finishes what is under way, within a bound. `committed` is where the line stands.
/// `None`: nothing is configured.
pub fn start(config: &Config, committed: &Offsets, backlog: Arc<Backlog>) -> Result<Option<Server>> {
    let Some(receivers) = &config.receivers else { return Ok(None) };
    let tokens = match receivers.tokens() {
        Ok(tokens) => tokens,
        Err(mistakes) => bail!("{}", mistakes.join("\n")),
    };
    let limits = Limits {
        body_bytes_max: usize::try_from(receivers.body_bytes_max)?,
        in_flight_bytes_max: usize::try_from(receivers.in_flight_bytes_max)?,
        body_timeout: receivers.timeout,
        ack_timeout: ACK_TIMEOUT,
    };
    let listen = Listen {
        tls: receivers.tls.clone(),
        connections_max: receivers.connections_max,
        head_timeout: receivers.timeout,
        drain_timeout: DRAIN_TIMEOUT,
        threads: THREADS,
        ..Listen::plain("receivers", receivers.listen)
    };
    let sink = sink(config, receivers, committed, backlog)?;
    let server =
        Server::start(&listen, router(Receiver::new(tokens, sink, limits))).context("the receivers cannot start")?;
    tracing::info!(address = %server.address, tls = receivers.tls.is_some(), "receiving over HTTP");
    Ok(Some(server))
}

fn sink(config: &Config, receivers: &Receivers, committed: &Offsets, backlog: Arc<Backlog>) -> Result<Arc<dyn Sink>> {
    if let Some(kafka) = &config.kafka {
        return Ok(Arc::new(KafkaSink::new(&kafka.brokers, &kafka.properties)?));
    }
    let used = |topic: &&Topic| receivers.tokens.iter().any(|token| token.topic == topic.name);
    let topics: Vec<_> = config.embedded.iter().filter(used).map(mapping).collect();
    let root = config.data_dir.join("log");
    Ok(Arc::new(EmbeddedSink::open(Arc::new(source::Disk), &root, &topics, committed, backlog)?))
}
