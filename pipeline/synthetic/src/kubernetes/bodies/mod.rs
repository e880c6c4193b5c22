//! Manifests for `requestObject` and `responseObject`: 22 kinds, each written for 900 workloads whose settings differ
//! in names and number (environment, ports, probes, rules, labels). An object is grown to the size that is wanted by
//! what real ones grow by: more containers, variables, rules, managers, items; never by filler.

mod metadata;
mod rules;
mod settings;
mod small;
mod workloads;

use event::Micros;
use rand::RngCore;
use rand::rngs::SmallRng;

use super::actions::Action;
use crate::random::{draw, put, zipf_of};
use crate::world::{Pod, Population};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Secret,
    Namespace,
    ServiceAccount,
    Rules,
    Pod,
    ConfigMap,
    Lease,
    Role,
    Binding,
    FlowSchema,
    Crd,
    Service,
    Endpoints,
    Node,
    Volume,
    Deployment,
    Autoscaler,
    Event,
    Ingress,
    Webhook,
    ApiService,
    Review,
}

impl Kind {
    /// Bytes that a line about one object of the kind can reasonably have.
    pub fn largest(self, verb: &str) -> usize {
        let one = match self {
            _ if matches!(verb, "list" | "deletecollection") => return usize::MAX,
            Kind::ConfigMap | Kind::Crd => return usize::MAX,
            Kind::Rules | Kind::Endpoints => 40_000,
            Kind::Node => 24_000,
            Kind::Pod | Kind::Deployment => 14_000,
            Kind::Role => 9_000,
            Kind::Webhook | Kind::Ingress | Kind::Binding | Kind::FlowSchema => 5_500,
            Kind::Service | Kind::Volume | Kind::Autoscaler | Kind::Secret => 4_500,
            Kind::Namespace | Kind::ApiService | Kind::ServiceAccount => 3_000,
            Kind::Event => 2_600,
            Kind::Lease | Kind::Review => 2_200,
        };
        if matches!(verb, "create" | "update") { one * 3 / 2 } else { one }
    }

    /// Whether all that a caller sends fits a few hundred bytes.
    pub fn small(self) -> bool {
        matches!(self, Kind::Review | Kind::Lease | Kind::Event)
    }
}

/// What objects of one request are made from.
pub struct Scene<'a> {
    pub pod: &'a Pod,
    pub population: &'a Population,
    /// The cluster's resource version by now.
    pub version: u64,
    pub at: Micros,
    /// Of the request: what is in the body follows from it.
    pub number: u64,
}

/// One object to write.
pub(super) struct Object<'a> {
    scene: &'a Scene<'a>,
    pod: &'a Pod,
    kind: Kind,
    action: &'a Action,
    name: &'a str,
    /// Bytes that it should have.
    size: usize,
    /// As the server has it: with uid, version, managers and status.
    stored: bool,
}

