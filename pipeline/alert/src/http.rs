//! One POST to a receiver: the only place that touches the network. Redirects are not followed (a page must not go
//! where nobody pointed it), and every status is an answer, not an error.

use std::fmt;
use std::io::Read;
use std::time::Duration;

/// A receiver that has not answered by then is treated as one that did not answer at all; PagerDuty and Standard
/// Webhooks both ask for 15 to 30 seconds.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);
/// Enough for any error message; the rest of a body is not read.
const BODY_BYTES_MAX: u64 = 4096;
/// Pages are rare: an older connection has probably been closed by the other side.
const IDLE_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The `Retry-After` header as sent.
    pub retry_after: Option<String>,
    /// The beginning of the body.
    pub body: String,
}

/// No answer came. Whether the request arrived is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportError(pub String);

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub trait Http: Send + Sync {
    fn post(&self, request: &Request) -> Result<Answer, TransportError>;
}

pub struct UreqHttp {
    agent: ureq::Agent,
}

impl UreqHttp {
    pub fn new() -> UreqHttp {
        UreqHttp::with_timeout(TIMEOUT)
    }

    pub(crate) fn with_timeout(timeout: Duration) -> UreqHttp {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_age(IDLE_MAX)
            .user_agent(concat!("stakeout/", env!("CARGO_PKG_VERSION")))
            .build();
        UreqHttp { agent: config.new_agent() }
    }
}

impl Default for UreqHttp {
    fn default() -> Self {
        UreqHttp::new()
    }
}

impl Http for UreqHttp {
    fn post(&self, request: &Request) -> Result<Answer, TransportError> {
        let mut post = self.agent.post(&request.url);
        for (name, value) in &request.headers {
            post = post.header(*name, value);
        }
        let response = post.send(&request.body[..]).map_err(|e| TransportError(e.to_string()))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        // The status is the answer; a body that breaks off only costs its explanation.
        let _ = response.into_body().into_reader().take(BODY_BYTES_MAX).read_to_end(&mut body);
        Ok(Answer { status, retry_after, body: String::from_utf8_lossy(&body).into_owned() })
    }
}
