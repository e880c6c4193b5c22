//! Who does what to which resource. Control loops do what they are there for and nothing else, kubelets see to their own
//! node and its pods, add-ons to the kinds they manage, workloads to their own namespace; objects are rolled out by
//! the cluster's GitOps controller or the pipeline, and people look at what their team runs and now and then change it.

use rand::Rng;
use rand::rngs::SmallRng;

use crate::random::zipf_of;
use crate::world::{CLUSTERS, Caller, Pod, Sizes, TOKEN_EPOCHS, address};

/// Someone who calls the API, as seen from a running pod and its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Actor {
    /// The service account of the pod.
    Workload,
    /// The kubelet of the pod's node.
    Kubelet,
    /// A loop of the controller manager.
    Controller(&'static str),
    /// A component with a certificate of its own.
    System(&'static str),
    /// An add-on by namespace and name of its service account.
    Addon(&'static str, &'static str),
    /// The GitOps controller of the cluster.
    Deployer,
    /// The pipeline's service account, which installs charts.
    Pipeline,
    /// Someone of the pod's team.
    Engineer,
}

use Actor::{Addon, Controller, Deployer, Engineer, Kubelet, Pipeline, System, Workload};

const APISERVER: Actor = System("apiserver");
const SCHEDULER: Actor = System("kube-scheduler");
const MANAGER: Actor = System("kube-controller-manager");
const GARBAGE: Actor = Controller("generic-garbage-collector");
const NAMESPACES: Actor = Controller("namespace-controller");
const QUOTAS: Actor = Controller("resourcequota-controller");
const SLICES: Actor = Controller("endpointslice-controller");
const ENDPOINTS: Actor = Controller("endpoint-controller");
const ROLLOUTS: Actor = Controller("deployment-controller");
const REPLICAS: Actor = Controller("replicaset-controller");
const SETS: Actor = Controller("statefulset-controller");
const DAEMONS: Actor = Controller("daemon-set-controller");
const JOBS: Actor = Controller("job-controller");
const CRONJOBS: Actor = Controller("cronjob-controller");
const SCALER: Actor = Controller("horizontal-pod-autoscaler");
const BINDER: Actor = Controller("persistent-volume-binder");
const ATTACHER: Actor = Controller("attachdetach-controller");
const NODES: Actor = Controller("node-controller");
const BUDGETS: Actor = Controller("disruption-controller");
const ACCOUNTS: Actor = Controller("service-account-controller");
const ROOT_CA: Actor = Controller("root-ca-cert-publisher");
const AGGREGATION: Actor = Controller("clusterrole-aggregation-controller");
const PROMETHEUS: Actor = Addon("monitoring", "prometheus-operator");
const STATE_METRICS: Actor = Addon("monitoring", "kube-state-metrics");
const METRICS: Actor = Addon("kube-system", "metrics-server");
const CERTIFICATES: Actor = Addon("cert-manager", "cert-manager");
const INJECTOR: Actor = Addon("cert-manager", "cert-manager-cainjector");
const EXTERNAL: Actor = Addon("external-secrets", "external-secrets");
const BALANCERS: Actor = Addon("kube-system", "aws-load-balancer-controller");
const VOLUMES: Actor = Addon("kube-system", "ebs-csi-controller-sa");
const DNS: Actor = Addon("kube-system", "coredns");
const PROXY: Actor = Addon("kube-system", "kube-proxy");
const NETWORK: Actor = Addon("kube-system", "aws-node");
const KARPENTER: Actor = Addon("karpenter", "karpenter");
const MIGRATOR: Actor = Addon("kube-storage-version-migrator", "storage-version-migrator");

/// Those who take an action, each as often as it is named. `resource` has its subresource.
pub fn actors(verb: &str, resource: &str) -> &'static [Actor] {
    let reads = matches!(verb, "get" | "list" | "watch");
    match (resource, verb) {
        // What is left in a namespace that goes away.
        (_, "deletecollection") => &[NAMESPACES],
        ("secrets", "get") => &[Kubelet, Kubelet, Kubelet, Workload],
        ("secrets", "list") => &[MANAGER, GARBAGE, GARBAGE, QUOTAS, Workload],
        ("secrets", "watch") => &[Kubelet, Kubelet, MANAGER, GARBAGE],
        // Secrets go with what owns them.
        ("secrets", "delete") => &[GARBAGE, GARBAGE, NAMESPACES],
        ("secrets", _) => &[EXTERNAL, CERTIFICATES, Pipeline, Deployer],
        ("namespaces", "create" | "update" | "patch") => &[Pipeline, Deployer],
        ("namespaces", "delete") => &[Deployer],
        // Admission looks at the namespace and the account of what is made, and signers of tokens at the account.
        ("namespaces", _) => &[APISERVER, APISERVER, NAMESPACES, Engineer, Engineer, Engineer],
        ("serviceaccounts", "get") => &[MANAGER, MANAGER, APISERVER, Engineer, Engineer],
        ("serviceaccounts", "create") => &[ACCOUNTS, Deployer],
        // Kubelets ask for the tokens of their pods.
        ("serviceaccounts/token", _) => &[Kubelet],
        ("serviceaccounts", _) => &[ACCOUNTS, MANAGER, Deployer],
        ("prometheusrules" | "servicemonitors", "create" | "update" | "patch" | "delete") => &[Deployer],
        ("prometheusrules" | "servicemonitors", _) => &[PROMETHEUS, PROMETHEUS, Deployer, Engineer],
        ("prometheuses/status", _) => &[PROMETHEUS],
        ("prometheuses", "get" | "list" | "watch" | "update") => &[PROMETHEUS],
        ("prometheuses", _) => &[Deployer],
        ("pods/log", _) => &[Engineer],
        ("pods/binding", _) => &[SCHEDULER],
        ("pods/status" | "nodes/status", _) => &[Kubelet],
        ("pods", "create") => &[REPLICAS],
        ("pods", "get") => &[Kubelet, Kubelet, Engineer, Engineer, Engineer, REPLICAS, Workload],
        ("pods", "list") => &[Kubelet, Engineer, METRICS, KARPENTER, Workload, Workload],
        ("pods", "watch") => &[Kubelet, SCHEDULER, STATE_METRICS, KARPENTER, Workload],
        ("pods", "delete") => &[Kubelet, REPLICAS],
        ("pods", _) => &[Kubelet, Workload, SETS],
        ("configmaps", "get") => &[Workload, Engineer, Engineer, Engineer, Deployer],
        ("configmaps", "watch") => &[Kubelet, Kubelet, Workload],
        ("configmaps", "list") => &[Workload, Deployer, Engineer],
        ("configmaps", "create") => &[ROOT_CA, Deployer, Pipeline],
        ("configmaps", "delete") => &[Deployer, GARBAGE],
        ("configmaps", "update") => &[Workload, Deployer],
        ("configmaps", _) => &[Deployer, Pipeline, Engineer],
        ("leases", "create" | "get" | "update") => &[Kubelet, Kubelet, Kubelet, Workload, Workload, MANAGER, SCHEDULER],
        ("leases", "delete") => &[NODES],
        ("leases", "list" | "watch") => &[NODES, MANAGER, Workload],
        ("leases", _) => &[Kubelet, NODES, Workload],
        ("clusterroles", "update" | "patch") => &[AGGREGATION, Deployer],
        ("clusterroles" | "clusterrolebindings" | "roles" | "rolebindings", _) if reads => {
            &[Deployer, APISERVER, MANAGER, Engineer, Engineer, Pipeline]
        }
        ("clusterroles" | "clusterrolebindings" | "roles" | "rolebindings", _) => &[Deployer, Deployer, Pipeline],
        ("flowschemas", _) => &[APISERVER, APISERVER, MANAGER],
        ("prioritylevelconfigurations", _) => &[APISERVER],
        ("customresourcedefinitions/status", _) => &[APISERVER],
        ("customresourcedefinitions", _) if reads => &[PROMETHEUS, KARPENTER, Deployer, APISERVER, APISERVER, Engineer],
        ("customresourcedefinitions", _) => &[Pipeline, Deployer],
        ("services", "list" | "watch") => &[PROXY, DNS, BALANCERS, SLICES, ENDPOINTS, Workload],
        ("services", "get") => &[Engineer, Engineer, Engineer, BALANCERS, Workload],
        ("services", "update") => &[BALANCERS, Deployer],
        ("services", _) => &[Deployer, Pipeline],
        ("endpoints", _) if reads => &[ENDPOINTS, DNS, Workload, Workload],
        ("endpoints", _) => &[ENDPOINTS],
        ("endpointslices", _) if reads => &[SLICES, PROXY, DNS, BALANCERS],
        ("endpointslices", _) => &[SLICES],
        ("nodes", "get") => &[Kubelet, Kubelet, NODES, KARPENTER, Engineer, Engineer],
        ("nodes", "list" | "watch") => &[Kubelet, NODES, KARPENTER, METRICS, PROXY, SCHEDULER],
        ("nodes", "create") => &[Kubelet],
        ("nodes", "delete") => &[KARPENTER],
        ("nodes", _) => &[Kubelet, NODES, KARPENTER],
        ("persistentvolumes", _) if reads => &[BINDER, ATTACHER, VOLUMES],
        ("persistentvolumes", "delete") => &[BINDER],
        ("persistentvolumes", _) => &[BINDER, VOLUMES],
        ("persistentvolumeclaims", "create") => &[SETS],
        ("persistentvolumeclaims", "delete") => &[GARBAGE, NAMESPACES],
        ("persistentvolumeclaims", _) => &[BINDER, VOLUMES, SETS],
        ("deployments/status", _) => &[ROLLOUTS],
        ("replicasets/status", _) => &[REPLICAS],
        // People restart, scale and set images by hand.
        ("deployments", "patch") => &[Deployer, Deployer, Pipeline, Pipeline, Engineer, Engineer],
        ("statefulsets" | "daemonsets", "patch") => &[Deployer, Deployer, Pipeline],
        ("deployments", "get") => &[ROLLOUTS, Engineer, Engineer, Engineer, Deployer, SCALER],
        ("deployments", "list" | "watch") => &[ROLLOUTS, STATE_METRICS, Deployer, Engineer],
        ("deployments", "update") => &[ROLLOUTS, ROLLOUTS, Deployer],
        ("replicasets", "get") => &[REPLICAS, ROLLOUTS, Engineer, Deployer],
        ("replicasets", "list" | "watch") => &[ROLLOUTS, REPLICAS, STATE_METRICS, Engineer],
        ("replicasets", "delete") => &[ROLLOUTS, GARBAGE],
        ("replicasets", _) => &[ROLLOUTS],
        ("statefulsets", _) if reads => &[SETS, STATE_METRICS, Engineer, Deployer],
        ("daemonsets", _) if reads => &[DAEMONS, STATE_METRICS, Engineer, Deployer],
        ("statefulsets", "update") => &[SETS],
        ("daemonsets", "update") => &[DAEMONS],
        ("deployments" | "statefulsets" | "daemonsets", _) => &[Deployer],
        ("jobs", _) if reads => &[JOBS, CRONJOBS, STATE_METRICS, Workload],
        ("jobs", "create" | "delete") => &[CRONJOBS],
        ("jobs", _) => &[JOBS],
        ("cronjobs", _) if reads => &[CRONJOBS, STATE_METRICS, Deployer],
        ("cronjobs", "update") => &[CRONJOBS],
        ("cronjobs", _) => &[Deployer],
        ("horizontalpodautoscalers", "get" | "list" | "watch" | "update") => &[SCALER],
        ("horizontalpodautoscalers", _) => &[Deployer],
        ("poddisruptionbudgets", "get" | "list" | "watch" | "update") => &[BUDGETS, KARPENTER],
        ("poddisruptionbudgets", _) => &[Deployer],
        ("resourcequotas", _) if reads => &[QUOTAS, APISERVER],
        ("resourcequotas", "update") => &[QUOTAS],
        ("resourcequotas", _) => &[Deployer],
        ("events", "create" | "update" | "patch") => {
            &[Kubelet, Kubelet, Kubelet, REPLICAS, JOBS, SCHEDULER, KARPENTER, Workload]
        }
        ("events", "delete") => &[GARBAGE],
        ("events", _) => &[Engineer, Engineer, STATE_METRICS],
        ("ingresses", _) if reads => &[BALANCERS, CERTIFICATES, DNS, Engineer],
        ("ingresses", "update") => &[BALANCERS, Deployer],
        ("ingresses", _) => &[Deployer, Pipeline],
        ("networkpolicies", _) if reads => &[NETWORK, Deployer],
        ("networkpolicies", _) => &[Deployer],
        ("mutatingwebhookconfigurations" | "validatingwebhookconfigurations", _) => {
            &[APISERVER, APISERVER, MANAGER, SCHEDULER, System("aggregator"), INJECTOR]
        }
        ("storageversionmigrations", _) => &[MIGRATOR],
        ("apiservices/status", _) => &[APISERVER, System("aggregator")],
        ("apiservices", _) => &[APISERVER, MANAGER],
        ("volumeattachments", _) => &[ATTACHER, VOLUMES],
        ("csinodes", _) if reads => &[Kubelet, VOLUMES],
        ("csinodes", _) => &[Kubelet],
        // Servers that leave the decision to the cluster: a workload's proxy, a component's own metrics, a kubelet.
        ("subjectaccessreviews", _) => &[Workload, Workload, SCHEDULER, Kubelet, METRICS],
        ("selfsubjectaccessreviews", _) => &[Engineer],
        ("tokenreviews", _) => &[Workload, Workload, METRICS, Kubelet],
        _ => &[Deployer],
    }
}

