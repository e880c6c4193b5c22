//! What every stream promises: lines as the vendors send them, one world in all sources, order, repeats.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;

mod kinds;

fn options(seed: u64, stream: Stream) -> Options {
    Options {
        seed,
        start: 1_760_000_000 * SECOND,
        gap: 10_000,
        attack_every: 0,
        cloudtrail_delay: 0.1,
        stream,
        ..Options::default()
    }
}

fn with_attacks(seed: u64, stream: Stream) -> Options {
    Options { attack_every: 500, ..options(seed, stream) }
}

fn take(options: Options, count: usize) -> Vec<Event> {
    Generator::new(options).take(count).collect()
}

fn parse(event: &Event) -> Value {
    serde_json::from_slice(&event.bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&event.bytes)))
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("no {path} in {value}"))
}

#[test]
fn the_same_options_give_the_same_stream() {
    let make = |seed| take(options(seed, Stream::Steady), 5_000);
    assert_eq!(make(7), make(7));
    assert_ne!(make(7), make(8));
}

#[test]
fn frames_made_side_by_side_give_the_same_bytes_in_the_same_order() {
    for stream in Stream::ALL {
        let one: Vec<Event> = Generator::parallel(with_attacks(3, stream), 1).take(20_000).collect();
        let three: Vec<Event> = Generator::parallel(with_attacks(3, stream), 3).take(20_000).collect();
        assert!(one == three, "{stream:?}");
    }
}

