//! What receivers get to see: the wire formats, their limits and the signature.

use base64::Engine;
use event::{Finding, Severity};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{House, WEBHOOK_KEY, at, event};
use crate::notification::{Notification, Subject, sha256_hex};
use crate::receiver::Receiver;
use crate::{Flood, Request};

const NOW: i64 = 1_700_000_000_000_000;

fn notification(finding: Finding) -> Notification {
    let evidence_sha256 = sha256_hex(serde_json::to_string(&finding.evidence).unwrap().as_bytes());
    Notification {
        incident: "0123456789abcdef0123456789abcdef".to_owned(),
        episode: 3,
        opened: NOW,
        link: Some("https://soc.example/incidents/1".to_owned()),
        subject: Subject::Finding { finding: Box::new(finding), evidence_sha256 },
    }
}

fn request(kind: usize, notification: &Notification) -> (Request, Value) {
    let house = House::new();
    let receiver = Receiver::new(&house.config("pd", "http://x").receivers[kind]).unwrap();
    let request = receiver.request("page_1", notification, NOW);
    let body = serde_json::from_slice(&request.body).unwrap();
    (request, body)
}

#[test]
fn pagerduty_gets_a_trigger() {
    let check = |severity: Severity, expected: &str| {
        let (_, body) = request(0, &notification(Finding { severity, ..at("r", "ann", NOW) }));
        assert_eq!(body["payload"]["severity"], expected);
    };
    check(Severity::Critical, "critical");
    check(Severity::High, "error");
    check(Severity::Medium, "warning");
    check(Severity::Low, "info");
    let (_, body) = request(0, &notification(at("r", "ann", NOW)));
    let field = |pointer: &str| body.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(field("/routing_key"), "R0000000000000000000000000000000");
    assert_eq!(field("/event_action"), "trigger");
    assert_eq!(field("/dedup_key"), "stakeout/0123456789abcdef0123456789abcdef/3");
    assert_eq!(field("/payload/summary"), "ann read 21 secrets in ten minutes");
    assert_eq!(field("/payload/source"), "prod");
    assert_eq!(field("/payload/timestamp"), "2023-11-14T22:13:20Z");
    assert_eq!(field("/links/0/href"), "https://soc.example/incidents/1");
    assert_eq!(field("/payload/custom_details/entity/actor_user_name"), "ann");
    assert_eq!(field("/payload/custom_details/values/secrets"), 21);
    assert_eq!(field("/payload/custom_details/evidence/0/raw"), "{\"verb\":\"get\"}");
    assert_eq!(field("/payload/custom_details/triage"), "Ask the owner.");
    assert_eq!(field("/payload/custom_details/query"), "SELECT raw FROM kubernetes_calls");
}

#[test]
fn a_page_always_fits_and_says_what_it_left_out() {
    let huge = "é".repeat(150_000);
    let mut finding = at("r", "ann", NOW);
    finding.summary = huge.clone();
    finding.evidence.events = (0..20).map(|i| event(NOW + i, &huge)).collect();
    finding.evidence.events[7].raw = "small".to_owned();
    finding.values.insert("blob".to_owned(), Value::from(huge.repeat(3)));
    finding.entity.push(("agent".to_owned(), huge.repeat(2)));
    let notification = notification(finding);
    let Subject::Finding { evidence_sha256, .. } = &notification.subject else { unreachable!() };
    let check = |kind: usize, details: &str| {
        let (request, body) = request(kind, &notification);
        assert!(request.body.len() <= 512_000, "{}", request.body.len());
        let details = body.pointer(details).unwrap();
        assert_eq!(details["evidence_sha256"], evidence_sha256.as_str());
        assert_eq!(details["evidence"][7]["raw"], "small");
        assert_eq!(details["evidence"][0]["event_uid"], format!("uid-{NOW}"));
        let left_out = details["left_out"].as_array().unwrap();
        assert_eq!(left_out[..2], ["values", "entity"]);
        assert!(left_out.len() == 20 && left_out[2..].iter().all(|l| l.as_str().unwrap().ends_with("].raw")));
        body
    };
    let body = check(0, "/payload/custom_details");
    assert_eq!(body["payload"]["summary"].as_str().unwrap().chars().count(), 1024);
    assert_eq!(body["links"][0]["href"], "https://soc.example/incidents/1");
    check(1, "/unmapped/stakeout");
}

/// HMAC written out (RFC 2104), so that the signature is not checked by the code that made it.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = [block.map(|b| b ^ 0x36).as_slice(), message].concat();
    let outer = [block.map(|b| b ^ 0x5c).as_slice(), Sha256::digest(inner).as_slice()].concat();
    Sha256::digest(outer).to_vec()
}

#[test]
fn webhooks_are_signed_after_the_standard() {
    let (request, body) = request(1, &notification(at("r", "ann", NOW)));
    let header = |name: &str| request.headers.iter().find(|(n, _)| *n == name).unwrap().1.as_str();
    assert_eq!((header("webhook-id"), header("webhook-timestamp")), ("page_1", "1700000000"));
    let signed = [b"page_1.1700000000.".as_slice(), &request.body].concat();
    let expected = base64::engine::general_purpose::STANDARD.encode(hmac_sha256(WEBHOOK_KEY, &signed));
    assert_eq!(header("webhook-signature"), format!("v1,{expected}"));
    let expected_ocsf = [
        ("/class_uid", Value::from(2004)),
        ("/category_uid", 2.into()),
        ("/type_uid", 200_401.into()),
        ("/severity_id", 4.into()),
        ("/time", 1_700_000_000_000i64.into()),
        ("/finding_info/uid", "0123456789abcdef0123456789abcdef".into()),
        ("/finding_info/analytic/name", "r".into()),
        ("/finding_info/attacks/0/technique/uid", "T1552".into()),
        ("/finding_info/attacks/0/sub_technique/uid", "T1552.007".into()),
        ("/unmapped/stakeout/entity/cluster", "prod".into()),
    ];
    for (pointer, expected) in expected_ocsf {
        assert_eq!(body.pointer(pointer), Some(&expected), "{pointer}");
    }
}

#[test]
fn several_secrets_sign_side_by_side() {
    let house = House::new();
    let mut config = house.config("hook", "http://x").receivers.remove(1);
    let webhook = config.webhook.as_mut().unwrap();
    webhook.secrets.push(webhook.secrets[0].clone());
    let receiver = Receiver::new(&config).unwrap();
    let request = receiver.request("page_1", &notification(at("r", "ann", NOW)), NOW);
    let signature = &request.headers.iter().find(|(n, _)| *n == "webhook-signature").unwrap().1;
    assert_eq!(signature.split(' ').filter(|s| s.starts_with("v1,")).count(), 2);
}

#[test]
fn a_flood_says_how_many_and_how_to_see_them() {
    let flood = Flood {
        rule: "noisy".to_owned(),
        title: "Noise".to_owned(),
        severity: Severity::Medium,
        hour: NOW,
        incidents: 412,
        cap: 100,
        query: "stakeout alerts --rule noisy".to_owned(),
    };
    let notification = Notification { link: None, subject: Subject::Flood(flood), ..notification(at("r", "ann", NOW)) };
    let (_, body) = request(0, &notification);
    let summary = body["payload"]["summary"].as_str().unwrap();
    assert!(summary.contains("noisy opened 412 incidents") && summary.contains("first 100"), "{summary}");
    assert_eq!(body["payload"]["custom_details"]["query"], "stakeout alerts --rule noisy");
}
