//! The table of verbs and resources: the mean of three measured sets (an OpenShift cluster, PerfSPEC, the 2018
//! end-to-end tests; discovery of the latter two, as the first has next to no lines of level Metadata), with today's
//! names for resources that are gone. Creating and deleting pods is not in it: their lives are laid out in
//! `world::Population`.

use std::sync::OnceLock;

use rand::Rng;
use rand::rngs::SmallRng;

use super::actors::{Actor, actors};
use super::bodies::Kind;
use crate::random::pick;

/// A verb on a resource.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    pub verb: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    /// With `/subresource`, if it is about one.
    pub resource: &'static str,
    /// Not bound to a namespace.
    pub cluster_wide: bool,
    pub kind: Kind,
    /// Who does it, each as often as it is named.
    pub who: &'static [Actor],
}

/// Asking what the API offers: a path without a resource. Measured, in percent of lines, and the weight beside the
/// table's sum by which nearly so many come out.
const DISCOVERY_MEASURED: f64 = 46.5;
pub const DISCOVERY_PERCENT: f64 = 62.4;
/// Evenly over all pairs of verb and resource.
const EVEN_PERCENT: f64 = 4.0;

const CORE: &str = "";
/// Resource, group, version, cluster-wide, kind.
type Resource = (&'static str, &'static str, &'static str, bool, Kind);

const RESOURCES: [Resource; 43] = [
    ("secrets", CORE, "v1", false, Kind::Secret),
    ("namespaces", CORE, "v1", true, Kind::Namespace),
    ("serviceaccounts", CORE, "v1", false, Kind::ServiceAccount),
    ("prometheusrules", "monitoring.coreos.com", "v1", false, Kind::Rules),
    ("pods", CORE, "v1", false, Kind::Pod),
    ("configmaps", CORE, "v1", false, Kind::ConfigMap),
    ("leases", "coordination.k8s.io", "v1", false, Kind::Lease),
    ("clusterroles", "rbac.authorization.k8s.io", "v1", true, Kind::Role),
    ("clusterrolebindings", "rbac.authorization.k8s.io", "v1", true, Kind::Binding),
    ("roles", "rbac.authorization.k8s.io", "v1", false, Kind::Role),
    ("rolebindings", "rbac.authorization.k8s.io", "v1", false, Kind::Binding),
    ("flowschemas", "flowcontrol.apiserver.k8s.io", "v1", true, Kind::FlowSchema),
    ("prioritylevelconfigurations", "flowcontrol.apiserver.k8s.io", "v1", true, Kind::FlowSchema),
    ("customresourcedefinitions", "apiextensions.k8s.io", "v1", true, Kind::Crd),
    ("services", CORE, "v1", false, Kind::Service),
    ("endpoints", CORE, "v1", false, Kind::Endpoints),
    ("endpointslices", "discovery.k8s.io", "v1", false, Kind::Endpoints),
    ("nodes", CORE, "v1", true, Kind::Node),
    ("persistentvolumes", CORE, "v1", true, Kind::Volume),
    ("persistentvolumeclaims", CORE, "v1", false, Kind::Volume),
    ("deployments", "apps", "v1", false, Kind::Deployment),
    ("replicasets", "apps", "v1", false, Kind::Deployment),
    ("statefulsets", "apps", "v1", false, Kind::Deployment),
    ("daemonsets", "apps", "v1", false, Kind::Deployment),
    ("jobs", "batch", "v1", false, Kind::Deployment),
    ("cronjobs", "batch", "v1", false, Kind::Deployment),
    ("horizontalpodautoscalers", "autoscaling", "v2", false, Kind::Autoscaler),
    ("poddisruptionbudgets", "policy", "v1", false, Kind::Autoscaler),
    ("resourcequotas", CORE, "v1", false, Kind::Autoscaler),
    ("events", CORE, "v1", false, Kind::Event),
    ("ingresses", "networking.k8s.io", "v1", false, Kind::Ingress),
    ("networkpolicies", "networking.k8s.io", "v1", false, Kind::Ingress),
    ("mutatingwebhookconfigurations", "admissionregistration.k8s.io", "v1", true, Kind::Webhook),
    ("validatingwebhookconfigurations", "admissionregistration.k8s.io", "v1", true, Kind::Webhook),
    ("storageversionmigrations", "migration.k8s.io", "v1alpha1", true, Kind::Lease),
    ("apiservices", "apiregistration.k8s.io", "v1", true, Kind::ApiService),
    ("servicemonitors", "monitoring.coreos.com", "v1", false, Kind::Rules),
    ("prometheuses", "monitoring.coreos.com", "v1", false, Kind::Rules),
    ("volumeattachments", "storage.k8s.io", "v1", true, Kind::Volume),
    ("csinodes", "storage.k8s.io", "v1", true, Kind::Node),
    ("subjectaccessreviews", "authorization.k8s.io", "v1", true, Kind::Review),
    ("selfsubjectaccessreviews", "authorization.k8s.io", "v1", true, Kind::Review),
    ("tokenreviews", "authentication.k8s.io", "v1", true, Kind::Review),
];

/// Percent of all requests by verb and resource.
const SHARES: [(&str, &[(&str, f64)]); 8] = [
    (
        "get",
        &[
            ("secrets", 2.8),
            ("namespaces", 2.5),
            ("serviceaccounts", 2.4),
            ("prometheusrules", 2.1),
            ("pods", 1.9),
            ("configmaps", 1.8),
            ("leases", 1.6),
            ("flowschemas", 1.4),
            ("clusterroles", 1.0),
            ("customresourcedefinitions", 1.0),
            ("services", 0.9),
            ("nodes", 0.9),
            ("deployments", 0.8),
            ("clusterrolebindings", 0.6),
            ("persistentvolumes", 0.5),
            ("endpoints", 0.5),
            ("storageversionmigrations", 0.5),
            ("replicasets", 0.4),
            ("rolebindings", 0.4),
            ("roles", 0.4),
            ("horizontalpodautoscalers", 0.4),
            ("prioritylevelconfigurations", 0.3),
            ("persistentvolumeclaims", 0.3),
            ("ingresses", 0.2),
            ("pods/log", 0.2),
            ("csinodes", 0.2),
            ("resourcequotas", 0.2),
        ],
    ),
    (
        "list",
        &[
            ("mutatingwebhookconfigurations", 4.7),
            ("pods", 1.6),
            ("configmaps", 0.6),
            ("secrets", 0.5),
            ("services", 0.4),
            ("nodes", 0.4),
            ("endpointslices", 0.4),
            ("deployments", 0.4),
            ("events", 0.3),
            ("replicasets", 0.3),
            ("jobs", 0.3),
            ("namespaces", 0.3),
            ("resourcequotas", 0.3),
        ],
    ),
    (
        "create",
        &[
            ("subjectaccessreviews", 5.0),
            ("events", 1.4),
            ("serviceaccounts/token", 0.7),
            ("tokenreviews", 0.6),
            ("selfsubjectaccessreviews", 0.4),
            ("pods/binding", 0.3),
            ("configmaps", 0.3),
            ("secrets", 0.3),
            ("prometheusrules", 0.2),
            ("serviceaccounts", 0.2),
            ("jobs", 0.2),
            ("replicasets", 0.2),
        ],
    ),
    (
        "watch",
        &[
            ("configmaps", 0.75),
            ("pods", 0.45),
            ("services", 0.3),
            ("endpointslices", 0.3),
            ("persistentvolumes", 0.3),
            ("mutatingwebhookconfigurations", 0.3),
            ("secrets", 0.25),
            ("nodes", 0.25),
            ("namespaces", 0.2),
            ("customresourcedefinitions", 0.2),
            ("deployments", 0.2),
            ("leases", 0.1),
        ],
    ),
    (
        "update",
        &[
            ("apiservices/status", 1.5),
            ("leases", 1.4),
            ("secrets", 0.7),
            ("endpointslices", 0.4),
            ("endpoints", 0.3),
            ("services", 0.3),
            ("deployments/status", 0.3),
            ("replicasets/status", 0.3),
            ("configmaps", 0.3),
            ("customresourcedefinitions/status", 0.2),
            ("prometheuses/status", 0.2),
        ],
    ),
    (
        "patch",
        &[
            ("pods/status", 1.0),
            ("nodes/status", 0.9),
            ("events", 0.4),
            ("deployments", 0.4),
            ("configmaps", 0.2),
            ("servicemonitors", 0.2),
            ("roles", 0.2),
            ("rolebindings", 0.2),
            ("leases", 0.2),
        ],
    ),
    ("delete", &[("secrets", 0.5), ("prometheusrules", 0.2), ("volumeattachments", 0.2), ("configmaps", 0.1)]),
    ("deletecollection", &[("pods", 0.4), ("events", 0.4), ("configmaps", 0.3), ("secrets", 0.3)]),
];

/// The mix, ready to draw from.
pub struct Actions {
    common: Vec<(f64, Action)>,
    even: Vec<Action>,
}

pub fn actions() -> &'static Actions {
    static ACTIONS: OnceLock<Actions> = OnceLock::new();
    ACTIONS.get_or_init(Actions::new)
}