/// A change of any of these digests changes every benchmark: make sure that it is meant, then write the new one here.
#[test]
fn streams_stay_as_they_are() {
    let digests: Vec<String> = Stream::ALL
        .into_iter()
        .map(|stream| {
            let mut hash = Sha256::new();
            let quiet = options(1, stream);
            for event in Generator::new(quiet).take(10_000) {
                hash.update(&event.bytes);
                hash.update(b"\n");
            }
            format!("{stream:?} {}", hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        })
        .collect();
    assert_eq!(digests.join("\n"), include_str!("digests.txt").trim());
}

#[test]
fn every_line_is_json_and_has_what_its_vendor_always_sends() {
    let cloudtrail = [
        "eventVersion",
        "userIdentity",
        "eventTime",
        "eventSource",
        "eventName",
        "awsRegion",
        "sourceIPAddress",
        "userAgent",
        "requestParameters",
        "responseElements",
        "requestID",
        "eventID",
        "readOnly",
        "eventType",
        "managementEvent",
        "recipientAccountId",
        "eventCategory",
    ];
    let kubernetes = [
        "kind",
        "apiVersion",
        "level",
        "auditID",
        "stage",
        "requestURI",
        "verb",
        "user",
        "sourceIPs",
        "userAgent",
        "responseStatus",
        "requestReceivedTimestamp",
        "stageTimestamp",
        "annotations",
    ];
    let falco = ["hostname", "output", "output_fields", "priority", "rule", "source", "tags", "time"];
    for stream in Stream::ALL {
        for data_events in [false, true] {
            for event in take(Options { data_events, ..options(5, stream) }, 6_000) {
                let value = parse(&event);
                let always: &[&str] = match event.source {
                    Source::CloudTrail => &cloudtrail,
                    Source::Kubernetes => &kubernetes,
                    Source::Falco => &falco,
                };
                for name in always {
                    assert!(value.get(name).is_some(), "{stream:?}: no {name} in {value}");
                }
                assert_eq!(event.cluster.is_none(), event.source == Source::CloudTrail);
            }
        }
    }
}

#[test]
fn sources_have_their_shares() {
    let mut share = BTreeMap::new();
    let events = take(Options { gap: 100_000, ..options(3, Stream::Steady) }, 60_000);
    for event in &events[20_000..] {
        *share.entry(event.source).or_insert(0.0) += 100.0 / 40_000.0;
    }
    assert!((78.0..82.0).contains(&share[&Source::Kubernetes]), "{share:?}");
    assert!((16.5..20.0).contains(&share[&Source::CloudTrail]), "{share:?}");
    assert!((1.5..2.6).contains(&share[&Source::Falco]), "{share:?}");
}

#[test]
fn repeats_are_a_fifth_of_cloudtrail_and_hardly_any_of_the_rest() {
    for (stream, wanted) in [(Stream::Steady, 20.0), (Stream::Late, 40.0)] {
        let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
        let (mut firsts, mut repeats) = (BTreeMap::new(), BTreeMap::new());
        // Short lateness, so that nearly all first deliveries have had their repeat.
        let stream = Options { cloudtrail_delay: 0.01, ..options(5, stream) };
        for (at, event) in take(stream, 120_000).into_iter().enumerate() {
            match seen.get(&event.bytes) {
                None => {
                    *firsts.entry(event.source).or_insert(0.0) += 1.0;
                    seen.insert(event.bytes, at);
                }
                Some(first) => {
                    // More than nineteen of twenty files hold.
                    assert!(at - first > 18, "{first} {at}");
                    *repeats.entry(event.source).or_insert(0.0) += 1.0;
                }
            }
        }
        let percent = |source| -> f64 { 100.0 * repeats.get(&source).unwrap_or(&0.0) / firsts[&source] };
        assert!((percent(Source::CloudTrail) - wanted).abs() < 2.5, "{}", percent(Source::CloudTrail));
        assert!(percent(Source::Kubernetes) < 0.4, "{}", percent(Source::Kubernetes));
    }
}

#[test]
fn a_pod_is_the_same_in_all_sources_and_is_named_between_its_creation_and_its_deletion_only() {
    for stream in [Stream::Steady, Stream::HighCardinality] {
        // Kubernetes and Falco are delivered as they happen; attacks have pods of their own.
        let events = take(options(2, stream), 60_000);
        let mut node = HashMap::<String, String>::new();
        let mut deleted = BTreeSet::<String>::new();
        let mut seen = BTreeSet::<String>::new();
        let (mut created, mut met) = (0, 0);
        let mut repeated = BTreeSet::new();
        for event in &events {
            if event.source == Source::CloudTrail || !repeated.insert(&event.bytes) {
                continue;
            }
            let value = parse(event);
            // What a watch says when it ends it has known since it began.
            if value["verb"] == "watch" {
                continue;
            }
            if event.source == Source::Falco {
                let Some(name) = value.pointer("/output_fields/k8s.pod.name").and_then(Value::as_str) else { continue };
                assert!(!deleted.contains(name), "{name} is gone");
                let on = text(&value, "/hostname");
                assert_eq!(node.entry(name.to_owned()).or_insert_with(|| on.to_owned()), on);
                continue;
            }
            let pointer = "/user/extra/authentication.kubernetes.io~1pod-name/0";
            if let Some(name) = value.pointer(pointer).and_then(Value::as_str) {
                assert!(!deleted.contains(name), "{name} is gone");
                seen.insert(name.to_owned());
                if let Some(on) = value.pointer("/user/extra/authentication.kubernetes.io~1node-name/0") {
                    let on = on.as_str().unwrap();
                    met += 1;
                    assert_eq!(node.entry(name.to_owned()).or_insert_with(|| on.to_owned()), on);
                }
            }
            let of_pods = value.pointer("/objectRef/resource").and_then(Value::as_str) == Some("pods");
            let Some(name) = value.pointer("/objectRef/name").and_then(Value::as_str).filter(|_| of_pods) else {
                created += usize::from(of_pods && value["verb"] == "create");
                continue;
            };
            if value["verb"] == "delete" {
                assert!(deleted.insert(name.to_owned()), "{name} is deleted twice");
            } else if value["stage"] == "ResponseComplete" {
                assert!(!deleted.contains(name), "{name} is gone");
                seen.insert(name.to_owned());
            }
        }
        assert!(created > 100 && deleted.len() > 100 && met > 50, "{created} {} {met}", deleted.len());
    }
}

#[test]
fn a_session_keeps_its_keys_and_a_principal_its_agent() {
    let mut agent = HashMap::<String, String>::new();
    let mut keys = HashMap::<String, (String, String)>::new();
    for event in take(options(4, Stream::Steady), 60_000) {
        if event.source != Source::CloudTrail {
            continue;
        }
        let value = parse(&event);
        if value["userIdentity"]["type"] != "AssumedRole" {
            continue;
        }
        let role = text(&value, "/userIdentity/sessionContext/sessionIssuer/arn").to_owned();
        let now = text(&value, "/userAgent");
        assert_eq!(agent.entry(role).or_insert_with(|| now.to_owned()), now);
        let key = text(&value, "/userIdentity/accessKeyId").to_owned();
        let since = text(&value, "/userIdentity/sessionContext/attributes/creationDate").to_owned();
        assert!(since.as_str() <= text(&value, "/eventTime"), "{value}");
        let now = (text(&value, "/userIdentity/arn").to_owned(), since);
        assert_eq!(*keys.entry(key).or_insert_with(|| now.clone()), now);
    }
    assert!(keys.len() > 200);
}

#[test]
fn resources_are_what_was_asked_for() {
    let mut checked = 0;
    for event in take(Options { data_events: true, ..options(6, Stream::Steady) }, 10_000) {
        let value = if event.source == Source::CloudTrail { parse(&event) } else { continue };
        let Some(bucket) = value.pointer("/requestParameters/bucketName").and_then(Value::as_str) else { continue };
        if let Some(arn) = value.pointer("/resources/0/ARN").and_then(Value::as_str) {
            checked += 1;
            assert!(arn.starts_with(&format!("arn:aws:s3:::{bucket}")), "{value}");
        }
    }
    assert!(checked > 500, "{checked}");
}

#[test]
fn falcos_sentence_is_made_of_its_fields() {
    for event in take(options(8, Stream::Steady), 40_000) {
        if event.source != Source::Falco {
            continue;
        }
        let value = parse(&event);
        let output = text(&value, "/output");
        for (name, field) in value["output_fields"].as_object().unwrap() {
            let shown = field.as_str().map_or_else(|| field.to_string(), str::to_owned);
            assert!(name == "evt.time" || output.contains(&format!("={shown}")), "{name}: {value}");
        }
    }
}

#[test]
fn a_watch_is_told_twice_under_one_id_and_versions_rise() {
    let mut started = BTreeSet::new();
    let (mut completed, mut version) = (0, BTreeMap::new());
    for event in take(Options { gap: 100_000, ..options(9, Stream::Steady) }, 30_000) {
        if event.source != Source::Kubernetes {
            continue;
        }
        let value = parse(&event);
        let id = text(&value, "/auditID").to_owned();
        match text(&value, "/stage") {
            "ResponseStarted" => _ = started.insert(id),
            _ if value["verb"] == "watch" && started.contains(&id) => completed += 1,
            _ => {}
        }
        if let Some(seen) = value.pointer("/objectRef/resourceVersion").and_then(Value::as_str) {
            let seen: u64 = seen.parse().unwrap();
            let highest = version.entry(event.cluster).or_insert(seen);
            assert!(seen + 60_000 > *highest, "a version far below one seen before: {value}");
            *highest = seen.max(*highest);
        }
    }
    assert!(completed > 100, "{completed}");
}

#[test]
fn each_attack_has_a_benign_twin() {
    let mut generator = Generator::new(with_attacks(1, Stream::Steady));
    generator.by_ref().take(20_000).for_each(drop);
    let (twins, attacks): (Vec<_>, Vec<_>) = generator.planted().iter().partition(|p| p.benign);
    assert_eq!(twins.len(), attacks.len());
    assert!(attacks.len() > 20);
}

#[test]
fn the_end_of_a_stream_carries_out_every_attack_that_has_begun_and_nothing_from_the_future() {
    let mut generator = Generator::new(with_attacks(1, Stream::Steady));
    let mut seen: BTreeSet<String> = generator.by_ref().take(12_345).map(|event| digest(&event.bytes)).collect();
    let now = generator.now();
    let planted: BTreeSet<String> =
        generator.planted().iter().flat_map(|p| &p.events).map(|trace| trace.sha256.clone()).collect();
    for event in generator.drain() {
        let digest = digest(&event.bytes);
        assert!(event.time <= now || planted.contains(&digest));
        seen.insert(digest);
    }
    assert!(planted.is_subset(&seen));
}

#[test]
fn one_principal_is_most_of_a_hot_stream() {
    let mut principals = BTreeMap::<String, f64>::new();
    for event in take(options(1, Stream::HotKey), 20_000) {
        if event.source == Source::CloudTrail {
            let value = parse(&event);
            let of = value.pointer("/userIdentity/sessionContext/sessionIssuer/arn").and_then(Value::as_str);
            *principals.entry(of.unwrap_or_default().to_owned()).or_default() += 1.0;
        }
    }
    let share = 100.0 * principals.values().copied().fold(0.0, f64::max) / principals.values().sum::<f64>();
    assert!((85.0..94.0).contains(&share), "{share}");
}
