//! Techniques against a cluster: sessions in pods, secrets, escapes, rights, certificates and tokens.

use serde_json::json;

use crate::attack::cast::{letters, uuid_of};
use crate::attack::falco::Alert;
use crate::attack::kubernetes::{Actor, Call, Object, token_request};
use crate::attack::scene::Scene;
use crate::attack::scenery::{BEFORE, CLUSTER_AUDIENCE, node_of};
use crate::attack::story::Story;

pub(super) const PLAIN: Story = Story {
    id: "",
    title: "",
    twin: "",
    detections: &[],
    without_rule: &[],
    while_learning: &[],
    allow: &[],
    attack: |_| {},
    benign: |_| {},
};

fn about_pod(s: &mut Scene, who: &Actor) {
    s.about("cluster", s.cast.cluster.name);
    s.about("pod", format!("{}/{}", s.cast.pod.namespace, s.cast.pod.name));
    s.about("user", who.username());
}

pub(super) const EXEC: Story = Story {
    id: "T1",
    title: "exec into a pod with a stolen service account",
    twin: "a service account reads the log of a pod",
    detections: &["k8s-pod-exec", "k8s-exec-suspicious-command"],
    attack: |s| {
        let thief = Actor::pod(&s.cast.neighbour.clone()).at(&s.cast.attacker.clone());
        about_pod(s, &thief);
        let pod = s.cast.pod.clone();
        s.stream(Call::exec(&thief, &pod, &["sh", "-c", "cat /var/run/secrets/kubernetes.io/serviceaccount/token"]), 3);
    },
    benign: |s| {
        let reader = Actor::pod(&s.cast.neighbour.clone());
        about_pod(s, &reader);
        let pod = s.cast.pod.clone();
        s.kubernetes(Call::new(&reader, "get", Object::pod(&pod).sub("log")).query("tailLines=200"));
    },
    ..PLAIN
};

pub(super) const SECRETS: Story = Story {
    id: "T2",
    title: "secrets of a namespace read one by one",
    twin: "the same few secrets read again and again",
    detections: &["k8s-secret-read-burst"],
    while_learning: &["k8s-secret-first-seen-reader"],
    attack: |s| read_secrets(s, 14),
    benign: |s| {
        s.history(BEFORE, |s| read_secrets(s, 4));
        read_secrets(s, 4);
    },
    ..PLAIN
};

/// Fifty reads in less than a minute: through all there are, or a few again and again.
fn read_secrets(s: &mut Scene, distinct: usize) {
    let person = Actor::person(&s.cast.engineer, "engineering");
    let space = s.cast.pod.namespace.clone();
    s.about("cluster", s.cast.cluster.name);
    s.about("namespace", &space);
    s.about("user", person.username());
    for n in 0..50 {
        let name = format!("{}-{}", ["api-key", "db", "tls", "token"][n % distinct % 4], n % distinct);
        s.kubernetes(Call::new(&person, "get", Object::core("secrets").within(&space).named(&name)));
        s.wait_ms(900);
    }
}

pub(super) const RELEASE_AGENT: Story = Story {
    id: "T5",
    title: "a container writes release_agent to escape",
    twin: "a container writes a file of its own",
    detections: &["falco-escape-primitive"],
    attack: |s| {
        let pod = s.cast.pod.clone();
        s.about("cluster", s.cast.cluster.name);
        s.about("pod", format!("{}/{}", pod.namespace, pod.name));
        s.about("node", &pod.node.name);
        let write = Alert::new(
            "Detect release_agent File Container Escapes",
            &pod,
            "sh -c echo /cmd > /sys/fs/cgroup/rdma/release_agent",
        );
        let capabilities = json!("CAP_CHOWN CAP_DAC_OVERRIDE CAP_SYS_ADMIN");
        s.falco(
            write
                .parent("sh", "containerd-shim")
                .file("/sys/fs/cgroup/rdma/release_agent")
                .field("thread.cap_effective", capabilities),
        );
    },
    benign: |s| {
        let pod = s.cast.pod.clone();
        s.about("cluster", s.cast.cluster.name);
        s.about("pod", format!("{}/{}", pod.namespace, pod.name));
        let write = Alert::new("Write below monitored dir", &pod, "sh -c echo 1.9.4 > /opt/app/release_notes");
        s.falco(write.parent("sh", "containerd-shim").file("/opt/app/release_notes"));
    },
    ..PLAIN
};