/// Clients ask what there is before they ask for it; probes ask whether the server lives. Tools of people do so at every
/// turn (measured: four in five), most programs once.
pub fn discoverer(rng: &mut SmallRng) -> Actor {
    match rng.random_range(0..38) {
        0..31 => Engineer,
        31..33 => Workload,
        33..35 => APISERVER,
        35 => MANAGER,
        _ => System("aggregator"),
    }
}

impl Actor {
    /// Acts for the whole cluster rather than within one namespace.
    pub fn is_cluster_wide(self) -> bool {
        matches!(self, Controller(_) | System(_) | Addon(..) | Deployer)
    }

    /// The same one is found in each pod's surroundings; tokens of workloads are renewed every epoch.
    pub fn caller(self, rng: &mut SmallRng, sizes: &Sizes, pod: &Pod, epoch: u64) -> Caller {
        let here = pod.workload_number % CLUSTERS;
        match self {
            Workload => Caller::of_pod(pod, (epoch + pod.number % TOKEN_EPOCHS) / TOKEN_EPOCHS),
            Kubelet => Caller::node(pod.node_number),
            Controller(name) => Caller::controller(name, here, epoch),
            System(name) => Caller::system(name, here),
            Addon(namespace, name) => Caller::addon(namespace, name, here, epoch),
            Deployer if here % 3 == 2 => Caller::addon("flux-system", "kustomize-controller", here, epoch),
            Deployer => Caller::addon("argocd", "argocd-application-controller", here, epoch),
            Pipeline => Caller::addon("ci", "deployer", here, epoch),
            Engineer => {
                let mate = zipf_of(rng, (sizes.people / 24).max(1), 1.5);
                let mut person = Caller::person(Caller::teammate(pod.team_number, mate), here, epoch);
                // People travel.
                if rng.random_range(0..100) < 15 {
                    person.ip = address(zipf_of(rng, sizes.addresses, 0.8));
                }
                person
            }
        }
    }
}
