//! Who calls the Kubernetes API: service accounts of workloads, control-plane components, nodes, people.

use super::{
    CLUSTERS, Cluster, NODES, Pod, account, cluster_of, namespace, node, node_address, office_ip, part, person, team,
    uid,
};
use crate::random::{base32, entity_uuid, mix, put};

/// Someone or something that calls the Kubernetes API.
#[derive(Default)]
pub struct Caller {
    pub username: String,
    /// JSON strings with commas between them.
    pub groups: String,
    pub agent: String,
    pub ip: String,
    /// Where a service account lives and mostly works.
    pub namespace: String,
    /// Of the account; empty for those that have none (certificates, external identities).
    pub uid: String,
    /// Members of `user.extra`; empty if there is none.
    pub extra: String,
    /// Which binding allows what it does; empty where another authorizer than RBAC decides.
    pub reason: String,
}

const CONTROLLERS: [&str; 20] = [
    "deployment-controller",
    "replicaset-controller",
    "generic-garbage-collector",
    "endpointslice-controller",
    "job-controller",
    "resourcequota-controller",
    "horizontal-pod-autoscaler",
    "namespace-controller",
    "endpoint-controller",
    "statefulset-controller",
    "service-account-controller",
    "persistent-volume-binder",
    "cronjob-controller",
    "daemon-set-controller",
    "node-controller",
    "attachdetach-controller",
    "disruption-controller",
    "ttl-after-finished-controller",
    "root-ca-cert-publisher",
    "certificate-controller",
];

impl Caller {
    /// The service account of workload `number`, called from outside of its pods.
    pub fn service_account(number: u64) -> Caller {
        let n = number % 900;
        let space = n * 37 % super::NAMESPACES;
        let namespace = namespace(space);
        let name = part(n / 7 + space / 24);
        service_account(n, namespace, name, format!("10.{}.{}.{}", 128 + n % CLUSTERS, n / 8 % 250, 2 + n % 200))
    }