pub(super) const ANONYMOUS_ADMIN: Story = Story {
    id: "T10",
    title: "cluster-admin for everybody who does not sign in",
    twin: "a team may look at a namespace",
    detections: &["k8s-dangerous-role-binding"],
    attack: |s| {
        let thief = Actor::person(&s.cast.engineer, "engineering").at(&s.cast.attacker.clone());
        s.about("cluster", s.cast.cluster.name);
        s.about("user", thief.username());
        s.kubernetes(Call::new(&thief, "create", Object::of("rbac.authorization.k8s.io", "clusterrolebindings").named("metrics-view")).made(json!({
            "kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "metrics-view"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:unauthenticated"}],
        })));
    },
    benign: |s| {
        let lead = Actor::person(&s.cast.engineer, "engineering");
        let space = s.cast.pod.namespace.clone();
        s.about("cluster", s.cast.cluster.name);
        s.about("user", lead.username());
        s.kubernetes(Call::new(&lead, "create", Object::of("rbac.authorization.k8s.io", "rolebindings").within(&space).named("team-view")).made(json!({
            "kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "team-view", "namespace": space},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "team-reports"}],
        })));
    },
    ..PLAIN
};

pub(super) const CERTIFICATE: Story = Story {
    id: "T11",
    title: "certificate for system:masters asked for and approved by the same person",
    twin: "a kubelet asks for its certificate, the controller approves",
    detections: &["k8s-client-certificate-requested", "k8s-client-certificate-issued"],
    attack: |s| {
        let thief = Actor::person(&s.cast.engineer, "engineering").at(&s.cast.attacker.clone());
        s.about("user", thief.username());
        let subject = [("O", "system:masters"), ("CN", "backup-admin")];
        certificate(s, &thief, &thief.clone(), "backup-admin", "kubernetes.io/kube-apiserver-client", &subject);
    },
    benign: |s| {
        let (cluster, node) = (s.cast.cluster.clone(), s.cast.pod.node.clone());
        let kubelet = Actor::kubelet(&cluster, &node);
        let controller = Actor::controller(&cluster, "certificate-controller");
        s.about("node", &node.name);
        let name = format!("csr-{}", letters("csr", &node.uid, 5).to_lowercase());
        let common = format!("system:node:{}", node.name);
        let subject = [("O", "system:nodes"), ("CN", common.as_str())];
        certificate(s, &kubelet, &controller, &name, "kubernetes.io/kube-apiserver-client-kubelet", &subject);
    },
    ..PLAIN
};

fn certificate(s: &mut Scene, asks: &Actor, approves: &Actor, name: &str, signer: &str, subject: &[(&str, &str)]) {
    s.about("cluster", s.cast.cluster.name);
    s.about("certificate", name);
    let object = Object::of("certificates.k8s.io", "certificatesigningrequests").named(name);
    let asked = json!({
        "kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1", "metadata": {"name": name},
        "spec": {"request": crate::attack::csr::request(subject), "signerName": signer, "usages": ["digital signature", "client auth"]},
        "status": {},
    });
    s.kubernetes(Call::new(asks, "create", object.clone()).made(asked.clone()));
    s.wait(20);
    let mut approved = asked;
    approved["status"] = json!({"conditions": [{
        "type": "Approved", "status": "True", "reason": "KubectlApprove", "message": "This CSR was approved by kubectl certificate approve.",
        "lastUpdateTime": crate::attack::scene::NOW,
    }]});
    s.kubernetes(Call::new(approves, "update", object.sub("approval")).body(approved.clone()).answer(approved));
}

pub(super) const MINER: Story = Story {
    id: "T15",
    title: "a miner started in a pod by hand",
    twin: "somebody looks at a busy pod",
    detections: &["k8s-exec-suspicious-command", "falco-crypto-mining", "xsrc-exec-then-falco-alert"],
    attack: |s| {
        let thief = Actor::person(&s.cast.engineer, "engineering").at(&s.cast.attacker.clone());
        about_pod(s, &thief);
        let pod = s.cast.pod.clone();
        node_of(s, &pod, CLUSTER_AUDIENCE);
        s.wait(20);
        let command = "/tmp/xmrig -o stratum+tcp://pool.example:3333 -u 44tLjm";
        s.stream(Call::exec(&thief, &pod, &["sh", "-c", command]), 5);
        s.wait_ms(400);
        s.falco(Alert::new("Known Cryptominer Process Executed", &pod, command).parent("sh", "runc"));
        s.wait(2);
        s.falco(Alert::new("Detect crypto miners using the Stratum protocol", &pod, command).parent("sh", "runc"));
    },
    benign: |s| {
        let person = Actor::person(&s.cast.engineer, "engineering");
        about_pod(s, &person);
        let pod = s.cast.pod.clone();
        node_of(s, &pod, CLUSTER_AUDIENCE);
        s.wait(20);
        s.stream(Call::exec(&person, &pod, &["top"]), 30);
        s.wait(40);
        s.kubernetes(Call::new(&person, "get", Object::pod(&pod).sub("log")).query("tailLines=500"));
    },
    ..PLAIN
};

