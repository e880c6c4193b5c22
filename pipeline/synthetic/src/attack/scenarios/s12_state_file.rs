//! A developer who has no business with it reads the state file of the infrastructure, and uses what it says of secrets in
//! cloud and cluster. The twin: the pipeline plans a change.

use serde_json::json;

use crate::attack::cloudtrail::{CLI, Identity, Record, TERRAFORM};
use crate::attack::kubernetes::{Actor, Call, Object};
use crate::attack::scene::Scene;
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S12",
    title: "state file read by a developer, its secrets used in cloud and cluster",
    twin: "the pipeline plans a change",
    detections: &["xsrc-secrets-read-in-cluster-and-cloud"],
    without_rule: &["aws-terraform-state-exposure"],
    while_learning: &["aws-secret-first-seen-reader"],
    allow: &[],
    attack,
    benign,
};

const SECRETS: [&str; 7] = ["database", "payment-gateway", "oauth-client", "smtp", "search-api", "signing", "webhook"];

fn read(s: &mut Scene, who: &Identity, name: &str) {
    let id = format!("prod/{}/{name}", s.cast.pod.namespace);
    s.cloudtrail(
        Record::new(s.start, who, "secretsmanager", "GetSecretValue")
            .asked(json!({"secretId": id, "versionStage": "AWSCURRENT"})),
    );
}

fn state(s: &mut Scene, who: &Identity, call: &str) {
    let bucket = format!("corp-infrastructure-{}", who.account);
    let key = format!("{}/prod/terraform.tfstate", s.cast.cluster.name);
    s.cloudtrail(Record::object(s.start, who, call, (&bucket, &key), json!({})));
}

fn attack(s: &mut Scene) {
    let developer = Identity::role(&s.cast.cluster, "developer", &s.cast.engineer).with(CLI);
    s.about("cluster", s.cast.cluster.name);
    s.about("account", &developer.account);
    s.about("principal", developer.iam_arn());
    s.about("bucket", format!("corp-infrastructure-{}", developer.account));
    state(s, &developer, "GetObject");
    s.wait(200);
    for name in SECRETS {
        read(s, &developer, name);
        s.wait(9);
    }
    s.wait(90);
    let actor = Actor::aws(&developer, &["developers"], &s.cast.engineer.kubectl.clone());
    let space = s.cast.pod.namespace.clone();
    for name in SECRETS {
        s.kubernetes(Call::new(&actor, "get", Object::core("secrets").within(&space).named(name)));
        s.wait(11);
    }
}

fn benign(s: &mut Scene) {
    let cluster = s.cast.cluster.clone();
    let pipeline = Identity::federated(&cluster, "terraform-plan", "GitHubActions", "192.88.99.77", TERRAFORM);
    s.about("cluster", cluster.name);
    s.about("account", &pipeline.account);
    s.about("principal", pipeline.iam_arn());
    s.history(9, |s| {
        state(s, &pipeline, "GetObject");
        read(s, &pipeline, "database");
        read(s, &pipeline, "smtp");
    });
    state(s, &pipeline, "GetObject");
    s.wait(15);
    for call in ["DescribeVpcs", "DescribeSubnets", "DescribeSecurityGroups", "DescribeRouteTables"] {
        s.cloudtrail(Record::new(s.start, &pipeline, "ec2", call).asked(json!({"filterSet": {}})));
        s.wait(2);
    }
    for name in ["database", "smtp"] {
        read(s, &pipeline, name);
        s.wait(4);
    }
    let actor = Actor::aws(&pipeline, &["pipelines"], "HashiCorp/1.0 Terraform/1.9.8");
    let space = s.cast.pod.namespace.clone();
    s.kubernetes(Call::new(&actor, "get", Object::core("namespaces").named(&space)));
    s.wait(3);
    s.kubernetes(Call::new(&actor, "get", Object::core("secrets").within(&space).named("database")));
    s.wait(5);
    s.kubernetes(Call::new(&actor, "list", Object::of("apps", "deployments").within(&space)).query("limit=500"));
}
