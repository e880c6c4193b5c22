//! Somebody on the pod network asks a kubelet directly for a shell: the API server knows of no session. The twin: a probe
//! that is a shell command.

use serde_json::json;

use crate::attack::falco::Alert;
use crate::attack::kubernetes::{Actor, Call, Object, controlled, template};
use crate::attack::scene::Scene;
use crate::attack::scenery::{CLUSTER_AUDIENCE, node_of};
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S9",
    title: "shell in a pod by a direct call of the kubelet",
    twin: "a readiness probe runs a shell command in a pod",
    detections: &["xsrc-container-shell-without-exec"],
    without_rule: &[],
    while_learning: &[],
    allow: &[],
    attack,
    benign,
};

fn attack(s: &mut Scene) {
    let pod = s.cast.pod.clone();
    s.about("cluster", s.cast.cluster.name);
    s.about("pod", format!("{}/{}", pod.namespace, pod.name));
    s.about("node", &pod.node.name);
    node_of(s, &pod, CLUSTER_AUDIENCE);
    s.wait(60);
    s.falco(Alert::new("Terminal shell in container", &pod, "bash").parent("containerd-shim", "systemd").terminal());
    s.wait(30);
    let look = Alert::new("Read sensitive file untrusted", &pod, "cat /etc/shadow")
        .parent("bash", "containerd-shim")
        .terminal();
    s.falco(look.file("/etc/shadow"));
}

fn benign(s: &mut Scene) {
    let (cluster, pod) = (s.cast.cluster.clone(), s.cast.pod.clone());
    s.about("cluster", cluster.name);
    s.about("pod", format!("{}/{}", pod.namespace, pod.name));
    let probe = "sh -c test -f /tmp/ready && pg_isready -q";
    let template = template(
        &pod.workload,
        &pod.service_account,
        json!({
            "name": pod.container, "image": format!("{}:{}", pod.image, pod.tag),
            "readinessProbe": {"exec": {"command": ["sh", "-c", "test -f /tmp/ready && pg_isready -q"]}, "periodSeconds": 10},
            "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
        }),
        json!({}),
    );
    let (asked, made) = controlled(&pod, "ReplicaSet", &pod.replica_set, &template);
    let controller = Actor::controller(&cluster, "replicaset-controller");
    s.kubernetes(Call::new(&controller, "create", Object::pod(&pod)).body(asked).answer(made));
    s.wait(5);
    node_of(s, &pod, CLUSTER_AUDIENCE);
    for _ in 0..4 {
        s.wait(10);
        s.falco(Alert::new("Run shell untrusted", &pod, probe).parent("containerd-shim", "systemd"));
    }
}