/// The pod's own action, by verb.
pub fn on_pods(verb: &'static str) -> Action {
    action(verb, "pods")
}

pub fn on_config_maps(verb: &'static str) -> Action {
    action(verb, "configmaps")
}

fn action(verb: &'static str, resource: &'static str) -> Action {
    let base = resource.split('/').next().unwrap_or(resource);
    let found = RESOURCES.iter().find(|row| row.0 == base);
    let (_, group, version, cluster_wide, kind) = *found.expect("every share is of a resource in the table");
    let kind = match resource {
        "serviceaccounts/token" | "pods/binding" => Kind::Review,
        _ => kind,
    };
    Action { verb, group, version, resource, cluster_wide, kind, who: actors(verb, resource) }
}

impl Actions {
    fn new() -> Actions {
        let mut total = 0.0;
        let mut common = Vec::new();
        for (verb, shares) in SHARES {
            for (resource, share) in shares {
                total += share;
                common.push((total, action(verb, resource)));
            }
        }
        let even = SHARES
            .iter()
            .flat_map(|(verb, _)| RESOURCES.iter().map(|row| action(verb, row.0)))
            .filter(|action| action.kind != Kind::Review || action.verb == "create")
            // Admission is changed by whoever installs an operator: no everyday work.
            .filter(|action| action.kind != Kind::Webhook || matches!(action.verb, "get" | "list" | "watch"))
            .filter(|action| action.resource != "pods" || !matches!(action.verb, "create" | "delete"))
            .collect();
        Actions { common, even }
    }

    /// `None` is discovery.
    pub fn draw(&self, rng: &mut SmallRng) -> Option<Action> {
        let of_table = self.common[self.common.len() - 1].0;
        let u = rng.random::<f64>() * (DISCOVERY_PERCENT + EVEN_PERCENT + of_table);
        match u {
            u if u < of_table => Some(self.common[self.common.partition_point(|(below, _)| *below <= u)].1),
            u if u < of_table + EVEN_PERCENT => Some(pick(rng, &self.even)),
            _ => None,
        }
    }

    /// Measured shares of lines at level Metadata, in percent.
    pub fn measured(&self) -> Vec<(String, f64)> {
        let rest = (100.0 - DISCOVERY_MEASURED - EVEN_PERCENT) / self.common[self.common.len() - 1].0;
        let of_verb = |(verb, shares): (&str, &'static [(&'static str, f64)])| {
            let verb = verb.to_owned();
            shares.iter().map(move |(resource, share)| (format!("{verb} {resource}"), share * rest))
        };
        std::iter::once(("get".to_owned(), DISCOVERY_MEASURED)).chain(SHARES.into_iter().flat_map(of_verb)).collect()
    }
}