pub(super) const ANONYMOUS_READ: Story = Story {
    id: "T16",
    title: "a stranger who does not sign in reads pods",
    twin: "a load balancer asks whether the server is well",
    detections: &["k8s-anonymous-request-allowed"],
    attack: |s| {
        let why = "RBAC: allowed by ClusterRoleBinding \"metrics-view\" of ClusterRole \"cluster-admin\" to Group \"system:unauthenticated\"";
        let stranger = Actor::anonymous(&s.cast.attacker.clone(), "Go-http-client/2.0").let_by(why);
        s.about("cluster", s.cast.cluster.name);
        s.about("address", s.cast.attacker.clone());
        s.kubernetes(Call::path(&stranger, "/version"));
        s.wait(4);
        s.kubernetes(Call::new(&stranger, "list", Object::core("pods")).query("limit=500"));
    },
    benign: |s| {
        let why = "RBAC: allowed by ClusterRoleBinding \"system:public-info-viewer\" of ClusterRole \"system:public-info-viewer\" to Group \"system:unauthenticated\"";
        let balancer = Actor::anonymous("10.0.9.17", "ELB-HealthChecker/2.0").let_by(why);
        s.about("cluster", s.cast.cluster.name);
        for path in ["/readyz", "/livez?verbose", "/version"] {
            s.kubernetes(Call::path(&balancer, path));
            s.wait(5);
        }
    },
    ..PLAIN
};

pub(super) const TOKEN: Story = Story {
    id: "T17",
    title: "a long-lived token of a service account made by hand and used from outside",
    twin: "kubelets get tokens for their pods, which use them",
    detections: &["k8s-service-account-token-minted", "k8s-issued-token-used-elsewhere"],
    attack: |s| {
        let thief = Actor::person(&s.cast.engineer, "engineering").at(&s.cast.attacker.clone());
        let pod = s.cast.pod.clone();
        s.about("cluster", s.cast.cluster.name);
        s.about("service_account", pod.identity());
        s.about("user", thief.username());
        let object = Object::core("serviceaccounts").within(&pod.namespace).named(&pod.service_account).sub("token");
        let mut loose = pod.clone();
        // Bound to no pod; the id of the token is all that the later calls have of it.
        loose.uid = uuid_of("minted", &s.cast.attacker.clone());
        let id = format!("JTI={}", uuid_of("token", &loose.uid));
        s.kubernetes(
            Call::new(&thief, "create", object)
                .body(json!({
                    "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
                    "metadata": {"name": pod.service_account, "namespace": pod.namespace},
                    "spec": {"audiences": [CLUSTER_AUDIENCE], "expirationSeconds": 31_536_000, "boundObjectRef": null},
                    "status": {"token": "", "expirationTimestamp": null},
                }))
                .annotated("authentication.kubernetes.io/issued-credential-id", id),
        );
        s.wait(90);
        let used = Actor::token(&loose)
            .at(&s.cast.second_attacker.clone())
            .with("kubectl/v1.31.3 (linux/amd64) kubernetes/c83cbee");
        s.kubernetes(Call::new(&used, "list", Object::core("pods").within(&pod.namespace)).query("limit=500"));
    },
    benign: |s| {
        let (cluster, pod) = (s.cast.cluster.clone(), s.cast.pod.clone());
        s.about("cluster", cluster.name);
        s.about("service_account", pod.identity());
        s.kubernetes(token_request(&cluster, &pod, CLUSTER_AUDIENCE));
        s.wait(30);
        let own = Actor::pod(&pod);
        s.kubernetes(Call::new(&own, "list", Object::core("endpoints").within(&pod.namespace)).query("limit=500"));
        s.wait(10);
        s.kubernetes(Call::new(&own, "get", Object::core("configmaps").within(&pod.namespace).named("settings")));
    },
    ..PLAIN
};
