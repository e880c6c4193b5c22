//! Why a request is not taken, as its sender reads it: a status, a stable code, a sentence, and what to do.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;

/// `{"error": {"code", "message", "hint"}}` with a status, and with `Retry-After` where waiting helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// One word for programs and metrics; it does not change.
    pub code: &'static str,
    pub message: String,
    pub hint: &'static str,
    pub retry_after_seconds: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>, hint: &'static str) -> Self {
        Refusal { status, code, message: message.into(), hint, retry_after_seconds: None }
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// What was sent is not what is received here.
    pub(crate) fn bad(code: &'static str, message: impl Into<String>, hint: &'static str) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, code, message, hint)
    }

    pub(crate) fn too_large(message: impl Into<String>, hint: &'static str) -> Self {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message, hint)
    }

    /// Room comes back as soon as other requests are done.
    pub(crate) fn busy() -> Self {
        Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "busy",
            "too many bytes are being received at the moment",
            "send again later; `in_flight_max` of the receivers bounds what is received at a time",
        )
        .retry_after(1)
    }

    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>, hint: &'static str) -> Self {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message, hint).retry_after(5)
    }

    pub(crate) fn json(&self) -> String {
        serde_json::json!({"error": {"code": self.code, "message": self.message, "hint": self.hint}}).to_string()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let json = HeaderValue::from_static("application/json");
        let mut response = (self.status, [(header::CONTENT_TYPE, json)], self.json() + "\n").into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
