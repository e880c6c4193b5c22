//! What goes on whether or not anything happens: kubelets get tokens for their pods, nodes use their role, and nine days
//! ago they did so too.

use serde_json::json;

use super::cast::Pod;
use super::cloudtrail::{Identity, Record};
use super::falco::Alert;
use super::kubernetes::{heartbeat, token_request};
use super::scene::Scene;

/// Longer ago than detections learn, not as long ago as they remember.
pub(super) const BEFORE: i64 = 9;

pub(super) const CLUSTER_AUDIENCE: &str = "https://kubernetes.default.svc";
pub(super) const CLOUD_AUDIENCE: &str = "sts.amazonaws.com";

/// The pod's node is alive: its kubelet tells which instance it is, and renews the pod's token.
pub(super) fn node_of(s: &mut Scene, pod: &Pod, audience: &str) {
    s.scenery(|s| {
        let cluster = s.cast.cluster.clone();
        s.kubernetes(token_request(&cluster, pod, audience));
        s.wait(1);
        s.kubernetes(heartbeat(&cluster, &pod.node));
        s.wait(2);
        usual_calls(s, pod, &["DescribeInstances"]);
    });
}

/// The node's role, by the way that all nodes take.
pub(super) fn usual_calls(s: &mut Scene, pod: &Pod, calls: &[&str]) {
    let role = Identity::node(&s.cast.cluster, &pod.node);
    for call in calls {
        s.cloudtrail(Record::new(s.start, &role, "ec2", call).asked(json!({
            "instancesSet": {"items": [{"instanceId": pod.node.instance}]}, "filterSet": {},
        })));
        s.wait(1);
    }
}

/// Something of every source, so that there is a past.
pub(super) fn quiet_days(s: &mut Scene) {
    s.history(BEFORE, |s| {
        let (cluster, pod, other) = (s.cast.cluster.clone(), s.cast.pod.clone(), s.cast.neighbour.clone());
        for pod in [&pod, &other] {
            s.kubernetes(heartbeat(&cluster, &pod.node));
            usual_calls(s, pod, &["DescribeInstances"]);
        }
        s.falco(
            Alert::on("System user interactive", &pod.node, "/usr/sbin/logrotate /etc/logrotate.conf")
                .parent("systemd", "systemd"),
        );
    });
}
