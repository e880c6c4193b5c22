//! Everyday requests. Each is about a running pod: who takes the action there calls (`actors.rs`), and what is called
//! for lives in the pod's namespace.

use event::Micros;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

use super::Request;
use super::actions::{Action, actions, on_config_maps, on_pods};
use super::actors::{Actor, discoverer};
use super::bodies::{Kind, Scene};
use super::naming::{name, put_query};
use crate::random::{chance, mix, normal, pick, put, quantile, uuid, zipf_of};
use crate::world::{CLUSTERS, Pod, Population, Sizes, namespace, team};

/// What the background of one frame depends on.
pub struct Background<'a> {
    pub sizes: &'a Sizes,
    pub population: Population,
    /// Counts frames.
    pub epoch: u64,
    /// The event's number: resource versions rise with it.
    pub number: u64,
    /// Every request at level RequestResponse.
    pub bulk: bool,
    /// The request is the creation or the deletion of the frame's `nth` newcomer.
    pub life: Option<(Life, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Created,
    Deleted,
}

/// An event at its time.
pub struct Told {
    pub cluster: &'static str,
    pub at: Micros,
    pub bytes: Vec<u8>,
}

/// From the request's arrival to the end of its answer, in microseconds.
const TOOK_US: [(f64, f64); 6] =
    [(0.0, 700.0), (0.2, 2_100.0), (0.5, 4_300.0), (0.95, 28_000.0), (0.99, 44_000.0), (1.0, 160_000.0)];

/// Workloads that read their own secrets themselves, and how far apart they are among all.
const SECRET_READERS: u64 = 60;
const SECRET_READER_STEP: u64 = 7;

/// The request whose first told stage ends at `at`; a watch tells its end later too.
pub fn background(rng: &mut SmallRng, at: Micros, of: &Background<'_>) -> Vec<Told> {
    let pod = match of.life {
        Some((Life::Created, nth)) => of.population.newcomer(nth),
        Some((Life::Deleted, nth)) => of.population.leaver(nth),
        None => of.population.running(rng),
    };
    let level = level(rng, of);
    let size = (level == "RequestResponse").then(|| body_size(rng));
    let drawn = match (of.life, level) {
        (Some((life, _)), _) => Some(of_life(rng, life, &pod)),
        (None, "Metadata") if of.population.fresh => beside_lives(rng),
        (None, "Metadata") => actions().draw(rng).map(|action| with_actor(rng, action)),
        // At level Request what people send is logged, what they are answered is not.
        (None, _) => {
            let action = with_body(rng, level, size.unwrap_or(0));
            Some(with_actor(rng, action))
        }
    };
    let Some((action, actor)) = drawn else { return vec![discovery(rng, at, of, &pod)] };
    let reads_secret = actor == Actor::Workload && action.resource == "secrets";
    let pod = if reads_secret { secret_reader(rng, of) } else { pod };
    resource(rng, at, of, &pod, (action, actor), level, size)
}

