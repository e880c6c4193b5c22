//! The trail is narrowed, flow logs and the runtime sensor go, and in the dark the secrets of a namespace are read. The
//! twin: declared maintenance of the same parts.

use serde_json::json;

use crate::attack::cloudtrail::{CLI, Identity, Record, TERRAFORM};
use crate::attack::falco::Alert;
use crate::attack::kubernetes::{Actor, Call, Object};
use crate::attack::scene::Scene;
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S6",
    title: "trail narrowed, runtime sensor scheduled away, secrets read",
    twin: "declared maintenance: the trail records more, the sensor gets a new version",
    detections: &["aws-evasion-chain", "k8s-security-agent-removed", "xsrc-visibility-loss-then-action"],
    without_rule: &[],
    while_learning: &[],
    allow: &[],
    attack,
    benign,
};

fn attack(s: &mut Scene) {
    let cluster = s.cast.cluster.clone();
    let admin = Identity::role(&cluster, "platform-admin", &s.cast.engineer).at(&s.cast.attacker).with(CLI);
    s.about("cluster", cluster.name);
    s.about("account", &cluster.account);
    s.about("principal", admin.iam_arn());
    s.about("address", s.cast.attacker.clone());
    let trail = format!("org-{}", cluster.account);
    let arn = format!("arn:aws:cloudtrail:{}:{}:trail/{trail}", cluster.region, cluster.account);
    let selectors = json!([{
        "readWriteType": "ReadOnly", "includeManagementEvents": true, "dataResources": [], "excludeManagementEventSources": ["kms.amazonaws.com"],
    }]);
    let asked = json!({"trailName": trail, "eventSelectors": selectors});
    let answered = json!({"trailARN": arn, "eventSelectors": selectors});
    s.cloudtrail(Record::new(s.start, &admin, "cloudtrail", "PutEventSelectors").asked(asked).answered(answered));
    s.wait(50);
    let log = format!("fl-0{}", crate::attack::cast::digits("flow log", &cluster.account, 16));
    s.cloudtrail(
        Record::new(s.start, &admin, "ec2", "DeleteFlowLogs")
            .asked(json!({"DeleteFlowLogsRequest": {"FlowLogId": {"tag": 1, "content": log}}}))
            .answered(json!({"DeleteFlowLogsResponse": {"xmlns": "http://ec2.amazonaws.com/doc/2016-11-15/", "unsuccessful": ""}})),
    );
    s.wait(80);
    let actor = Actor::aws(&admin, &[], "kubectl/v1.31.3 (linux/amd64) kubernetes/c83cbee");
    // No node has this label: the sensor leaves all of them.
    let away = json!({"spec": {"template": {"spec": {"nodeSelector": {"non-existing": "true"}}}}});
    let sensor = Object::of("apps", "daemonsets").within("falco").named("falco");
    s.kubernetes(Call::new(&actor, "patch", sensor).query("fieldManager=kubectl-patch").body(away));
    s.wait(60);
    let space = s.cast.pod.namespace.clone();
    s.kubernetes(Call::new(&actor, "list", Object::core("secrets").within(&space)).query("limit=500"));
    for name in ["database", "payment-gateway", "oauth-client"] {
        s.wait(7);
        s.kubernetes(Call::new(&actor, "get", Object::core("secrets").within(&space).named(name)));
    }
}

fn benign(s: &mut Scene) {
    let cluster = s.cast.cluster.clone();
    let pipeline = Identity::federated(&cluster, "landing-zone", "GitHubActions", "192.88.99.31", TERRAFORM);
    s.about("cluster", cluster.name);
    s.about("principal", pipeline.iam_arn());
    let trail = format!("org-{}", cluster.account);
    let selectors = json!([{
        "readWriteType": "All", "includeManagementEvents": true, "excludeManagementEventSources": [],
        "dataResources": [{"type": "AWS::S3::Object", "values": ["arn:aws:s3"]}],
    }]);
    let arn = format!("arn:aws:cloudtrail:{}:{}:trail/{trail}", cluster.region, cluster.account);
    let asked = json!({"trailName": trail, "eventSelectors": selectors});
    let answered = json!({"trailARN": arn, "eventSelectors": selectors});
    s.cloudtrail(Record::new(s.start, &pipeline, "cloudtrail", "PutEventSelectors").asked(asked).answered(answered));
    s.wait(40);
    let argo_cd = Actor::argo_cd(&cluster);
    let upgrade = json!({"spec": {"template": {"spec": {"containers": [{"name": "falco", "image": "docker.io/falcosecurity/falco:0.42.1"}]}}}});
    let sensor = Object::of("apps", "daemonsets").within("falco").named("falco");
    s.kubernetes(Call::new(&argo_cd, "patch", sensor).body(upgrade));
    s.wait(120);
    // Who declared it drains a node meanwhile, and the node's logs are turned over.
    let operator = Identity::role(&cluster, "platform-operator", &s.cast.engineer);
    let actor = Actor::aws(&operator, &[], &s.cast.engineer.kubectl.clone());
    let node = s.cast.pod.node.clone();
    s.kubernetes(
        Call::new(&actor, "patch", Object::core("nodes").named(&node.name))
            .body(json!({"spec": {"unschedulable": true}})),
    );
    s.wait(20);
    let pod = s.cast.pod.clone();
    s.kubernetes(Call::new(&actor, "create", Object::pod(&pod).sub("eviction")).body(json!({
        "kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": pod.name, "namespace": pod.namespace},
    })));
    s.wait(60);
    s.falco(
        Alert::on("System user interactive", &node, "/usr/sbin/logrotate /etc/logrotate.conf")
            .parent("systemd", "systemd"),
    );
}
