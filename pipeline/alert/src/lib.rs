//! From findings to pages. `Alerts::record` keeps findings, incidents, notifications and detection's frontier in one
//! transaction of `alerts.db`; `Delivery` sends the notifications, one thread per receiver.
//!
//! Promises: what `record` returned from survives a power loss; an incident pages each of its receivers once; a page
//! that a receiver acknowledged is never sent again, one whose outcome is unknown is sent again under the same id;
//! pages of one incident keep their order, and behind the page of an incident that turned out to be none comes its
//! retraction, once. Recording never waits for a pager.
//!
//! Left to others: what a finding is (`detect`), and what the terminal shows (`Reader` gives it the rows).

mod clock;
mod config;
mod delivery;
mod error;
mod http;
mod incident;
mod matcher;
mod notification;
mod outbox;
mod pace;
mod read;
mod receiver;
mod record;
mod route;
mod schema;
mod secret;
#[cfg(test)]
mod tests;

pub use clock::{Bell, Clock, SystemClock};
pub use config::{Config, PagerDutyConfig, ReceiverConfig, Span, WebhookConfig};
pub use delivery::Delivery;
pub use error::{Error, Result};
pub use http::{Answer, Http, Request, TransportError, UreqHttp};
pub use notification::{Flood, Notification, Retraction, Subject};
pub use read::{Attempt, Filter, Incident, Page, PageFilter, Reader, StandingSince, StoredFinding};
pub use record::{Alerts, Recorded};
pub use route::{Labels, RouteConfig, Router};
pub use secret::Secret;