fn level(rng: &mut SmallRng, of: &Background<'_>) -> &'static str {
    match rng.random_range(0..100) {
        _ if of.bulk => "RequestResponse",
        // Where pods come and go this fast, nobody keeps their manifests.
        _ if of.population.fresh && of.life.is_some() => "Metadata",
        0..85 => "Metadata",
        // Elsewhere some do, together with what became of them.
        85..90 if of.life.is_some() => "Metadata",
        85..90 => "Request",
        _ => "RequestResponse",
    }
}

/// The action that begins or ends a pod's life, and who takes it.
fn of_life(rng: &mut SmallRng, life: Life, pod: &Pod) -> (Action, Actor) {
    match life {
        Life::Created if pod.is_of_job() => (on_pods("create"), Actor::Controller("job-controller")),
        Life::Created => with_actor(rng, on_pods("create")),
        Life::Deleted => with_actor(rng, on_pods("delete")),
    }
}

/// Many lives take the place of other requests about objects, but not of discovery (`None`), and what has just been
/// started is followed: by people who look at it, and by programs that ask how far theirs are.
fn beside_lives(rng: &mut SmallRng) -> Option<(Action, Actor)> {
    match rng.random_range(0..100) {
        0..18 => None,
        18..26 => Some((on_pods("get"), Actor::Engineer)),
        26 => Some((on_pods("list"), Actor::Workload)),
        _ => actions().draw(rng).map(|action| with_actor(rng, action)),
    }
}

fn with_actor(rng: &mut SmallRng, action: Action) -> (Action, Actor) {
    (action, pick(rng, action.who))
}

/// A pod that reads secrets over the API: most are given theirs by the kubelet.
fn secret_reader(rng: &mut SmallRng, of: &Background<'_>) -> Pod {
    of.population.settled(SECRET_READER_STEP * zipf_of(rng, SECRET_READERS, 1.0))
}

/// Bytes of a line with bodies: log-normal (median 2.2 KB, 95 % within 17 KB), and one in 500 of 60 to 220 KB.
fn body_size(rng: &mut SmallRng) -> usize {
    if rng.random_range(0..500) == 0 {
        return 60_000 + rng.random_range(0..160_000);
    }
    (2_164.0 * crate::random::exp(1.275 * normal(rng))).min(60_000.0) as usize
}

/// An action whose objects can be as large as the body is to be; at level Request a patch.
fn with_body(rng: &mut SmallRng, level: &str, size: usize) -> Action {
    for _ in 0..128 {
        if let Some(action) = actions().draw(rng)
            && action.verb != "watch"
            && (level == "RequestResponse" || action.verb == "patch")
            && action.kind.largest(action.verb) >= size
        {
            return action;
        }
    }
    on_config_maps(if level == "Request" { "patch" } else { "get" })
}

const GROUPS: [&str; 24] = [
    "apps/v1",
    "batch/v1",
    "autoscaling/v2",
    "policy/v1",
    "networking.k8s.io/v1",
    "rbac.authorization.k8s.io/v1",
    "storage.k8s.io/v1",
    "coordination.k8s.io/v1",
    "events.k8s.io/v1",
    "discovery.k8s.io/v1",
    "node.k8s.io/v1",
    "apiextensions.k8s.io/v1",
    "apiregistration.k8s.io/v1",
    "authentication.k8s.io/v1",
    "authorization.k8s.io/v1",
    "certificates.k8s.io/v1",
    "flowcontrol.apiserver.k8s.io/v1",
    "scheduling.k8s.io/v1",
    "monitoring.coreos.com/v1",
    "metrics.k8s.io/v1beta1",
    "cert-manager.io/v1",
    "acme.cert-manager.io/v1",
    "argoproj.io/v1alpha1",
    "snapshot.storage.k8s.io/v1",
];

fn discovery(rng: &mut SmallRng, at: Micros, of: &Background<'_>, pod: &Pod) -> Told {
    let caller = discoverer(rng).caller(rng, of.sizes, pod, of.epoch).discovering();
    let group = match rng.random_range(0..10) {
        // Custom resources.
        0..4 => format!("{}.corp.example/v1{}", team(rng.next_u64()), pick(rng, &["", "alpha1", "beta1"])),
        _ => GROUPS[zipf_of(rng, GROUPS.len() as u64, 0.5) as usize].to_owned(),
    };
    let uri = match rng.random_range(0..20) {
        0..2 => "/api?timeout=32s".to_owned(),
        2..4 => "/apis?timeout=32s".to_owned(),
        4 => "/api/v1".to_owned(),
        5 => pick(rng, &["/readyz", "/livez", "/healthz", "/version"]).to_string(),
        6 => "/api/v1?timeout=32s".to_owned(),
        7..9 => format!("/openapi/v3/apis/{group}?hash={:032X}", mix(0xA1, of.epoch / 64) as u128 * 0xFFFF_FFFB),
        9..12 => format!("/apis/{group}"),
        _ => format!("/apis/{group}?timeout=32s"),
    };
    let code = if chance(rng, 3.0) { 404 } else { 200 };
    let request = Request {
        audit_id: uuid(rng),
        verb: "get",
        uri,
        object: String::new(),
        code,
        caller: &caller,
        body: String::new(),
        level: "Metadata",
    };
    let took = quantile(rng, &TOOK_US) as i64;
    Told { cluster: pod.cluster, at, bytes: request.render("ResponseComplete", at - took, at) }
}

/// Controllers and add-ons look at all namespaces at once, some people too. A kubelet selects the pods of its node
/// among all, and what its pods mount by name; of secrets only the cluster's own loops see all.
fn looks_everywhere(rng: &mut SmallRng, resource: &str, actor: Actor) -> bool {
    match (actor, resource) {
        (Actor::Workload, _) | (Actor::Kubelet, "secrets" | "configmaps") => false,
        (Actor::Kubelet, _) | (_, "secrets") => true,
        _ => chance(rng, 60.0),
    }
}

/// Who is refused is mostly one program that asks for one thing over and over: of eight resources that it deals with it
/// was never given one.
fn lacks(username: &str, resource: &str) -> bool {
    let asked = username.bytes().chain(resource.bytes());
    asked.fold(0, |sum, byte| mix(sum, u64::from(byte))).is_multiple_of(8)
}

/// Resource versions of a cluster rise with the stream.
fn resource_version(pod: &Pod, number: u64) -> u64 {
    40_000_000 * (1 + pod.workload_number % CLUSTERS) + number * 3
}

fn resource(
    rng: &mut SmallRng,
    at: Micros,
    of: &Background<'_>,
    pod: &Pod,
    (action, actor): (Action, Actor),
    level: &'static str,
    size: Option<usize>,
) -> Vec<Told> {
    let Action { verb, group, version, resource, kind, .. } = action;
    let many = matches!(verb, "list" | "watch" | "deletecollection");
    let everywhere =
        action.cluster_wide || many && verb != "deletecollection" && looks_everywhere(rng, resource, actor);
    let caller = actor.caller(rng, of.sizes, pod, of.epoch);
    let space = match (kind, actor) {
        (Kind::Lease, Actor::Kubelet) => "kube-node-lease".to_owned(),
        (Kind::Lease, Actor::System(_)) => "kube-system".to_owned(),
        (Kind::Pod | Kind::Secret, _) => pod.namespace.clone(),
        _ if actor.is_cluster_wide() && chance(rng, 35.0) => namespace(zipf_of(rng, 250, 1.0)),
        _ => pod.namespace.clone(),
    };
    let name = name(rng, of, pod, kind, actor);
    let (base, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let nameless = many || verb == "create" && sub.is_empty();
    let mut uri = String::with_capacity(160);
    match group {
        "" => put!(&mut uri, "/api/{version}"),
        _ => put!(&mut uri, "/apis/{group}/{version}"),
    }
    if !everywhere {
        put!(&mut uri, "/namespaces/{space}");
    }
    put!(&mut uri, "/{base}");
    if !nameless {
        put!(&mut uri, "/{name}");
    }
    if !sub.is_empty() {
        put!(&mut uri, "/{sub}");
    }
    let now = resource_version(pod, of.number);
    put_query(rng, &mut uri, (&action, actor), now, &name, pod);

    let mut object = format!(r#""resource":"{base}""#);
    if !everywhere {
        put!(&mut object, r#","namespace":"{space}""#);
    }
    // The server knows a new object's name only if the request had it.
    if !nameless || verb == "create" && kind != Kind::Review && kind != Kind::Pod {
        put!(&mut object, r#","name":"{name}""#);
    }
    if kind == Kind::Pod && matches!(verb, "update" | "patch") {
        put!(&mut object, r#","uid":"{}""#, pod.uid);
    }
    if !group.is_empty() {
        put!(&mut object, r#","apiGroup":"{group}""#);
    }
    put!(&mut object, r#","apiVersion":"{version}""#);
    // Kubelets patch what they report, whatever it was before.
    if verb == "update" || verb == "patch" && actor != Actor::Kubelet {
        put!(&mut object, r#","resourceVersion":"{}""#, now - rng.random_range(1..4_000));
    }
    if !sub.is_empty() {
        put!(&mut object, r#","subresource":"{sub}""#);
    }
    let code = match (verb, rng.random_range(0..1000)) {
        // Installers make what is there already.
        ("create", 32..970) if matches!(kind, Kind::Namespace | Kind::Crd) => 409,
        ("create", _) if of.life.is_some() => 201,
        _ if of.life.is_some() => 200,
        (_, 0..32) if lacks(&caller.username, resource) => 403,
        ("get" | "delete" | "patch", 4..75) => 404,
        ("update", 4..40) => 409,
        ("create", _) => 201,
        _ => 200,
    };
    let mut body = String::new();
    let scene = Scene { pod, population: &of.population, version: now, at, number: mix(0xA2, of.number) };
    match size {
        _ if level == "Metadata" || code >= 400 => {}
        None => scene.put_request(rng, &mut body, &action, &name, 230),
        Some(size) => scene.put_both(rng, &mut body, &action, &name, size.saturating_sub(1_150)),
    }
    let request = Request { audit_id: uuid(rng), verb, uri, object, code, caller: &caller, body, level };
    let took = quantile(rng, &TOOK_US) as i64;
    if verb != "watch" {
        let bytes = request.render("ResponseComplete", at - took, at);
        return vec![Told { cluster: pod.cluster, at, bytes }];
    }
    let end = at + rng.random_range(466_000_000..595_000_000);
    let started = request.render("ResponseStarted", at - took / 4, at);
    let complete = request.render("ResponseComplete", at - took / 4, end);
    vec![Told { cluster: pod.cluster, at, bytes: started }, Told { cluster: pod.cluster, at: end, bytes: complete }]
}
