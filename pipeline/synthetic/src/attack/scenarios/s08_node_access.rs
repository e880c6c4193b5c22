//! A session to a node through Session Manager after which the traces are wiped, then a login to another node that went
//! by no sanctioned way. The twin: a patch window.

use serde_json::json;

use crate::attack::cast::{Pod, letters};
use crate::attack::cloudtrail::{CLI, Identity, Record};
use crate::attack::falco::Alert;
use crate::attack::scene::Scene;
use crate::attack::scenery::{CLUSTER_AUDIENCE, node_of};
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S8",
    title: "Session Manager shell on a node, history cleared; then a direct login to another node",
    twin: "a patch window with a session that is on record",
    detections: &["xsrc-remote-access-then-host-alert", "xsrc-node-shell-without-access-session"],
    without_rule: &[],
    while_learning: &[],
    allow: &[],
    attack,
    benign,
};

fn session(s: &mut Scene, who: &Identity, pod: &Pod) {
    let id = format!(
        "{}-0{}",
        who.session().split('@').next().unwrap_or_default(),
        letters("ssm", &pod.node.instance, 16).to_lowercase()
    );
    let stream = format!("wss://ssmmessages.{}.amazonaws.com/v1/data-channel/{id}?role=publish_subscribe", who.region);
    s.cloudtrail(
        Record::new(s.start, who, "ssm", "StartSession").asked(json!({"target": pod.node.instance})).answered(
            json!({"sessionId": id, "tokenValue": "Value hidden due to security reasons.", "streamUrl": stream}),
        ),
    );
}

fn attack(s: &mut Scene) {
    let (pod, other) = (s.cast.pod.clone(), s.cast.neighbour.clone());
    let thief = Identity::role(&s.cast.cluster, "platform-operator", &s.cast.engineer).at(&s.cast.attacker).with(CLI);
    s.about("cluster", s.cast.cluster.name);
    s.about("instance", &pod.node.instance);
    s.about("node", &other.node.name);
    s.about("principal", thief.iam_arn());
    node_of(s, &pod, CLUSTER_AUDIENCE);
    node_of(s, &other, CLUSTER_AUDIENCE);
    s.wait(60);
    session(s, &thief, &pod);
    s.wait(240);
    let wipe = Alert::on("Delete or rename shell history", &pod.node, "rm -f /root/.bash_history")
        .parent("bash", "ssm-session-wor");
    s.falco(wipe.terminal().file("/root/.bash_history").field("evt.type", json!("unlinkat")));
    s.wait(15);
    let clear =
        Alert::on("Clear Log Activities", &pod.node, "truncate -s 0 /var/log/secure").parent("bash", "ssm-session-wor");
    s.falco(clear.terminal().file("/var/log/secure"));
    s.wait(600);
    let login = Alert::on("System user interactive", &other.node, "bash").parent("sshd", "sshd");
    s.falco(login.terminal().by("bin", 1, 1));
    s.wait(20);
    s.falco(
        Alert::on("System user interactive", &other.node, "crictl pods")
            .parent("bash", "sshd")
            .terminal()
            .by("bin", 1, 1),
    );
}

fn benign(s: &mut Scene) {
    let (cluster, pod, other) = (s.cast.cluster.clone(), s.cast.pod.clone(), s.cast.neighbour.clone());
    let patcher =
        Identity::program(&cluster, "patch-automation", "maintenance-window", &cluster.way_out, "aws-sdk-java/2.29.23");
    let operator = Identity::role(&cluster, "platform-operator", &s.cast.engineer).with(CLI);
    s.about("cluster", cluster.name);
    s.about("instance", &pod.node.instance);
    s.about("node", &other.node.name);
    node_of(s, &pod, CLUSTER_AUDIENCE);
    node_of(s, &other, CLUSTER_AUDIENCE);
    s.wait(30);
    let document = "AWS-RunPatchBaseline";
    let command = json!({
        "commandId": crate::attack::cast::uuid_of("command", &pod.node.instance), "documentName": document, "documentVersion": "$DEFAULT",
        "instanceIds": [pod.node.instance], "status": "Pending", "statusDetails": "Pending", "targetCount": 1, "timeoutSeconds": 3600,
        "parameters": "HIDDEN_DUE_TO_SECURITY_REASONS", "maxConcurrency": "50", "maxErrors": "0", "errorCount": 0, "completedCount": 0,
    });
    s.cloudtrail(
        Record::new(s.start, &patcher, "ssm", "SendCommand")
            .asked(json!({"documentName": document, "instanceIds": [pod.node.instance], "interactive": false, "parameters": "HIDDEN_DUE_TO_SECURITY_REASONS"}))
            .answered(json!({"command": command})),
    );
    s.wait(120);
    let rotate =
        Alert::on("Clear Log Activities", &pod.node, "logrotate /etc/logrotate.conf").parent("dnf", "amazon-ssm-agen");
    s.falco(rotate.file("/var/log/dnf.log"));
    s.wait(90);
    // Somebody looks after a node that did not come back, through the sanctioned way.
    session(s, &operator, &other);
    s.wait(60);
    let look =
        Alert::on("System user interactive", &other.node, "journalctl -u kubelet").parent("bash", "ssm-session-wor");
    s.falco(look.terminal().by("ssm-user", 1001, 1001));
}
