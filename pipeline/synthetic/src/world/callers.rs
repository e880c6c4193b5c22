//! Who calls the Kubernetes API: service accounts of workloads, control-plane components, nodes, people.

use super::{
    CLUSTERS, Cluster, NODES, Pod, TEAM_COUNT, account, cluster_of, namespace, node, node_address, office_ip, person,
    team, uid,
};
use crate::random::{base32, entity_uuid, hex, mix, put, suffix};

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

/// Frames for which a bound token is used, and for which a pod of an add-on runs.
pub const TOKEN_EPOCHS: u64 = 8;
const ADDON_EPOCHS: u64 = 64;

impl Caller {
    /// The service account of a running pod. Its token is bound to the pod and is renewed every epoch.
    pub fn of_pod(pod: &Pod, epoch: u64) -> Caller {
        let mut caller = service_account(pod.workload_number, pod.namespace.clone(), pod.container, pod.ip.clone());
        if says_why(pod.workload_number) && !pod.number.is_multiple_of(16) {
            let token = entity_uuid(0x701E ^ epoch, pod.number);
            put_bound(&mut caller.extra, &token, pod.node_number, &pod.name, &pod.uid);
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

    /// A loop of the controller manager of a cluster. Its tokens are bound to nothing, but have ids as all have.
    pub fn controller(name: &str, cluster: u64, epoch: u64) -> Caller {
        let Cluster { version, commit, .. } = cluster_of(cluster);
        let role = format!("system:controller:{name}");
        let number = number_of(name, cluster);
        let mut extra = String::new();
        if says_why(cluster) {
            put_token(&mut extra, &entity_uuid(0x7020 ^ renewals(epoch, number), number));
        }
        Caller {
            username: format!("system:serviceaccount:kube-system:{name}"),
            groups: r#""system:serviceaccounts","system:serviceaccounts:kube-system","system:authenticated""#
                .to_owned(),
            agent: match says_why(cluster) {
                true => format!(
                    "kube-controller-manager/{version} (linux/amd64) kubernetes/{commit}/system:serviceaccount:kube-system:{name}"
                ),
                false => format!("kube-controller-manager/{version} (linux/amd64) kubernetes/{commit}/{name}"),
            },
            ip: control_plane(cluster),
            namespace: "kube-system".to_owned(),
            uid: if says_why(cluster) { uid(7, number) } else { String::new() },
            extra,
            reason: match says_why(cluster) {
                true => binding(&role, &role, "ServiceAccount", &format!("{name}/kube-system")),
                false => String::new(),
            },
        }
    }

    /// A component of a cluster with a certificate of its own.
    pub fn system(name: &str, cluster: u64) -> Caller {
        let Cluster { version, commit, .. } = cluster_of(cluster);
        let masters = name == "apiserver";
        let user = format!("system:{name}");
        Caller {
            groups: match masters {
                true => r#""system:masters","system:authenticated""#.to_owned(),
                false => r#""system:authenticated""#.to_owned(),
            },
            agent: match name {
                "aggregator" => "Go-http-client/2.0".to_owned(),
                "apiserver" => format!("kube-apiserver/{version} (linux/amd64) kubernetes/{commit}"),
                _ => format!("{name}/{version} (linux/amd64) kubernetes/{commit}"),
            },
            ip: if masters { "::1".to_owned() } else { control_plane(cluster) },
            namespace: "kube-system".to_owned(),
            reason: match masters || !says_why(cluster) {
                true => String::new(),
                false => binding(&user, &user, "User", &user),
            },
            username: user,
            ..Caller::default()
        }
    }

    /// The service account of an add-on of a cluster. It has one pod, which is rolled out anew now and then.
    pub fn addon(namespace: &str, name: &str, cluster: u64, epoch: u64) -> Caller {
        let number = number_of(name, cluster);
        let rollout = mix(number, (epoch + number % ADDON_EPOCHS) / ADDON_EPOCHS);
        let ip = format!("10.{}.{}.{}", 128 + cluster % CLUSTERS, rollout % 250, 2 + rollout / 256 % 250);
        let mut caller = service_account(cluster, namespace.to_owned(), name, ip);
        if says_why(cluster) {
            caller.uid = uid(17, number);
        }
        let (major, minor, commit) = (number % 3, number / 3 % 40, hex(15, number, 7));
        caller.agent = match name {
            "deployer" => format!("Helm/3.{}.{}", 12 + number % 6, number / 8 % 4),
            // Those that set their own, and those that leave it to the client library.
            _ if name.len().is_multiple_of(2) => format!("{name}/v{major}.{minor}.{}", number / 128 % 7),
            _ => format!("{name}/v{major}.{minor}.{} (linux/amd64) kubernetes/{commit}", number / 128 % 7),
        };
        // Those who deploy and what a cluster comes with have tokens of the old kind, which are bound to no pod.
        let is_old = matches!(namespace, "ci" | "argocd" | "flux-system" | "kube-system") && name != "metrics-server";
        if says_why(cluster) && !is_old {
            let node_number = rollout % (NODES / CLUSTERS) * CLUSTERS + cluster % CLUSTERS;
            let pod = format!("{name}-{}-{}", suffix(1, number, 10), suffix(2, rollout, 5));
            let token = entity_uuid(0x701F ^ renewals(epoch, number), rollout);
            put_bound(&mut caller.extra, &token, node_number, &pod, &uid(18, rollout));
        }
        caller
    }

    /// The number of the `mate`th person of a team.
    pub fn teammate(team: u64, mate: u64) -> u64 {
        mate * TEAM_COUNT + (team + TEAM_COUNT - 5 * mate % TEAM_COUNT) % TEAM_COUNT
    }

    pub fn human(number: u64) -> Caller {
        Caller::person(number, 0, 0)
    }

    /// Someone as a cluster knows them: one that says why names the binding of their team, elsewhere some come by a role
    /// of AWS. Clients of people churn: a version is in use for some epochs.
    pub fn person(number: u64, cluster: u64, epoch: u64) -> Caller {
        let name = person(number);
        let team = team(team_of(number));
        let release = (mix(10, number) + epoch / 40) % 12;
        let build = hex(11, release, 7);
        let agent = match number % 8 {
            1 | 3 => format!("kubectl/v1.{}.{} (darwin/arm64) kubernetes/{build}", 29 + release % 5, release),
            5 => format!("kubectl/v1.{}.{} (linux/amd64) kubernetes/{build}", 29 + release % 5, release),
            4 => format!("k9s/v0.{}.{} (darwin/arm64) kubernetes/$Format", 32 + release, release % 5),
            0 | 6 => format!("Helm/3.{}.{}", 12 + release % 6, release % 4),
            2 | 7 => format!("OpenAPI-Generator/{}.{}.0/python", 28 + release % 6, release % 4),
            _ => format!("argocd-cli/v2.{}.{} (linux/amd64) kubernetes/{build}", 9 + release % 4, release),
        };
        let mut extra = String::new();
        if number % 12 == 7 && !says_why(cluster) {
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
                3 if says_why(cluster) => binding(&format!("{group}-admin"), "admin", "Group", group),
                _ => String::new(),
            },
            ..Caller::default()
        }
    }

    /// The same when it asks what the API offers, which a binding of their own allows to all who are known.
    pub fn discovering(mut self) -> Caller {
        if !self.reason.is_empty() {
            self.reason = binding("system:discovery", "system:discovery", "Group", "system:authenticated");
        }
        self
    }
}

/// The team that a person is of: every twenty-four people in a row are one of each.
fn team_of(number: u64) -> u64 {
    (number + 5 * (number / TEAM_COUNT)) % TEAM_COUNT
}

fn number_of(name: &str, cluster: u64) -> u64 {
    name.bytes().fold(cluster, |sum, byte| mix(sum, u64::from(byte))) >> 20
}

/// How often a token of the caller has been renewed.
fn renewals(epoch: u64, number: u64) -> u64 {
    (epoch + number % TOKEN_EPOCHS) / TOKEN_EPOCHS
}

/// The id of a token, a member of `user.extra`.
fn put_token(out: &mut String, token: &str) {
    put!(out, r#""authentication.kubernetes.io/credential-id":["JTI={token}"]"#);
}

/// A token that is bound to a pod says so in the members of `user.extra`.
fn put_bound(out: &mut String, token: &str, node_number: u64, pod: &str, pod_uid: &str) {
    put_token(out, token);
    put!(out, r#","authentication.kubernetes.io/node-name":["{}"],"#, node(node_number));
    put!(out, r#""authentication.kubernetes.io/node-uid":["{}"],"#, uid(6, node_number));
    put!(out, r#""authentication.kubernetes.io/pod-name":["{pod}"],"#);
    put!(out, r#""authentication.kubernetes.io/pod-uid":["{pod_uid}"]"#);
}

fn service_account(number: u64, namespace: String, name: &str, ip: String) -> Caller {
    let account = format!("{namespace}-{name}");
    let commit = hex(15, number, 7);
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
