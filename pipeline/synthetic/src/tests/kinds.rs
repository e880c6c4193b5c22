//! Who does what in the background: every kind of principal keeps to what it is there for, and to its habits.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{options, parse, text};
use crate::{Event, Generator, Source, Stream};

/// The background of the steady stream, each event once.
fn background(seed: u64, count: usize, of: Source) -> impl Iterator<Item = Value> {
    background_of(Stream::Steady, seed, count, of)
}

fn background_of(stream: Stream, seed: u64, count: usize, of: Source) -> impl Iterator<Item = Value> {
    let mut seen = BTreeSet::new();
    let events = Generator::new(options(seed, stream)).take(count);
    events
        .filter(move |event| event.source == of && seen.insert(crate::digest(&event.bytes)))
        .map(|event: Event| parse(&event))
}

fn field<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn succeeded(value: &Value) -> bool {
    value["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300)
}

#[test]
fn a_kubelet_sees_to_its_own_node_and_the_pods_on_it() {
    let mut node_of = BTreeMap::<String, String>::new();
    let mut selected = 0;
    for event in background(1, 60_000, Source::Kubernetes) {
        let Some(node) = text(&event, "/user/username").strip_prefix("system:node:") else { continue };
        let (resource, name) = (field(&event, "/objectRef/resource"), field(&event, "/objectRef/name"));
        let uri = text(&event, "/requestURI");
        match (resource, text(&event, "/verb")) {
            ("pods", "list" | "watch") => {
                selected += 1;
                assert!(uri.contains(&format!("fieldSelector=spec.nodeName%3D{node}")), "{event}");
            }
            ("secrets" | "configmaps", "list" | "watch") => {
                assert!(uri.contains("fieldSelector=metadata.name%3D"), "{event}");
            }
            ("pods", _) => {
                let first = node_of.entry(name.to_owned()).or_insert_with(|| node.to_owned());
                assert_eq!(first, node, "{event}");
            }
            ("nodes" | "csinodes", "get" | "update" | "patch") => assert_eq!(name, node, "{event}"),
            ("leases", _) => {
                assert_eq!(field(&event, "/objectRef/namespace"), "kube-node-lease", "{event}");
                assert!(name.is_empty() || name == node, "{event}");
            }
            _ => {}
        }
    }
    assert!(node_of.len() > 200 && selected > 50, "{} {selected}", node_of.len());
}

#[test]
fn control_loops_do_their_own_work_only() {
    let loops: [(&str, &[&str]); 6] = [
        ("horizontal-pod-autoscaler", &["horizontalpodautoscalers", "deployments"]),
        ("root-ca-cert-publisher", &["configmaps"]),
        ("cronjob-controller", &["cronjobs", "jobs"]),
        ("endpointslice-controller", &["endpointslices", "services"]),
        ("persistent-volume-binder", &["persistentvolumes", "persistentvolumeclaims"]),
        ("attachdetach-controller", &["persistentvolumes", "volumeattachments"]),
    ];
    let mut seen = BTreeSet::new();
    for event in background(2, 60_000, Source::Kubernetes) {
        let Some(name) = text(&event, "/user/username").strip_prefix("system:serviceaccount:kube-system:") else {
            continue;
        };
        if let Some((name, resources)) = loops.iter().find(|known| known.0 == name) {
            let resource = field(&event, "/objectRef/resource");
            assert!(resources.contains(&resource), "{event}");
            seen.insert(*name);
        }
    }
    assert_eq!(seen.len(), loops.len(), "{seen:?}");
}

#[test]
fn rights_are_written_by_those_who_deploy_and_collections_deleted_with_their_namespace() {
    let deploy = [
        "system:serviceaccount:argocd:argocd-application-controller",
        "system:serviceaccount:flux-system:kustomize-controller",
        "system:serviceaccount:ci:deployer",
        "system:serviceaccount:kube-system:clusterrole-aggregation-controller",
    ];
    let (mut writes, mut collections) = (0, 0);
    for event in background(3, 60_000, Source::Kubernetes) {
        let (user, verb) = (text(&event, "/user/username"), text(&event, "/verb"));
        let resource = field(&event, "/objectRef/resource");
        let rights = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"].contains(&resource);
        if rights && ["create", "update", "patch", "delete"].contains(&verb) {
            writes += 1;
            assert!(deploy.contains(&user), "{event}");
        }
        if verb == "deletecollection" {
            collections += 1;
            assert_eq!(user, "system:serviceaccount:kube-system:namespace-controller");
        }
    }
    assert!(writes > 100 && collections > 100, "{writes} {collections}");
}

#[test]
fn secrets_are_read_by_the_same_few_again_and_again() {
    let all_seeing = ["system:kube-controller-manager", "system:serviceaccount:kube-system:generic-garbage-collector"];
    let mut pairs = BTreeSet::new();
    let (mut reads, mut half) = (0, 0);
    for (at, event) in background(4, 160_000, Source::Kubernetes).enumerate() {
        let (user, verb) = (text(&event, "/user/username"), text(&event, "/verb"));
        let reading = ["get", "list", "watch"].contains(&verb) && field(&event, "/objectRef/resource") == "secrets";
        if !reading || user.starts_with("system:node:") || !succeeded(&event) {
            continue;
        }
        let namespace = field(&event, "/objectRef/namespace");
        if namespace.is_empty() {
            let quotas = "system:serviceaccount:kube-system:resourcequota-controller";
            assert!(all_seeing.contains(&user) || user == quotas, "{event}");
        } else {
            // Nobody reads in another's namespace.
            assert!(user.starts_with(&format!("system:serviceaccount:{namespace}:")), "{event}");
        }
        if verb == "get" {
            reads += 1;
            pairs.insert(format!("{user} {namespace}/{}", field(&event, "/objectRef/name")));
        }
        if at < 64_000 {
            half = pairs.len();
        }
    }
    assert!(reads > 300, "{reads}");
    assert!(pairs.len() < 70 && pairs.len() < half + half / 3, "{half} then {}", pairs.len());
}

#[test]
fn applications_read_their_own_few_cloud_secrets() {
    let mut pairs = BTreeSet::new();
    let (mut reads, mut half) = (0, 0);
    for (at, event) in background(5, 300_000, Source::CloudTrail).enumerate() {
        let context = field(&event, "/requestParameters/encryptionContext/SecretARN");
        let secret = match text(&event, "/eventName") {
            "GetSecretValue" => field(&event, "/requestParameters/secretId"),
            "Decrypt" if !context.is_empty() => context,
            _ => continue,
        };
        let who = match text(&event, "/userIdentity/type") {
            "AssumedRole" => text(&event, "/userIdentity/sessionContext/sessionIssuer/arn"),
            _ => field(&event, "/userIdentity/arn"),
        };
        for other in ["-ci-", "AWSReservedSSO", "audit-", "platform-admin", "service-role"] {
            assert!(!who.contains(other), "{event}");
        }
        reads += 1;
        pairs.insert(format!("{who} {secret}"));
        if at < 20_000 {
            half = pairs.len();
        }
    }
    assert!(reads > 800, "{reads}");
    assert!(pairs.len() < 200 && pairs.len() < half + half / 3, "{half} then {}", pairs.len());
}

#[test]
fn each_domain_of_the_cloud_has_its_callers() {
    let mut seen = BTreeMap::<&str, u32>::new();
    for event in background(6, 150_000, Source::CloudTrail) {
        let role = field(&event, "/userIdentity/sessionContext/sessionIssuer/userName");
        let changes = event["readOnly"] == false;
        let (name, kind) = (text(&event, "/eventName"), text(&event, "/userIdentity/type"));
        // The owner of an account is no everyday user of it.
        assert!(kind != "Root" || !changes, "{event}");
        let wanted: &[&str] = match (text(&event, "/eventSource"), name) {
            ("ec2.amazonaws.com", "RunInstances" | "TerminateInstances") => &["-vm-"],
            ("ec2.amazonaws.com", "DeleteSnapshot" | "DeregisterImage") => &["AWSBackup", "AWSDataLifecycle"],
            ("rds.amazonaws.com", "DeleteDBSnapshot") => &["AWSBackup", "AWSDataLifecycle"],
            ("iam.amazonaws.com", "CreateAccessKey") => continue,
            ("iam.amazonaws.com", _) if changes => &["-ci-iam-", "platform-admin"],
            ("cloudtrail.amazonaws.com", _) if changes => &["-ci-iam-", "platform-admin"],
            ("secretsmanager.amazonaws.com", _) if changes => &["-ci-vault-"],
            ("guardduty.amazonaws.com", _) => &["audit-guard-"],
            ("kms.amazonaws.com", _) => {
                assert!(!role.contains("AWSReservedSSO") && !role.contains("audit-"), "{event}");
                continue;
            }
            _ => continue,
        };
        assert!(wanted.iter().any(|part| role.contains(part)), "{event}");
        *seen.entry(wanted[0]).or_default() += 1;
    }
    assert!(seen.len() >= 5 && seen.values().all(|count| *count > 10), "{seen:?}");
}

#[test]
fn a_program_does_the_same_few_things_and_a_long_term_key_stays_where_it_is() {
    let mut services = BTreeMap::<String, BTreeSet<String>>::new();
    let mut addresses = BTreeMap::<String, BTreeSet<String>>::new();
    for event in background(7, 150_000, Source::CloudTrail) {
        let service = text(&event, "/eventSource").to_owned();
        let role = field(&event, "/userIdentity/sessionContext/sessionIssuer/arn");
        let key = field(&event, "/userIdentity/accessKeyId");
        if key.starts_with("AKIA") {
            services.entry(key.to_owned()).or_default().insert(service);
            let from = text(&event, "/sourceIPAddress").to_owned();
            addresses.entry(key.to_owned()).or_default().insert(from);
        } else if !role.is_empty() && !role.contains("AWSReservedSSO") && !role.contains("platform-admin") {
            services.entry(role.to_owned()).or_default().insert(service);
        }
    }
    assert!(addresses.len() > 20 && services.len() > 200, "{} {}", addresses.len(), services.len());
    let most = services.iter().max_by_key(|(_, of)| of.len()).unwrap();
    assert!(most.1.len() <= 5, "{most:?}");
    assert!(addresses.values().all(|from| from.len() == 1), "{addresses:?}");
}

#[test]
fn a_control_loop_calls_from_one_place_with_each_of_its_tokens() {
    let mut from = BTreeMap::<String, BTreeSet<String>>::new();
    for event in background(9, 150_000, Source::Kubernetes) {
        let loops = text(&event, "/userAgent").starts_with("kube-controller-manager/");
        let token = field(&event, "/user/extra/authentication.kubernetes.io~1credential-id/0");
        if loops && !token.is_empty() {
            let place = format!("{} {}", text(&event, "/user/username"), text(&event, "/sourceIPs/0"));
            from.entry(token.to_owned()).or_default().insert(place);
        }
    }
    assert!(from.len() > 50 && from.values().all(|places| places.len() == 1), "{from:?}");
}

#[test]
fn what_the_api_offers_is_allowed_to_all_by_one_binding() {
    let mut told = 0;
    for event in background(10, 20_000, Source::Kubernetes) {
        let reason = text(&event, "/annotations/authorization.k8s.io~1reason");
        if event.get("objectRef").is_none() && !reason.is_empty() {
            told += 1;
            assert!(reason.contains(r#"ClusterRole "system:discovery" to Group "system:authenticated""#), "{event}");
        }
    }
    assert!(told > 500, "{told}");
}

#[test]
fn what_is_logged_of_a_request_without_its_answer_is_a_patch() {
    let of_request = |event: &Value| event["level"] == "Request";
    let logged: Vec<Value> = background(11, 60_000, Source::Kubernetes).filter(of_request).collect();
    assert!(logged.len() > 1_000, "{}", logged.len());
    assert!(logged.iter().all(|event| event["verb"] == "patch"));
}

#[test]
fn no_manifests_are_kept_of_pods_that_come_and_go_fast() {
    let mut lives = 0;
    for event in background_of(Stream::HighCardinality, 12, 20_000, Source::Kubernetes) {
        let of_pods = field(&event, "/objectRef/resource") == "pods" && event["objectRef"].get("subresource").is_none();
        if of_pods && ["create", "delete"].contains(&text(&event, "/verb")) {
            lives += 1;
            assert_eq!(event["level"], "Metadata", "{event}");
        }
    }
    assert!(lives > 1_500, "{lives}");
}

#[test]
fn each_session_of_the_hot_role_is_one_of_many_programs() {
    let mut agents = BTreeMap::<String, BTreeSet<String>>::new();
    for event in background_of(Stream::HotKey, 13, 60_000, Source::CloudTrail) {
        if field(&event, "/userIdentity/sessionContext/sessionIssuer/userName") == "legal-ci-fn-0" {
            let key = text(&event, "/userIdentity/accessKeyId").to_owned();
            agents.entry(key).or_default().insert(text(&event, "/userAgent").to_owned());
        }
    }
    assert!(agents.len() > 60 && agents.values().all(|of| of.len() == 1), "{agents:?}");
    assert!(agents.into_values().flatten().collect::<BTreeSet<_>>().len() > 20);
}

#[test]
fn alerts_are_about_the_programs_that_cause_them() {
    let causes: [(&str, &[&str]); 6] = [
        ("Clear Log Activities", &["logrotate", "fluent-bit", "java"]),
        ("Update Package Repository", &["apt-get", "unattended-upgr", "dpkg"]),
        ("Modify binary dirs", &["dpkg", "tar", "rsync"]),
        ("Read sensitive file trusted after startup", &["sshd", "cron", "sudo"]),
        ("Packet socket created in container", &["tcpdump", "ip", "envoy"]),
        ("User mgmt binaries", &["useradd"]),
    ];
    let mut seen = BTreeMap::<&str, u32>::new();
    let (mut patched, mut in_containers) = (0, 0);
    for event in background(8, 300_000, Source::Falco) {
        let rule = text(&event, "/rule");
        let Some((rule, programs)) = causes.iter().find(|known| known.0 == rule) else { continue };
        assert!(programs.contains(&text(&event, "/output_fields/proc.name")), "{event}");
        *seen.entry(rule).or_default() += 1;
        if *rule == "Update Package Repository" {
            patched += 1;
            in_containers += u32::from(text(&event, "/output_fields/container.id") != "host");
        }
    }
    assert!(seen.len() == causes.len() && seen.values().all(|count| *count >= 5), "{seen:?}");
    // Machines are patched, containers are replaced.
    assert!(in_containers * 5 < patched, "{in_containers} of {patched}");
}
