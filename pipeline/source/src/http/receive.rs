//! One request: who sends, may it come in now, is it JSON, is it durable. In this order, so that a stranger costs
//! nothing, a body that is too much is not read, and nothing is acknowledged before it is kept.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use event::Source;
use tokio::sync::oneshot;
use tokio::time::{timeout, timeout_at};
use tracing::{error, warn};

use super::Refusal;
use super::body::{self, BodyLimits, Encoding, check_body};
use super::in_flight::{Held, InFlight};
use super::meter::{self, AckTime, Pace};
use super::server::Peer;
use super::sink::{NotKept, Record, Sink};
use super::token::{self, Token, Tokens};

const PREFIX: &str = "/v1/receive/";

/// Senders in line for room wait this long before they are told to come again.
const HOLD_TIMEOUT: Duration = Duration::from_secs(2);
/// A body of unknown length begins with room for this much.
const CHUNKED_BYTES: usize = 64 << 10;
/// Checking this much takes less time than another thread takes to begin.
const INLINE_BYTES: usize = 16 << 10;
/// What is refused unread is read a while nevertheless: closing on a sender that still writes would hide the answer.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(3);
const DISCARD_BYTES_STRANGER: usize = 1 << 20;
const DISCARD_BYTES: usize = 64 << 20;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one body, as sent and decompressed.
    pub body_bytes_max: usize,
    /// Of all bodies at hand.
    pub in_flight_bytes_max: usize,
    /// For the whole body to arrive.
    pub body_timeout: Duration,
    /// For a record to be durable. kube-apiserver waits 30 s for an answer.
    pub ack_timeout: Duration,
}

/// What requests are judged by, and where their bodies go.
pub struct Receiver {
    tokens: Tokens,
    sink: Arc<dyn Sink>,
    limits: Limits,
    in_flight: InFlight,
    ack_time: AckTime,
    strangers: Pace,
    failures: Pace,
}

impl Receiver {
    pub fn new(tokens: Tokens, sink: Arc<dyn Sink>, limits: Limits) -> Receiver {
        Receiver {
            tokens,
            sink,
            limits,
            in_flight: InFlight::new(limits.in_flight_bytes_max),
            ack_time: AckTime::new(),
            strangers: Pace::default(),
            failures: Pace::default(),
        }
    }
}

/// `POST /v1/receive/<source>` and, for senders that cannot set headers, `POST /v1/receive/<source>/<token>`.
pub fn router(receiver: Receiver) -> Router {
    Router::new().route("/livez", get(|| async { "ok\n" })).fallback(handle).with_state(Arc::new(receiver))
}

async fn handle(
    State(receiver): State<Arc<Receiver>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let address = address(&parts.method, parts.uri.path());
    let path = address.as_ref().map_or("other", |(source, _)| source.name());
    let answer = match address {
        Ok((source, token)) => receiver.receive(&parts, body, peer, source, token).await,
        Err(refusal) => {
            discard(&parts.headers, body, DISCARD_BYTES_STRANGER).await;
            Err(refusal)
        }
    };
    let response = match answer {
        Ok(bytes) => {
            meter::taken(path, bytes);
            Json(serde_json::json!({"bytes": bytes})).into_response()
        }
        Err(refusal) => {
            meter::refused(refusal.code);
            refusal.into_response()
        }
    };
    meter::answered(path, response.status());
    response
}

/// The source and the token, if there is one, of a path.
fn address<'p>(method: &Method, path: &'p str) -> Result<(Source, Option<&'p str>), Refusal> {
    let unknown = || {
        let hint = "POST to /v1/receive/kubernetes, /v1/receive/cloudtrail or /v1/receive/falco";
        Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path", hint)
    };
    let rest = path.strip_prefix(PREFIX).ok_or_else(unknown)?;
    let (source, token) = rest.split_once('/').unwrap_or((rest, ""));
    let source = source.parse().map_err(|_| unknown())?;
    if method != Method::POST {
        let what = format!("events are sent with POST, not {method}");
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", what, "use POST"));
    }
    Ok((source, (!token.is_empty()).then_some(token)))
}

