//! The walls of a namespace come down; a pod there tries its neighbours and what the API lets it do. The twin: the GitOps
//! controller replaces a policy by another.

use serde_json::json;

use crate::attack::falco::Alert;
use crate::attack::kubernetes::{Actor, Call, Object};
use crate::attack::scene::Scene;
use crate::attack::scenery::{CLUSTER_AUDIENCE, node_of};
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S7",
    title: "NetworkPolicy deleted, a pod tries its neighbours and the API",
    twin: "the GitOps controller replaces a policy, a pod finds a new peer",
    detections: &["xsrc-network-policy-removed-then-outbound", "xsrc-lateral-movement-fanout"],
    without_rule: &[],
    while_learning: &[],
    allow: &[],
    attack,
    benign,
};

fn policy(space: &str, name: &str) -> Object {
    Object::of("networking.k8s.io", "networkpolicies").within(space).named(name)
}

fn attack(s: &mut Scene) {
    let pod = s.cast.pod.clone();
    let thief = Actor::person(&s.cast.engineer, "engineering").at(&s.cast.attacker.clone());
    s.about("cluster", s.cast.cluster.name);
    s.about("namespace", &pod.namespace);
    s.about("pod", format!("{}/{}", pod.namespace, pod.name));
    s.about("service_account", pod.identity());
    s.about("user", thief.username());
    node_of(s, &pod, CLUSTER_AUDIENCE);
    s.wait(20);
    s.kubernetes(Call::new(&thief, "delete", policy(&pod.namespace, "default-deny")).body(json!({
        "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background",
    })));
    s.wait(90);
    s.falco(
        Alert::new("Launch Suspicious Network Tool in Container", &pod, "nmap -sT -p 80,443,5432,6379 10.128.0.0/24")
            .parent("sh", "node"),
    );
    for n in 0..9u16 {
        s.wait(2);
        let peer = format!("10.{}.{}.{}", 128 + n % 3, 7 * n, 20 + 3 * n);
        let port = [5432, 6379, 8080][usize::from(n % 3)];
        let knock = Alert::new(
            "Unexpected outbound connection destination",
            &pod,
            "nmap -sT -p 80,443,5432,6379 10.128.0.0/24",
        );
        s.falco(knock.parent("sh", "node").connection(&pod.ip, 40_000 + n, &peer, port));
    }
    s.wait(30);
    let token = Actor::pod(&pod).with("kubectl/v1.31.3 (linux/amd64) kubernetes/c83cbee");
    let objects = [
        Object::core("secrets").within("kube-system"),
        Object::core("pods"),
        Object::core("nodes"),
        Object::of("rbac.authorization.k8s.io", "clusterroles"),
        Object::core("configmaps").within("kube-system"),
        Object::core("serviceaccounts"),
        Object::core("namespaces"),
        Object::of("apps", "daemonsets"),
    ];
    for object in objects {
        s.kubernetes(Call::new(&token, "list", object).query("limit=500").denied());
        s.wait(3);
    }
}

fn benign(s: &mut Scene) {
    let pod = s.cast.pod.clone();
    let argo_cd = Actor::argo_cd(&s.cast.cluster);
    s.about("cluster", s.cast.cluster.name);
    s.about("namespace", &pod.namespace);
    s.about("pod", format!("{}/{}", pod.namespace, pod.name));
    node_of(s, &pod, CLUSTER_AUDIENCE);
    s.wait(20);
    s.kubernetes(Call::new(&argo_cd, "create", policy(&pod.namespace, "default-deny-v2")).made(json!({
        "kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "default-deny-v2", "namespace": pod.namespace},
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}], "ports": [{"protocol": "UDP", "port": 53}]}],
        },
    })));
    s.wait(3);
    s.kubernetes(Call::new(&argo_cd, "delete", policy(&pod.namespace, "default-deny")));
    s.wait(100);
    for (port, peer) in [(41_810, "10.129.4.17"), (41_822, "10.130.9.40")] {
        let found = Alert::new("Unexpected outbound connection destination", &pod, "/srv/app --peers auto");
        s.falco(found.parent("containerd-shim", "systemd").connection(&pod.ip, port, peer, 8080));
        s.wait(11);
    }
    // A client that looks for what it may use is told no, twice.
    let own = Actor::pod(&pod);
    for resource in ["endpoints", "services"] {
        s.kubernetes(Call::new(&own, "list", Object::core(resource)).query("limit=500").denied());
        s.wait(4);
    }
}
