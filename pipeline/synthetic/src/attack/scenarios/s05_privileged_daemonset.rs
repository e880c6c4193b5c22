//! A DaemonSet that owns every node it runs on: privileged, with the node's root mounted, it loads a kernel module. The
//! twin: the log shipper of all nodes gets a new version.

use serde_json::{Value, json};

use crate::attack::cast::Pod;
use crate::attack::falco::Alert;
use crate::attack::kubernetes::{Actor, Call, Object, controlled, suffix, template};
use crate::attack::scene::Scene;
use crate::attack::scenery::{CLUSTER_AUDIENCE, node_of};
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S5",
    title: "privileged DaemonSet mounts the node's root and loads a kernel module",
    twin: "the log shipper on all nodes is upgraded",
    detections: &["k8s-privileged-container", "xsrc-privileged-pod-then-escape"],
    without_rule: &[],
    while_learning: &["k8s-workload-persistence-first-seen"],
    allow: &[(
        "k8s-sensitive-hostpath-mount",
        "log shippers read /var/log of their nodes; the rule says so, and a place writes it down once",
    )],
    attack,
    benign,
};

/// Its pods, one on each of two nodes, made by the controller.
fn pods(s: &mut Scene, set: &str, namespace: &str, template: &Value) -> Vec<Pod> {
    let cluster = s.cast.cluster.clone();
    let controller = Actor::controller(&cluster, "daemon-set-controller");
    let mut made = Vec::new();
    for base in [s.cast.pod.clone(), s.cast.neighbour.clone()] {
        let name = format!("{set}-{}", suffix(&format!("{set}{}", base.node.name)));
        let pod = base.running(&cluster, namespace, name, &template["spec"]["containers"][0]);
        let pod = Pod {
            service_account: template["spec"]["serviceAccountName"].as_str().unwrap_or_default().to_owned(),
            ..pod
        };
        let (asked, answer) = controlled(&pod, "DaemonSet", set, template);
        s.kubernetes(Call::new(&controller, "create", Object::pod(&pod)).body(asked).answer(answer));
        s.wait(1);
        made.push(pod);
    }
    made
}

fn attack(s: &mut Scene) {
    let space = s.cast.pod.namespace.clone();
    let thief = Actor::person(&s.cast.engineer, "engineering").at(&s.cast.attacker.clone());
    s.about("cluster", s.cast.cluster.name);
    s.about("namespace", &space);
    s.about("user", thief.username());
    let set = "node-metrics";
    s.about("workload", format!("daemonsets/{set}"));
    let container = json!({
        "name": "metrics", "image": "docker.io/library/debian:12", "command": ["sh", "-c", "sleep infinity"],
        "securityContext": {"privileged": true}, "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    });
    let more = json!({
        "hostPID": true, "hostNetwork": true, "tolerations": [{"operator": "Exists"}],
        "volumes": [{"name": "host", "hostPath": {"path": "/", "type": ""}}],
    });
    let template = template(set, "default", container, more);
    s.kubernetes(Call::new(&thief, "create", Object::of("apps", "daemonsets").within(&space).named(set)).made(json!({
        "kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": {"name": set, "namespace": space},
        "spec": {"selector": {"matchLabels": {"app.kubernetes.io/name": set}}, "template": template},
    })));
    s.wait(2);
    let pods = pods(s, set, &space, &template);
    for pod in &pods {
        node_of(s, pod, CLUSTER_AUDIENCE);
        s.about("node", &pod.node.name);
    }
    s.wait(120);
    for pod in &pods {
        s.falco(
            Alert::new("Mount Launched in Privileged Container", pod, "mount /dev/nvme0n1p1 /mnt")
                .parent("sh", "containerd-shim"),
        );
        s.wait(25);
        let load = Alert::new("Linux Kernel Module Injection Detected", pod, "insmod /host/tmp/.cache/nf_helper.ko");
        s.falco(
            load.parent("sh", "containerd-shim")
                .field("proc.args", json!("/host/tmp/.cache/nf_helper.ko"))
                .field("evt.type", json!("finit_module")),
        );
        s.wait(6);
    }
}

fn benign(s: &mut Scene) {
    let (space, set) = ("logging", "log-forwarder");
    let argo_cd = Actor::argo_cd(&s.cast.cluster);
    s.about("cluster", s.cast.cluster.name);
    s.about("workload", format!("daemonsets/{space}/{set}"));
    let container = json!({
        "name": "forwarder", "image": "registry.corp.example/platform/log-forwarder:3.2.1",
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "varlog", "mountPath": "/var/log", "readOnly": true}],
    });
    let more = json!({
        "tolerations": [{"operator": "Exists"}],
        "volumes": [{"name": "varlog", "hostPath": {"path": "/var/log", "type": ""}}],
    });
    let template = template(set, set, container, more);
    let object = Object::of("apps", "daemonsets").within(space).named(set);
    s.kubernetes(Call::new(&argo_cd, "patch", object).body(json!({"spec": {"template": template}})).answer(json!({
        "kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": {"name": set, "namespace": space},
        "spec": {"selector": {"matchLabels": {"app.kubernetes.io/name": set}}, "template": template},
    })));
    s.wait(4);
    let pods = pods(s, set, space, &template);
    for pod in &pods {
        node_of(s, pod, CLUSTER_AUDIENCE);
    }
    s.wait(60);
    for pod in &pods {
        let log = Alert::new(
            "Unexpected outbound connection destination",
            pod,
            "/usr/local/bin/forwarder --config /etc/forwarder.yaml",
        );
        s.falco(log.parent("containerd-shim", "systemd").connection(&pod.ip, 44_002, "10.0.7.40", 9200));
        s.wait(3);
    }
}
