//! A CronJob runs a miner, and graphics cards are rented for more. The twin: a training job, on rented graphics cards too.

use serde_json::{Value, json};

use crate::attack::cast::{Pod, uuid_of};
use crate::attack::cloudtrail::{BOTO, Identity, Record};
use crate::attack::falco::Alert;
use crate::attack::kubernetes::{Actor, Call, Object, controlled, suffix, template};
use crate::attack::scene::Scene;
use crate::attack::scenery::{BEFORE, CLUSTER_AUDIENCE, node_of};
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S11",
    title: "a CronJob runs a miner, graphics cards are rented for more",
    twin: "a training job on rented graphics cards",
    detections: &["falco-crypto-mining"],
    without_rule: &["xsrc-mining-confirmed"],
    while_learning: &["k8s-workload-persistence-first-seen", "aws-instance-launch-first-seen"],
    allow: &[],
    attack,
    benign,
};

fn rent(s: &mut Scene, who: &Identity, kind: &str, count: u32) {
    let image = "ami-0c1f44f890950b53c";
    let asked = json!({
        "instancesSet": {"items": [{"imageId": image, "minCount": 1, "maxCount": count}]}, "instanceType": kind, "blockDeviceMapping": {},
        "monitoring": {"enabled": false}, "disableApiTermination": false, "disableApiStop": false,
        "clientToken": uuid_of("launch", who.key()), "subnetId": "subnet-06b2e3f19a8d47c50",
    });
    let items: Vec<Value> = (0..count)
        .map(|n| {
            let id = format!("i-0{}", crate::attack::cast::digits("rented", &format!("{}{n}", who.key()), 16));
            json!({"instanceId": id, "imageId": image, "instanceType": kind, "instanceState": {"code": 0, "name": "pending"}, "amiLaunchIndex": n})
        })
        .collect();
    let answered = json!({"ownerId": who.account, "groupSet": {}, "instancesSet": {"items": items}});
    s.cloudtrail(Record::new(s.start, who, "ec2", "RunInstances").asked(asked).answered(answered));
}

/// The pod of a job, on the node of the cast's pod.
fn job_pod(s: &mut Scene, job: &str, template: &Value) -> Pod {
    let (cluster, base) = (s.cast.cluster.clone(), s.cast.pod.clone());
    let name = format!("{job}-{}", suffix(job));
    let pod = base.running(&cluster, &base.namespace, name, &template["spec"]["containers"][0]);
    let (asked, made) = controlled(&pod, "Job", job, template);
    s.kubernetes(
        Call::new(&Actor::controller(&cluster, "job-controller"), "create", Object::pod(&pod)).body(asked).answer(made),
    );
    s.wait(3);
    pod
}

fn attack(s: &mut Scene) {
    let (cluster, space) = (s.cast.cluster.clone(), s.cast.pod.namespace.clone());
    let account = s.cast.pod.service_account.clone();
    let attacker = s.cast.attacker.clone();
    let thief = Actor::pod(&s.cast.neighbour.clone()).at(&s.cast.neighbour.ip.clone()).with("curl/8.5.0");
    s.about("cluster", cluster.name);
    s.about("namespace", &space);
    s.about("service_account", thief.username());
    let container = json!({
        "name": "sync", "image": "docker.io/kdevops/sync:latest", "command": ["/opt/sync", "-o", "stratum+tcp://pool.example:4444", "--donate-level", "1"],
        "resources": {"requests": {"cpu": "4", "memory": "2Gi"}},
    });
    let template = template("cache-sync", &account, container, json!({"restartPolicy": "OnFailure"}));
    s.kubernetes(Call::new(&thief, "create", Object::of("batch", "cronjobs").within(&space).named("cache-sync")).made(json!({
        "kind": "CronJob", "apiVersion": "batch/v1", "metadata": {"name": "cache-sync", "namespace": space},
        "spec": {"schedule": "*/10 * * * *", "concurrencyPolicy": "Allow", "jobTemplate": {"spec": {"template": template}}},
    })));
    s.wait(40);
    let pod = job_pod(s, "cache-sync-29412360", &template);
    s.about("pod", format!("{}/{}", pod.namespace, pod.name));
    node_of(s, &pod, CLUSTER_AUDIENCE);
    s.wait(20);
    let command = "/opt/sync -o stratum+tcp://pool.example:4444 --donate-level 1";
    s.falco(
        Alert::new("Detect crypto miners using the Stratum protocol", &pod, command)
            .parent("containerd-shim", "systemd"),
    );
    s.wait(2);
    let call = Alert::new("Detect outbound connections to common miner pool ports", &pod, command)
        .parent("containerd-shim", "systemd");
    s.falco(call.connection(&pod.ip, 50_714, &s.cast.second_attacker.clone(), 4444));
    s.wait(120);
    let renter = Identity::user(&s.cast.user).at(&attacker).with(BOTO);
    s.about("principal", renter.arn());
    s.about("account", &renter.account);
    rent(s, &renter, "g5.12xlarge", 12);
}

fn benign(s: &mut Scene) {
    let (cluster, space) = (s.cast.cluster.clone(), s.cast.pod.namespace.clone());
    let account = s.cast.pod.service_account.clone();
    s.about("cluster", cluster.name);
    s.about("namespace", &space);
    let karpenter = Identity::federated(
        &cluster,
        "karpenter",
        "karpenter-1764403200",
        &cluster.way_out,
        "karpenter.sh/1.1.0 aws-sdk-go-v2/1.32.6",
    );
    s.about("principal", karpenter.iam_arn());
    let person = Actor::person(&s.cast.engineer, "machine-learning");
    let container = json!({
        "name": "train", "image": "registry.corp.example/ml/train:2026.11", "command": ["python3", "train.py", "--epochs", "40"],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
    });
    let template = template("ranking-train", &account, container, json!({"restartPolicy": "Never"}));
    let train = |number: u32| {
        let name = format!("ranking-train-{number}");
        Call::new(&person, "create", Object::of("batch", "jobs").within(&space).named(&name)).made(json!({
            "kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": name, "namespace": space},
            "spec": {"backoffLimit": 1, "template": template},
        }))
    };
    s.history(BEFORE, |s| {
        s.kubernetes(train(6));
        rent(s, &karpenter, "g5.12xlarge", 1);
    });
    s.kubernetes(train(7));
    s.wait(10);
    rent(s, &karpenter, "g5.12xlarge", 1);
    s.wait(90);
    let pod = job_pod(s, "ranking-train-7", &template);
    s.about("pod", format!("{}/{}", pod.namespace, pod.name));
    node_of(s, &pod, CLUSTER_AUDIENCE);
    s.wait(20);
    let fetch = Alert::new("Unexpected outbound connection destination", &pod, "python3 train.py --epochs 40")
        .parent("containerd-shim", "systemd");
    s.falco(fetch.connection(&pod.ip, 50_102, "192.88.99.140", 443));
}
