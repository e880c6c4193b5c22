//! The trust of a pipeline's role is widened to any repository; a strange one assumes it, pushes an image into the
//! company's own registry and rolls it out. The twin: a release.

use serde_json::{Value, json};

use crate::attack::cast::digits;
use crate::attack::cloudtrail::{CLI, Identity, Record};
use crate::attack::kubernetes::{Actor, Call, Object};
use crate::attack::scene::Scene;
use crate::attack::scenery::BEFORE;
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S4",
    title: "role of a pipeline for any repository, image pushed to the own registry and deployed",
    twin: "a release: the pipeline pushes and deploys as it always does",
    // None of the scenario's own three has a rule; this one sees how it begins.
    detections: &["aws-iam-role-trust-external"],
    without_rule: &[
        "xsrc-ci-identity-to-cluster-change",
        "xsrc-unknown-image-push-then-deploy",
        "xsrc-deployed-image-without-provenance",
    ],
    while_learning: &["aws-ecr-push-by-unknown-principal"],
    allow: &[],
    attack,
    benign,
};

const ISSUER: &str = "token.actions.githubusercontent.com";
/// Runners of the forge, outside the company.
const RUNNER: &str = "192.88.99.61";
const DOCKER: &str =
    "docker/27.4.0 go/go1.22.10 git-commit/92a8393 kernel/6.8.0-1017 os/linux arch/amd64 UpstreamClient(buildx)";

pub(in crate::attack) fn push(s: &mut Scene, who: &Identity, repository: &str, tag: &str, digest: &str) {
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}).to_string();
    let asked = json!({
        "registryId": who.account, "repositoryName": repository, "imageTag": tag, "imageManifest": manifest,
        "imageManifestMediaType": "application/vnd.oci.image.manifest.v1+json",
    });
    let answered = json!({"image": {
        "registryId": who.account, "repositoryName": repository, "imageId": {"imageDigest": digest, "imageTag": tag},
        "imageManifest": manifest, "imageManifestMediaType": "application/vnd.oci.image.manifest.v1+json",
    }});
    let arn = format!("arn:aws:ecr:{}:{}:repository/{repository}", who.region, who.account);
    s.cloudtrail(
        Record::new(s.start, &who.clone().with(DOCKER), "ecr", "PutImage")
            .asked(asked)
            .answered(answered)
            .resources(json!([{"ARN": arn, "accountId": who.account}])),
    );
}

fn repository(s: &Scene) -> String {
    format!("{}/{}", s.cast.pod.namespace, s.cast.pod.container)
}

fn deploy(s: &mut Scene, who: &Identity, tag: &str) {
    let (pod, cluster) = (s.cast.pod.clone(), s.cast.cluster.clone());
    let image = format!("{}.dkr.ecr.{}.amazonaws.com/{}:{tag}", cluster.account, cluster.region, repository(s));
    let actor = Actor::aws(who, &["pipelines"], "kubectl/v1.31.3 (linux/amd64) kubernetes/c83cbee").at(&who.ip);
    let object = Object::of("apps", "deployments").within(&pod.namespace).named(&pod.workload);
    let change: Value =
        json!({"spec": {"template": {"spec": {"containers": [{"name": pod.container, "image": image}]}}}});
    s.kubernetes(Call::new(&actor, "patch", object).query("fieldManager=kubectl-set").body(change));
}

fn pipeline(s: &Scene, role: &str) -> Identity {
    Identity::federated(&s.cast.cluster, role, "GitHubActions", RUNNER, CLI)
}

fn attack(s: &mut Scene) {
    let cluster = s.cast.cluster.clone();
    // The pipeline of the documentation, which has never pushed to this repository.
    let (role, attacker, repository) = (pipeline(s, "docs-pipeline"), s.cast.attacker.clone(), repository(s));
    s.about("cluster", cluster.name);
    s.about("account", &cluster.account);
    s.about("principal", role.iam_arn());
    s.about("repository", &repository);
    s.about("address", &attacker);
    let insider = Identity::user_of(&cluster, &s.cast.engineer).at(&attacker);
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
        "Principal": {"Federated": format!("arn:aws:iam::{}:oidc-provider/{ISSUER}", cluster.account)},
        "Condition": {
            "StringEquals": {format!("{ISSUER}:aud"): "sts.amazonaws.com"},
            "StringLike": {format!("{ISSUER}:sub"): "repo:*"},
        },
    }]});
    let asked = json!({"roleName": role.name(), "policyDocument": trust.to_string()});
    s.cloudtrail(Record::new(s.start, &insider, "iam", "UpdateAssumeRolePolicy").asked(asked));
    s.wait(180);
    // A fork's workflow, in a session that is named as those of the pipeline are.
    let fork = role.at(&attacker);
    s.cloudtrail(Record::web_identity(
        s.start,
        &cluster,
        &fork,
        ISSUER,
        "sts.amazonaws.com",
        "repo:helpful-fork/service:ref:refs/heads/ci",
    ));
    s.wait(30);
    s.cloudtrail(Record::new(s.start, &fork, "ecr", "GetAuthorizationToken"));
    s.wait(20);
    let digest = format!("sha256:{}", digits("implant", &attacker, 64));
    push(s, &fork, &repository, "v2.0.1", &digest);
    s.wait(90);
    deploy(s, &fork, "v2.0.1");
}

fn benign(s: &mut Scene) {
    let cluster = s.cast.cluster.clone();
    let (role, repository) = (pipeline(s, "release-pipeline"), repository(s));
    s.about("cluster", cluster.name);
    s.about("principal", role.iam_arn());
    s.about("repository", &repository);
    let earlier = format!("sha256:{}", digits("release", &repository, 64));
    s.history(BEFORE, |s| push(s, &role, &repository, "v1.9.3", &earlier));
    let subject = format!("repo:corp/{repository}:ref:refs/heads/main");
    s.cloudtrail(Record::web_identity(s.start, &cluster, &role, ISSUER, "sts.amazonaws.com", &subject));
    s.wait(40);
    s.cloudtrail(Record::new(s.start, &role, "ecr", "GetAuthorizationToken"));
    s.wait(25);
    let digest = format!("sha256:{}", digits("next release", &repository, 64));
    push(s, &role, &repository, "v1.9.4", &digest);
    s.wait(80);
    deploy(s, &role, "v1.9.4");
}
