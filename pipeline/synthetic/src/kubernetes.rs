//! Kubernetes audit events (`audit.k8s.io/v1`), by the mix of verbs and resources that API servers show.

use event::{Micros, format_micros};
use rand::Rng;
use rand::rngs::SmallRng;

use super::world::{Caller, Pod, namespace, uuid, zipf};

/// One request, rendered for a stage.
pub struct Request<'a> {
    pub audit_id: String,
    pub verb: &'a str,
    pub uri: String,
    pub object: String,
    pub code: u16,
    pub caller: &'a Caller,
    /// Appended before `annotations`, with a leading comma: bodies.
    pub body: String,
    pub level: &'a str,
}

impl Request<'_> {
    /// `received` and `at` are the request's arrival and this stage's time.
    pub fn render(&self, stage: &str, received: Micros, at: Micros) -> Vec<u8> {
        let Request { audit_id, verb, uri, object, code, caller, body, level } = self;
        let decision = if *code == 403 { "forbid" } else { "allow" };
        let reason = if *code == 403 { "" } else { "RBAC: allowed by ClusterRoleBinding" };
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{level}","auditID":"{audit_id}","stage":"{stage}","requestURI":"{uri}","verb":"{verb}","user":{{"username":"{user}","groups":[{groups}]}},"sourceIPs":["{ip}"],"userAgent":"{agent}","objectRef":{{{object}}},"responseStatus":{{"metadata":{{}},"code":{code}}}{body},"requestReceivedTimestamp":"{received}","stageTimestamp":"{at}","annotations":{{"authorization.k8s.io/decision":"{decision}","authorization.k8s.io/reason":"{reason}"}}}}"#,
            user = caller.username,
            groups = caller.groups,
            ip = caller.ip,
            agent = caller.agent,
            received = micro_time(received),
            at = micro_time(at),
        )
        .into_bytes()
    }
}

/// Kubernetes' `MicroTime` always has six fraction digits.
pub fn micro_time(at: Micros) -> String {
    let whole = format_micros(at - at.rem_euclid(1_000_000));
    format!("{}.{:06}Z", whole.trim_end_matches('Z'), at.rem_euclid(1_000_000))
}

/// One background event whose stage ends at `at`, and its cluster.
pub fn background(rng: &mut SmallRng, at: Micros) -> (&'static str, Vec<u8>) {
    let cluster = super::world::cluster(zipf(rng, super::world::CLUSTERS));
    let caller = match rng.random_range(0..100) {
        0..60 => Caller::service_account(zipf(rng, 900)),
        60..80 => Caller::controller(rng.random_range(0..4)),
        80..92 => Caller::node(zipf(rng, 90)),
        _ => Caller::human(zipf(rng, 120)),
    };
    let space = caller.namespace.clone();
    let audit_id = uuid(rng);
    let mut stage = "ResponseComplete";
    let (verb, uri, object) = match rng.random_range(0..100) {
        0..30 => get("configmaps", &space, &format!("config-{}", zipf(rng, 40))),
        30..38 => named("update", "leases", "coordination.k8s.io", &space, "leader"),
        38..60 => {
            let pod = Pod::draw(rng);
            get("pods", &pod.namespace, &pod.name)
        }
        60..64 => {
            // A workload reads its own credentials, again and again.
            let name = format!("{}-credentials", ["db", "queue"][rng.random_range(0..2)]);
            get("secrets", &space, &name)
        }
        64..72 => list("list", "pods", &namespace(zipf(rng, 120)), "?limit=500"),
        72..82 => {
            stage = "ResponseStarted";
            let version = 7_000_000 + rng.random_range(0..900_000);
            let query = format!("?allowWatchBookmarks=true&resourceVersion={version}&watch=true");
            list("watch", "endpointslices", &space, &query)
        }
        82..90 => named("create", "events", "", &space, &format!("e.{:x}", rng.random::<u32>())),
        90..95 => named("patch", "deployments", "apps", &space, &format!("app-{}", zipf(rng, 30))),
        _ => named("create", "subjectaccessreviews", "authorization.k8s.io", &space, "check"),
    };
    let code = match (verb, rng.random_range(0..1000)) {
        (_, 0..4) => 403,
        ("get", 4..60) => 404,
        ("update", 4..40) => 409,
        ("create", _) => 201,
        _ => 200,
    };
    let (level, body) = body(rng, verb, &space);
    let request = Request { audit_id, verb, uri, object, code, caller: &caller, body, level };
    let took = rng.random_range(800..30_000);
    (cluster, request.render(stage, at - took, at))
}

type Call = (&'static str, String, String);

fn get(resource: &str, space: &str, name: &str) -> Call {
    ("get", uri("", space, resource, Some(name)), object("", space, resource, Some(name)))
}

fn named(verb: &'static str, resource: &str, group: &str, space: &str, name: &str) -> Call {
    let path_name = (verb != "create").then_some(name);
    (verb, uri(group, space, resource, path_name), object(group, space, resource, Some(name)))
}

fn list(verb: &'static str, resource: &str, space: &str, query: &str) -> Call {
    (verb, uri("", space, resource, None) + query, object("", space, resource, None))
}

pub fn uri(group: &str, space: &str, resource: &str, name: Option<&str>) -> String {
    let root = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
    let name = name.map(|n| format!("/{n}")).unwrap_or_default();
    format!("{root}/namespaces/{space}/{resource}{name}")
}

/// The members of an `objectRef`.
pub fn object(group: &str, space: &str, resource: &str, name: Option<&str>) -> String {
    let group = if group.is_empty() { String::new() } else { format!(r#","apiGroup":"{group}""#) };
    let name = name.map(|n| format!(r#","name":"{n}""#)).unwrap_or_default();
    format!(r#""resource":"{resource}","namespace":"{space}"{name}{group},"apiVersion":"v1""#)
}

/// Level Metadata 85 %, Request 5 %, RequestResponse 10 %; only writes have a body worth showing.
fn body(rng: &mut SmallRng, verb: &str, space: &str) -> (&'static str, String) {
    let draw = rng.random_range(0..100);
    if draw < 70 || !matches!(verb, "create" | "patch" | "update") {
        return ("Metadata", String::new());
    }
    let labels = format!(r#""app":"app-{}","team":"{space}","rev":"{}""#, zipf(rng, 30), rng.random_range(1..400));
    let manifest = format!(
        r#"{{"metadata":{{"name":"o-{:08x}","namespace":"{space}","labels":{{{labels}}},"resourceVersion":"{}"}},"spec":{{"replicas":{},"revisionHistoryLimit":3,"progressDeadlineSeconds":600}}}}"#,
        rng.random::<u32>(),
        7_000_000 + rng.random_range(0..900_000),
        rng.random_range(1..12),
    );
    if draw < 80 {
        ("Request", format!(r#","requestObject":{manifest}"#))
    } else {
        ("RequestResponse", format!(r#","requestObject":{manifest},"responseObject":{manifest}"#))
    }
}