impl Scene<'_> {
    /// Level Request: what the caller sent, mostly a patch.
    pub fn put_request(&self, rng: &mut SmallRng, out: &mut String, action: &Action, name: &str, size: usize) {
        out.push_str(r#","requestObject":"#);
        match action.kind.small() && action.verb != "patch" {
            true => self.object(action, name, size, false).put(rng, out),
            false => small::put_patch(rng, out, self, action.kind),
        }
    }

    /// Level RequestResponse: both bodies, `size` bytes in all.
    pub fn put_both(&self, rng: &mut SmallRng, out: &mut String, action: &Action, name: &str, size: usize) {
        match action.verb {
            "get" => {
                out.push_str(r#","responseObject":"#);
                self.object(action, name, size, true).put(rng, out);
            }
            "list" | "deletecollection" => {
                out.push_str(r#","responseObject":"#);
                self.put_list(rng, out, action, size);
            }
            "patch" => {
                out.push_str(r#","requestObject":"#);
                small::put_patch(rng, out, self, action.kind);
                out.push_str(r#","responseObject":"#);
                self.object(action, name, size.saturating_sub(250), true).put(rng, out);
            }
            "delete" => {
                let grace = if action.kind == Kind::Pod { r#","gracePeriodSeconds":30"# } else { "" };
                put!(out, r#","requestObject":{{"kind":"DeleteOptions","apiVersion":"v1"{grace},"#);
                out.push_str(r#""propagationPolicy":"Background"},"responseObject":"#);
                self.object(action, name, size.saturating_sub(100), true).put(rng, out);
            }
            _ => {
                // The server answers with what it was sent and what it adds.
                let mut same = draw(self.number, 1);
                out.push_str(r#","requestObject":"#);
                self.object(action, name, size * 2 / 5, false).put(&mut same, out);
                let mut same = draw(self.number, 1);
                out.push_str(r#","responseObject":"#);
                self.object(action, name, size * 3 / 5, true).put(&mut same, out);
            }
        }
    }

    fn object<'a>(&'a self, action: &'a Action, name: &'a str, size: usize, stored: bool) -> Object<'a> {
        Object { scene: self, pod: self.pod, kind: action.kind, action, name, size, stored }
    }

    fn put_list(&self, rng: &mut SmallRng, out: &mut String, action: &Action, size: usize) {
        let end = out.len() + size;
        put!(out, r#"{{"kind":"{}List","apiVersion":"{}","#, kind_name(action), api_version(action));
        put!(out, r#""metadata":{{"resourceVersion":"{}"}},"items":["#, self.version);
        // Few long items or many short ones.
        let each = (size / (1 + zipf_of(rng, 12, 1.0) as usize)).clamp(900, 5_500);
        let mut first = true;
        while out.len() + each * 2 / 3 < end || first {
            if !first {
                out.push(',');
            }
            first = false;
            let pod = self.population.running(rng);
            let name = format!("{}-{}", pod.workload, pod.number % 50);
            let name = if action.kind == Kind::Pod { &pod.name } else { &name };
            let size = each.min(end.saturating_sub(out.len()));
            let item = Object { scene: self, pod: &pod, kind: action.kind, action, name, size, stored: true };
            item.put(rng, out);
        }
        out.push_str("]}");
    }
}

/// The kind as the object says it.
fn kind_name(action: &Action) -> &'static str {
    const NAMES: [(&str, &str); 43] = [
        ("secrets", "Secret"),
        ("namespaces", "Namespace"),
        ("serviceaccounts", "ServiceAccount"),
        ("prometheusrules", "PrometheusRule"),
        ("pods", "Pod"),
        ("configmaps", "ConfigMap"),
        ("leases", "Lease"),
        ("clusterroles", "ClusterRole"),
        ("clusterrolebindings", "ClusterRoleBinding"),
        ("roles", "Role"),
        ("rolebindings", "RoleBinding"),
        ("flowschemas", "FlowSchema"),
        ("prioritylevelconfigurations", "PriorityLevelConfiguration"),
        ("customresourcedefinitions", "CustomResourceDefinition"),
        ("services", "Service"),
        ("endpoints", "Endpoints"),
        ("endpointslices", "EndpointSlice"),
        ("nodes", "Node"),
        ("persistentvolumes", "PersistentVolume"),
        ("persistentvolumeclaims", "PersistentVolumeClaim"),
        ("deployments", "Deployment"),
        ("replicasets", "ReplicaSet"),
        ("statefulsets", "StatefulSet"),
        ("daemonsets", "DaemonSet"),
        ("jobs", "Job"),
        ("cronjobs", "CronJob"),
        ("horizontalpodautoscalers", "HorizontalPodAutoscaler"),
        ("poddisruptionbudgets", "PodDisruptionBudget"),
        ("resourcequotas", "ResourceQuota"),
        ("events", "Event"),
        ("ingresses", "Ingress"),
        ("networkpolicies", "NetworkPolicy"),
        ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
        ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
        ("storageversionmigrations", "StorageVersionMigration"),
        ("apiservices", "APIService"),
        ("servicemonitors", "ServiceMonitor"),
        ("prometheuses", "Prometheus"),
        ("volumeattachments", "VolumeAttachment"),
        ("csinodes", "CSINode"),
        ("subjectaccessreviews", "SubjectAccessReview"),
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
        ("tokenreviews", "TokenReview"),
    ];
    let (base, sub) = action.resource.split_once('/').unwrap_or((action.resource, ""));
    match sub {
        "token" => "TokenRequest",
        "binding" => "Binding",
        _ => NAMES.iter().find(|row| row.0 == base).map_or("Status", |row| row.1),
    }
}

fn api_version(action: &Action) -> String {
    match action.group {
        "" => action.version.to_owned(),
        group => format!("{group}/{}", action.version),
    }
}

impl Object<'_> {
    fn put(&self, rng: &mut SmallRng, out: &mut String) {
        let end = out.len() + self.size;
        put!(out, r#"{{"kind":"{}","apiVersion":"{}","#, kind_name(self.action), api_version(self.action));
        self.put_metadata(rng, out);
        match self.kind {
            Kind::Pod => self.put_pod(rng, out, end),
            Kind::Deployment => self.put_deployment(rng, out, end),
            Kind::ConfigMap => self.put_config_map(rng, out, end),
            Kind::Crd => self.put_crd(rng, out, end),
            Kind::Rules => self.put_rules(rng, out, end),
            Kind::Role => self.put_role(rng, out, end),
            Kind::Node => self.put_node(rng, out, end),
            Kind::Endpoints => self.put_endpoints(rng, out, end),
            _ => self.put_small(rng, out, end),
        }
        out.push('}');
    }

    /// A number that is the same whenever the same object is written.
    fn fixed(&self, of: u64) -> u64 {
        let mut name = 0xCBF2_9CE4_8422_2325u64 ^ of;
        for byte in self.name.bytes() {
            name = (name ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
        }
        draw(name, self.pod.workload_number).next_u64()
    }
}
