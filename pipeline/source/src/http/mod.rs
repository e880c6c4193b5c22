//! Events that are pushed over HTTP: kube-apiserver's audit webhook, Falco and falcosidekick, CloudTrail records.
//!
//! Promises: an answer of 2xx means that the body is durable, whole, as one record of the sender's topic (in the
//! embedded log or on the Kafka brokers); any other answer means that nothing was taken, or (503 after the body was
//! read) that it may or may not have been. A sender that repeats what was not acknowledged thus loses nothing, and
//! admission drops what it doubles. Memory is bounded whatever the senders do: connections, bytes of bodies at hand
//! and time per request have limits, and a sender above them is told to wait.
//!
//! What the bytes mean is left to normalize: here a body is JSON of bounded size, or it is refused.

mod body;
mod embedded;
mod impatient;
mod in_flight;
mod kafka;
mod meter;
mod receive;
mod refusal;
mod server;
mod sink;
mod tls;
mod token;

#[cfg(test)]
mod tests;

pub use body::{BodyLimits, check_body};
pub use embedded::{Backlog, EmbeddedSink};
pub use kafka::KafkaSink;
pub use receive::{Limits, Receiver, router};
pub use refusal::Refusal;
pub use server::{Listen, Server};
pub use sink::{Done, NotKept, Record, Sink};
pub use tls::TlsFiles;
pub use token::{TOKEN_BYTES_MIN, Token, Tokens};