impl Receiver {
    /// The bytes of the record that the body became.
    async fn receive(
        &self,
        parts: &Parts,
        mut body: Body,
        peer: Peer,
        source: Source,
        in_path: Option<&str>,
    ) -> Result<usize, Refusal> {
        let headers = &parts.headers;
        let token = match self.admit(headers, peer, source, in_path) {
            Ok(token) => token,
            Err(refusal) => {
                discard(headers, body, DISCARD_BYTES_STRANGER).await;
                return Err(refusal);
            }
        };
        let length = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let (mut held, encoding) = match self.make_room(headers, length, token).await {
            Ok(room) => room,
            Err(refusal) => {
                discard(headers, body, DISCARD_BYTES).await;
                return Err(refusal);
            }
        };
        let bytes = match self.read(&mut body, &mut held).await {
            Ok(bytes) => bytes,
            Err(refusal) => {
                drop(held);
                // Nobody is still writing who was too slow.
                if refusal.status != StatusCode::REQUEST_TIMEOUT {
                    discard(headers, body, DISCARD_BYTES).await;
                }
                return Err(refusal);
            }
        };
        let record = self.check(bytes, held, encoding).await?;
        self.keep(token, record).await
    }

    fn admit(&self, headers: &HeaderMap, peer: Peer, source: Source, in_path: Option<&str>) -> Result<&Token, Refusal> {
        let presented = token::presented(headers).or_else(|| in_path.map(|token| token.as_bytes().to_vec()));
        let Some(token) = presented.as_ref().and_then(|presented| self.tokens.find(presented)) else {
            if let Some(times) = self.strangers.tell() {
                warn!(peer = %peer.0, times, "refused senders without a valid token");
            }
            let what = if presented.is_some() { "the token is not known" } else { "there is no token" };
            let hint = "send `Authorization: Bearer TOKEN` with a token of the receivers' configuration";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", what, hint));
        };
        if token.source != source {
            if let Some(times) = self.strangers.tell() {
                warn!(peer = %peer.0, token = token.name, path = %source, times, "refused senders at the path of another source");
            }
            let what = format!("this token is for {} events, not for {source}", token.source);
            let hint = "send to the path of the token's source";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "wrong_source", what, hint));
        }
        Ok(token)
    }

    /// All that can be said before the body is read.
    async fn make_room(
        &self,
        headers: &HeaderMap,
        length: Option<usize>,
        token: &Token,
    ) -> Result<(Held, Encoding), Refusal> {
        body::check_type(text(headers, header::CONTENT_TYPE)?)?;
        let encoding = Encoding::of(text(headers, header::CONTENT_ENCODING)?)?;
        if let Some(length) = length.filter(|length| *length > self.limits.body_bytes_max) {
            return Err(body::too_large(length, &self.body_limits()));
        }
        self.sink.ready(token).map_err(|why| self.not_kept(&why))?;
        let held =
            self.in_flight.hold(length.unwrap_or(CHUNKED_BYTES.min(self.limits.body_bytes_max)), HOLD_TIMEOUT).await;
        Ok((held.ok_or_else(Refusal::busy)?, encoding))
    }

    async fn read(&self, body: &mut Body, held: &mut Held) -> Result<Vec<u8>, Refusal> {
        let deadline = tokio::time::Instant::now() + self.limits.body_timeout;
        let mut bytes = Vec::with_capacity(held.bytes());
        loop {
            match timeout_at(deadline, next(body)).await {
                Ok(Some(Ok(data))) => {
                    let length = bytes.len() + data.len();
                    if length > self.limits.body_bytes_max {
                        return Err(body::too_large(length, &self.body_limits()));
                    }
                    if length > held.bytes() {
                        // As a vector grows.
                        let room = length.max(bytes.len() * 2).min(self.limits.body_bytes_max);
                        if !held.grow(room - held.bytes()) {
                            return Err(Refusal::busy());
                        }
                        bytes.reserve_exact(room - bytes.len());
                    }
                    bytes.extend_from_slice(&data);
                }
                Ok(None) => return Ok(bytes),
                Ok(Some(Err(error))) => {
                    let what = format!("the body broke off: {error}");
                    return Err(Refusal::bad("broken_body", what, "send it whole, or in whole chunks"));
                }
                Err(_) => {
                    let what = format!("the body did not arrive within {:?}", self.limits.body_timeout);
                    return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", what, "send smaller batches"));
                }
            }
        }
    }

    /// CPU work, so away from the threads that wait, unless there is next to none.
    async fn check(&self, bytes: Vec<u8>, held: Held, encoding: Encoding) -> Result<Record, Refusal> {
        let limits = self.body_limits();
        let quick = encoding == Encoding::Plain && bytes.len() <= INLINE_BYTES;
        let work = move || {
            let mut held = held;
            let encoding = (encoding == Encoding::Gzip).then_some("gzip");
            let payload = check_body(None, encoding, bytes, &limits, &mut |more| held.grow(more))?;
            held.shrink_to(payload.capacity());
            Ok(Record { payload, held: Some(held) })
        };
        if quick {
            return work();
        }
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            error!(%error, "checking a body panicked; this is a bug");
            let what = "the body could not be checked";
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", what, "tell the maintainers"))
        })
    }

    async fn keep(&self, token: &Token, record: Record) -> Result<usize, Refusal> {
        let bytes = record.payload.len();
        let started = Instant::now();
        let (done, outcome) = oneshot::channel();
        // A sender that went away is not told, but its record is kept.
        let tell = Box::new(move |kept| drop(done.send(kept)));
        self.sink.send(token, record, tell).map_err(|why| self.not_kept(&why))?;
        match timeout(self.limits.ack_timeout, outcome).await {
            Ok(Ok(Ok(()))) => {
                self.ack_time.took(started.elapsed());
                Ok(bytes)
            }
            Ok(Ok(Err(why))) => Err(self.not_kept(&why)),
            Ok(Err(_)) => Err(self.not_kept(&NotKept::Failed("the log ended before the record was kept".into()))),
            Err(_) => Err(self.not_kept(&NotKept::Failed(format!("not durable within {:?}", self.limits.ack_timeout)))),
        }
    }

    /// Operators read why, senders only what to do.
    fn not_kept(&self, why: &NotKept) -> Refusal {
        if why.needs_someone()
            && let Some(times) = self.failures.tell()
        {
            error!(times, "what is received cannot be kept: {why}");
        }
        let again = "send it again later; what was not acknowledged is not kept, or only once";
        match why {
            NotKept::Busy => Refusal::unavailable("not_durable", "the log does not keep up at the moment", again),
            NotKept::Backlog { .. } => Refusal::unavailable(
                "backlog",
                "more was received than is stored yet",
                "send it again later; `backlog_max` of the receivers bounds what waits to be stored",
            ),
            NotKept::TooLarge(what) => {
                Refusal::too_large(what.clone(), "send smaller batches, or raise `max.message.bytes` of the topic")
            }
            NotKept::DiskFull(_) => Refusal::unavailable("disk_full", "the disk of the receiver is full", again),
            NotKept::Failed(_) => {
                Refusal::unavailable("not_durable", "the events cannot be made durable at the moment", again)
            }
        }
    }

    fn body_limits(&self) -> BodyLimits {
        BodyLimits { body_bytes_max: self.limits.body_bytes_max }
    }
}

/// A header as text; one that is none is no type or encoding that anybody knows.
fn text(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get(&name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| {
        let (status, what) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("header `{name}` is not text"));
        Refusal::new(status, "unsupported_type", what, "send JSON with `Content-Type: application/json`")
    })
}

/// The next data of the body; trailers are skipped.
async fn next(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        match std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Reads on without keeping anything, so that the sender comes to read the answer. Whoever asked before sending is
/// waiting for it already.
async fn discard(headers: &HeaderMap, mut body: Body, bytes_max: usize) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let read = async {
        let mut left = bytes_max;
        while let Some(Ok(data)) = next(&mut body).await {
            match left.checked_sub(data.len()) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    let _ = timeout(DISCARD_TIMEOUT, read).await;
}
