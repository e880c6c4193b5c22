//! A pager on loopback that says yes. It counts distinct `webhook-id`s: what was acknowledged once counts once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alert::Reader;
use anyhow::Result;
use event::Micros;

use crate::api;
use crate::config::Config;
use crate::rooms::{alerts_db, wall_clock};

pub struct Pager {
    server: source::http::Server,
    pages: Arc<Pages>,
}

/// `webhook-id` and when it first arrived (wall clock).
type Pages = Mutex<BTreeMap<String, Micros>>;

impl Pager {
    pub fn start() -> Result<Pager> {
        let pages: Arc<Pages> = Arc::default();
        let taken = pages.clone();
        let take = move |headers: axum::http::HeaderMap| {
            let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
            lock(&taken).entry(id).or_insert_with(wall_clock);
            std::future::ready("ok")
        };
        let router = axum::Router::new().route("/page", axum::routing::post(take));
        Ok(Pager { server: api::serve(([127, 0, 0, 1], 0).into(), router)?, pages })
    }

    pub fn url(&self) -> String {
        format!("http://{}/page", self.server.address)
    }

    /// The `alerts` section of a config whose every page comes here.
    pub fn section(&self, config: &Config) -> Result<alert::Config> {
        let secret = Pager::secret(config)?;
        Ok(serde_json::from_value(serde_json::json!({
            "receivers": [{"name": "pager", "webhook": {"url": self.url(), "secrets": [{"file": secret}]}}],
            "route": {"receiver": "pager"},
        }))?)
    }

    /// The file of what pages are signed with, in the data directory.
    pub fn secret(config: &Config) -> Result<PathBuf> {
        let secret = config.data_dir.join("pager.secret");
        std::fs::write(&secret, "whsec_c3Rha2VvdXQgZGVtbyBvbmx5LCBub3Qgc2VjcmV0ISE=\n")?;
        Ok(secret)
    }

    pub fn taken(&self) -> u64 {
        lock(&self.pages).len() as u64
    }

    /// When each page first arrived, by the id that `alerts.db` has for it.
    pub fn arrivals(&self) -> BTreeMap<String, Micros> {
        lock(&self.pages).clone()
    }

    /// The last findings come with the end of the stream: sends their pages before the process says goodbye.
    pub fn wait_for_quiet(&self, config: &Config, at_most: Duration) -> Result<()> {
        let alerts = alert::Alerts::open(&alerts_db(config), &config.alerts)?;
        let delivery = alert::Delivery::start(
            &alerts_db(config),
            &config.alerts,
            alerts.bell(),
            Arc::new(alert::UreqHttp::new()),
            Arc::new(alert::SystemClock),
        )?;
        let reader = Reader::open(&alerts_db(config))?;
        let pending = alert::PageFilter { state: Some("pending".to_owned()), ..alert::PageFilter::default() };
        let started = Instant::now();
        while !reader.outbox(&pending)?.is_empty() && started.elapsed() < at_most {
            std::thread::sleep(Duration::from_millis(50));
        }
        delivery.shutdown();
        Ok(())
    }
}

fn lock(pages: &Pages) -> MutexGuard<'_, BTreeMap<String, Micros>> {
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}
