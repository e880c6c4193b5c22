//! Tests of the crate through its door: recording, and delivery to a scripted receiver.

mod alertmanager;
mod crash;
mod delivery;
mod fake;
mod page;
mod record;
mod standing;

use std::path::{Path, PathBuf};

use event::{Coordinates, Evidence, EvidenceEvent, Finding, FindingTime, Micros, Origin, Severity, Standing};
use serde_json::json;

use crate::Config;

/// 32 bytes that sign.
const WEBHOOK_KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// A folder with a database and the receivers' secrets.
struct House {
    folder: tempfile::TempDir,
}

impl House {
    fn new() -> House {
        use base64::Engine;
        let folder = tempfile::tempdir().unwrap();
        let key = base64::engine::general_purpose::STANDARD.encode(WEBHOOK_KEY);
        std::fs::write(folder.path().join("whsec"), format!("whsec_{key}\n")).unwrap();
        std::fs::write(folder.path().join("pd"), "R0000000000000000000000000000000").unwrap();
        House { folder }
    }

    fn db(&self) -> PathBuf {
        self.folder.path().join("alerts.db")
    }

    fn config(&self, kind: &str, url: &str) -> Config {
        config(self.path(), kind, url)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Two receivers at `url`; everything goes to the one named `kind`.
fn config(folder: &Path, kind: &str, url: &str) -> Config {
    let yaml = format!(
        "receivers:\n\
         - {{name: pd, pagerduty: {{routing_key: {{file: {0}/pd}}, url: \"{url}\"}}}}\n\
         - {{name: hook, webhook: {{url: \"{url}\", secrets: [{{file: {0}/whsec}}]}}}}\n\
         route: {{receiver: {kind}}}\n",
        folder.display()
    );
    serde_saphyr::from_str(&yaml).unwrap()
}

fn finding(rule: &str, user: &str, time: FindingTime) -> Finding {
    let id = crate::notification::id_of(&[rule, user, &time.first().to_string()]);
    Finding {
        id,
        rule: rule.to_owned(),
        title: "Many secrets read by one identity".to_owned(),
        severity: Severity::High,
        attack: vec!["T1552.007".to_owned()],
        entity: vec![("cluster".to_owned(), "prod".to_owned()), ("actor_user_name".to_owned(), user.to_owned())],
        time,
        origin: Origin::Live,
        tables: vec!["kubernetes_calls".to_owned()],
        summary: format!("{user} read 21 secrets in ten minutes"),
        triage: Some("Ask the owner.".to_owned()),
        values: json!({ "secrets": 21 }).as_object().unwrap().clone(),
        evidence: Evidence {
            count: u64::try_from(time.last() - time.first()).unwrap() + 1,
            events: vec![event(time.first(), "{\"verb\":\"get\"}")],
            query: "SELECT raw FROM kubernetes_calls".to_owned(),
        },
        suppress_us: 10,
        rule_version: "v1".to_owned(),
        bundle: "b1".to_owned(),
        standing: Standing::Confirmed,
        late: false,
        learning: false,
        historical: false,
    }
}

fn event(time: Micros, raw: &str) -> EvidenceEvent {
    let coordinates = Coordinates { topic: "audit".to_owned(), partition: 0, offset: 7, index: 0 };
    EvidenceEvent { event_uid: format!("uid-{time}"), time, coordinates, raw: raw.to_owned() }
}

fn at(rule: &str, user: &str, time: Micros) -> Finding {
    finding(rule, user, FindingTime::Event(time))
}
