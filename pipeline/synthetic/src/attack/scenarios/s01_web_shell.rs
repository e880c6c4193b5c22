//! A hole in a web application gives a shell; with it the credentials of the node are taken from the metadata service and
//! used from elsewhere. The twin: the network plugin asks the metadata service and makes its usual calls.

use serde_json::json;

use crate::attack::cast::Pod;
use crate::attack::cloudtrail::{BOTO, Identity, Record};
use crate::attack::falco::Alert;
use crate::attack::scene::Scene;
use crate::attack::scenery::{BEFORE, CLUSTER_AUDIENCE, node_of, usual_calls};
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S1",
    title: "web shell in a pod, metadata read, the node's role lists buckets from outside",
    twin: "the network plugin reads metadata and makes its usual calls",
    detections: &[
        "falco-remote-shell",
        "xsrc-pod-imds-then-node-credentials-used",
        "xsrc-escape-then-node-role-new-api",
    ],
    without_rule: &[],
    while_learning: &["falco-metadata-service-contact", "aws-instance-credentials-outside-instance"],
    allow: &[],
    attack,
    benign,
};

const METADATA: &str = "169.254.169.254";

fn attack(s: &mut Scene) {
    let pod = s.cast.pod.clone();
    s.about("cluster", s.cast.cluster.name);
    s.about("pod", format!("{}/{}", pod.namespace, pod.name));
    s.about("node", &pod.node.name);
    s.about("instance", &pod.node.instance);
    s.about("address", s.cast.attacker.clone());
    node_of(s, &pod, CLUSTER_AUDIENCE);

    let attacker = s.cast.attacker.clone();
    s.wait(40);
    let shell =
        Alert::new("Redirect STDOUT/STDIN to Network Connection in Container", &pod, "sh -i").parent("node", "npm");
    s.falco(shell.connection(&pod.ip, 41_522, &attacker, 4444).field("evt.type", json!("dup2")));
    s.wait(25);
    let path = "http://169.254.169.254/latest/meta-data/iam/security-credentials/";
    for (port, path) in [(41_530, path.to_owned()), (41_534, format!("{path}{}", pod.node.role))] {
        let curl = Alert::new("Contact EC2 Instance Metadata Service From Container", &pod, &format!("curl -s {path}"));
        s.falco(curl.parent("sh", "node").connection(&pod.ip, port, METADATA, 80));
        s.wait(8);
    }
    let thief = Identity::node(&s.cast.cluster, &pod.node).at(&attacker).with(BOTO);
    s.wait(150);
    s.cloudtrail(Record::new(s.start, &thief, "sts", "GetCallerIdentity"));
    s.wait(9);
    s.cloudtrail(Record::new(s.start, &thief, "s3", "ListBuckets").asked(json!({"Host": "s3.amazonaws.com"})));
    s.wait(14);
    s.cloudtrail(
        Record::new(s.start, &thief, "secretsmanager", "ListSecrets").asked(json!({"maxResults": 100})).denied(),
    );
}

fn benign(s: &mut Scene) {
    let mut plugin = s.cast.pod.clone();
    "kube-system".clone_into(&mut plugin.namespace);
    plugin.name = format!("aws-node-{}", &plugin.uid[..5]);
    plugin.container = "aws-node".to_owned();
    plugin.service_account = "aws-node".to_owned();
    plugin.image = format!("602401143452.dkr.ecr.{}.amazonaws.com/amazon-k8s-cni", s.cast.cluster.region);
    plugin.tag = "v1.19.0-eksbuild.1".to_owned();
    plugin.ip.clone_from(&plugin.node.ip);
    s.about("cluster", s.cast.cluster.name);
    s.about("pod", format!("{}/{}", plugin.namespace, plugin.name));
    s.about("instance", &plugin.node.instance);
    let ask = |pod: &Pod| {
        let plugin = Alert::new("Contact EC2 Instance Metadata Service From Container", pod, "/app/aws-k8s-agent");
        plugin.parent("bash", "containerd-shim").connection(&pod.ip, 52_110, METADATA, 80)
    };
    s.history(BEFORE, |s| s.falco(ask(&plugin)));
    node_of(s, &plugin, CLUSTER_AUDIENCE);
    s.wait(20);
    s.falco(ask(&plugin));
    s.wait(30);
    usual_calls(
        s,
        &plugin,
        &["DescribeNetworkInterfaces", "CreateNetworkInterface", "AttachNetworkInterface", "AssignPrivateIpAddresses"],
    );
    s.wait(60);
    let role = Identity::node(&s.cast.cluster, &plugin.node);
    s.cloudtrail(Record::new(s.start, &role, "ecr", "GetAuthorizationToken"));
}