    /// The service account of a running pod. Its token is bound to the pod and is renewed every epoch.
    pub fn of_pod(pod: &Pod, epoch: u64) -> Caller {
        let mut caller = service_account(pod.workload_number, pod.namespace.clone(), pod.container, pod.ip.clone());
        if says_why(pod.workload_number) && !pod.number.is_multiple_of(4) {
            let token = entity_uuid(0x701E ^ epoch, pod.number);
            put!(&mut caller.extra, r#""authentication.kubernetes.io/credential-id":["JTI={token}"],"#);
            put!(&mut caller.extra, r#""authentication.kubernetes.io/node-name":["{}"],"#, pod.node);
            put!(&mut caller.extra, r#""authentication.kubernetes.io/node-uid":["{}"],"#, uid(6, pod.node_number));
            put!(&mut caller.extra, r#""authentication.kubernetes.io/pod-name":["{}"],"#, pod.name);
            put!(&mut caller.extra, r#""authentication.kubernetes.io/pod-uid":["{}"]"#, pod.uid);
        }
        caller
    }

    pub fn node(number: u64) -> Caller {
        let Cluster { version, commit, .. } = cluster_of(number % NODES);
        Caller {
            username: format!("system:node:{}", node(number)),
            groups: r#""system:nodes","system:authenticated""#.to_owned(),
            agent: format!("kubelet/{version} (linux/amd64) kubernetes/{commit}"),
            ip: node_address(number),
            namespace: "kube-system".to_owned(),
            ..Caller::default()
        }
    }

    /// A loop of the controller manager; numbers are dealt to the clusters in turn.
    pub fn controller(number: u64) -> Caller {
        let name = CONTROLLERS[(number / CLUSTERS % 20) as usize];
        let Cluster { version, commit, .. } = cluster_of(number);
        let role = format!("system:controller:{name}");
        Caller {
            username: format!("system:serviceaccount:kube-system:{name}"),
            groups: r#""system:serviceaccounts","system:serviceaccounts:kube-system","system:authenticated""#
                .to_owned(),
            agent: match says_why(number) {
                true => format!(
                    "kube-controller-manager/{version} (linux/amd64) kubernetes/{commit}/system:serviceaccount:kube-system:{name}"
                ),
                false => format!("kube-controller-manager/{version} (linux/amd64) kubernetes/{commit}/{name}"),
            },
            ip: control_plane(number),
            namespace: "kube-system".to_owned(),
            uid: if says_why(number) { uid(7, number) } else { String::new() },
            reason: match says_why(number) {
                true => binding(&role, &role, "ServiceAccount", &format!("{name}/kube-system")),
                false => String::new(),
            },
            ..Caller::default()
        }
    }

    /// A component with a certificate of its own.
    pub fn system(number: u64) -> Caller {
        let Cluster { version, commit, .. } = cluster_of(number);
        let name =
            ["apiserver", "kube-scheduler", "kube-controller-manager", "aggregator"][(number / CLUSTERS % 4) as usize];
        let (user, agent) = match name {
            "apiserver" => (name, "kube-apiserver"),
            "aggregator" => (name, "Go-http-client"),
            _ => (name, name),
        };
        let masters = user == "apiserver";
        Caller {
            username: format!("system:{user}"),
            groups: match masters {
                true => r#""system:masters","system:authenticated""#.to_owned(),
                false => r#""system:authenticated""#.to_owned(),
            },
            agent: match agent {
                "Go-http-client" => "Go-http-client/2.0".to_owned(),
                _ => format!("{agent}/{version} (linux/amd64) kubernetes/{commit}"),
            },
            ip: if masters { "::1".to_owned() } else { control_plane(number) },
            namespace: "kube-system".to_owned(),
            reason: match masters || !says_why(number) {
                true => String::new(),
                false => {
                    binding(&format!("system:{user}"), &format!("system:{user}"), "User", &format!("system:{user}"))
                }
            },
            ..Caller::default()
        }
    }

    /// Clients of people churn: a version is in use for some epochs.
    pub fn human(number: u64) -> Caller {
        Caller::person(number, 0)
    }

    pub fn person(number: u64, epoch: u64) -> Caller {
        let name = person(number);
        let team = team(mix(9, number));
        let release = (mix(10, number) + epoch / 40) % 12;
        let build = super::hex(11, release, 7);
        let agent = match number % 8 {
            1 | 3 => format!("kubectl/v1.{}.{} (darwin/arm64) kubernetes/{build}", 29 + release % 5, release),
            5 => format!("kubectl/v1.{}.{} (linux/amd64) kubernetes/{build}", 29 + release % 5, release),
            4 => format!("k9s/v0.{}.{} (darwin/arm64) kubernetes/$Format", 32 + release, release % 5),
            0 | 6 => format!("Helm/3.{}.{}", 12 + release % 6, release % 4),
            2 | 7 => format!("OpenAPI-Generator/{}.{}.0/python", 28 + release % 6, release % 4),
            _ => format!("argocd-cli/v2.{}.{} (linux/amd64) kubernetes/{build}", 9 + release % 4, release),
        };
        let mut extra = String::new();
        if number % 12 == 7 {
            let (account, role) = (account(number % 12), format!("eks-{team}"));
            put!(&mut extra, r#""accessKeyId":["ASIA{}"],"#, base32(14 ^ (epoch / 8) << 8, number, 16));
            put!(&mut extra, r#""arn":["arn:aws:sts::{account}:assumed-role/{role}/{name}"],"#);
            put!(&mut extra, r#""canonicalArn":["arn:aws:iam::{account}:role/{role}"],"sessionName":["{name}"]"#);
        }
        let group = team;
        Caller {
            username: name,
            groups: format!(r#""{group}","system:authenticated""#),
            agent,
            ip: office_ip(number),
            namespace: namespace(number),
            extra,
            reason: match number % 8 {
                3 => binding(&format!("{group}-admin"), "admin", "Group", group),
                _ => String::new(),
            },
            ..Caller::default()
        }
    }
}

fn service_account(number: u64, namespace: String, name: &str, ip: String) -> Caller {
    let account = format!("{namespace}-{name}");
    let commit = super::hex(15, number, 7);
    let agent = match mix(16, number) % 4 {
        0 => format!("{name}/v0.0.0 (linux/amd64) kubernetes/$Format"),
        1 => format!("{account}/v{}.{} (linux/amd64) kubernetes/{commit}", number % 3, number % 40),
        2 => format!("{name}/v1.{}.{} (linux/arm64) kubernetes/{commit}/leader-election", number % 30, number % 7),
        _ => format!("kubernetes-client/{}.{}.0", 6, number % 14),
    };
    Caller {
        username: format!("system:serviceaccount:{namespace}:{name}"),
        groups: format!(r#""system:serviceaccounts","system:serviceaccounts:{namespace}","system:authenticated""#),
        agent,
        ip,
        uid: if says_why(number) { uid(17, number) } else { String::new() },
        reason: match says_why(number) {
            true => binding(
                &format!("{account}-manager-binding"),
                &format!("{account}-manager"),
                "ServiceAccount",
                &format!("{name}/{namespace}"),
            ),
            false => String::new(),
        },
        namespace,
        extra: String::new(),
    }
}

/// A third of the clusters, by number: those whose tokens are bound to pods and where RBAC decides alone and says why;
/// elsewhere a webhook does, without a reason.
fn says_why(cluster: u64) -> bool {
    cluster % 3 == 1
}

fn binding(binding: &str, role: &str, kind: &str, subject: &str) -> String {
    format!(r#"RBAC: allowed by ClusterRoleBinding \"{binding}\" of ClusterRole \"{role}\" to {kind} \"{subject}\""#)
}

fn control_plane(number: u64) -> String {
    format!("10.0.{}.{}", number % CLUSTERS, 10 + number / CLUSTERS % 3)
}
