//! What objects are called, and what requests ask beside the path.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

use super::actions::Action;
use super::actors::Actor;
use super::background::Background;
use super::bodies::Kind;
use crate::random::{chance, put, put_base64, zipf_of};
use crate::world::{Pod, part, team};

pub fn name(rng: &mut SmallRng, of: &Background<'_>, pod: &Pod, kind: Kind, actor: Actor) -> String {
    let of_all = zipf_of(rng, of.sizes.objects, 0.9);
    match kind {
        Kind::Pod => pod.name.clone(),
        Kind::Node => pod.node.clone(),
        Kind::Namespace => pod.namespace.clone(),
        // A workload reads its own credentials, again and again.
        Kind::Secret if actor == Actor::Pipeline => {
            format!("sh.helm.release.v1.{}.v{}", pod.workload, 1 + pod.number % 90)
        }
        Kind::Secret if actor == Actor::Workload => format!("{}-creds", pod.workload),
        // What the pod's images are pulled with: they are in a registry of one's own.
        Kind::Secret if actor == Actor::Kubelet && chance(rng, 50.0) => "regcred".to_owned(),
        Kind::Secret => format!("{}-{}", pod.workload, if pod.number.is_multiple_of(3) { "tls" } else { "creds" }),
        Kind::ServiceAccount => pod.container.to_owned(),
        Kind::Deployment | Kind::Service | Kind::Endpoints | Kind::Autoscaler | Kind::Ingress => pod.workload.clone(),
        Kind::Lease if actor == Actor::Kubelet => pod.node.clone(),
        Kind::Lease if let Actor::System(name) = actor => name.to_owned(),
        Kind::Lease => format!("{}-leader", pod.workload),
        Kind::Event => format!("{}.{:016x}", pod.name, 0x1840_0000_0000_0000 + (rng.next_u64() >> 8)),
        Kind::Volume => format!("pvc-{}", crate::random::entity_uuid(0xA3, of_all / 3)),
        Kind::Crd => format!("{}s.{}.corp.example", part(of_all), team(of_all / 12)),
        Kind::ApiService => format!("v1.{}.corp.example", team(of_all)),
        _ => format!("{}-{}-{}", team(of_all), part(of_all / 24), of_all / 288),
    }
}

pub fn put_query(
    rng: &mut SmallRng,
    uri: &mut String,
    (action, actor): (&Action, Actor),
    now: u64,
    name: &str,
    pod: &Pod,
) {
    match action.verb {
        "watch" => {
            let (version, seconds) = (now - rng.random_range(0..9_000), rng.random_range(300..600));
            uri.push_str("?allowWatchBookmarks=true");
            match action.kind {
                Kind::ConfigMap => put!(uri, "&fieldSelector=metadata.name%3D{name}"),
                Kind::Secret if actor == Actor::Kubelet => put!(uri, "&fieldSelector=metadata.name%3D{name}"),
                Kind::Pod if actor == Actor::Kubelet => put!(uri, "&fieldSelector=spec.nodeName%3D{}", pod.node),
                Kind::Node if actor == Actor::Kubelet => put!(uri, "&fieldSelector=metadata.name%3D{}", pod.node),
                _ => {}
            }
            put!(uri, "&resourceVersion={version}&timeout={}m{}s", seconds / 60, seconds % 60);
            put!(uri, "&timeoutSeconds={seconds}&watch=true");
        }
        "list" if actor == Actor::Kubelet && action.kind == Kind::Pod => {
            put!(uri, "?fieldSelector=spec.nodeName%3D{}&limit=500&resourceVersion=0", pod.node)
        }
        "list" if actor == Actor::Kubelet => {
            put!(uri, "?fieldSelector=metadata.name%3D{name}&limit=500&resourceVersion=0")
        }
        // What people look at is on the first page.
        "list" if actor == Actor::Engineer => uri.push_str("?limit=500"),
        "list" => match rng.random_range(0..4) {
            // The next page: where the last one ended.
            _ if chance(rng, 85.0) => {
                // Base64 of a JSON object: version and name of the format, then the resource version and the last key.
                uri.push_str("?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6");
                put_base64(uri, rng, 104);
                uri.push_str("&limit=500");
            }
            0 => put!(uri, "?labelSelector=app.kubernetes.io%2Fname%3D{}&limit=500", pod.workload),
            1 => put!(uri, "?limit=500&resourceVersion=0"),
            2 => put!(uri, "?resourceVersion={}&resourceVersionMatch=NotOlderThan", now - rng.random_range(0..900)),
            _ => {}
        },
        "patch" if actor == Actor::Engineer && chance(rng, 50.0) => {
            uri.push_str("?fieldManager=kubectl-client-side-apply&fieldValidation=Strict")
        }
        "get" if action.resource == "pods/log" => {
            put!(uri, "?container={}&tailLines={}", pod.container, rng.random_range(10..900))
        }
        "get" | "update" if action.kind == Kind::Lease => uri.push_str("?timeout=5s"),
        _ => {}
    }
}
