//! An engineer's password is stolen: the thief signs in without a second factor, lets the engineer into the cluster and
//! lists all its secrets with a new key. The twin: a pipeline lets a team in, which then looks at its deployments.

use serde_json::json;

use crate::attack::cast::letters;
use crate::attack::cloudtrail::{CLI, Identity, Record};
use crate::attack::kubernetes::{Actor, Call, Object};
use crate::attack::scene::{NOW, Scene};
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S2",
    title: "stolen console session of an engineer, EKS access entry, secrets of the whole cluster listed",
    twin: "a pipeline makes an access entry, its team looks at deployments",
    detections: &[
        "aws-console-login-without-mfa",
        "xsrc-cluster-access-granted-then-used",
        "xsrc-suspect-cloud-key-used-in-cluster",
    ],
    without_rule: &[],
    while_learning: &[],
    allow: &[("aws-eks-cluster-access-granted", "whoever lets somebody into a cluster is told of, pipelines too")],
    attack,
    benign,
};

fn grant(s: &mut Scene, who: &Identity, arn: &str, policy: &str) {
    let cluster = s.cast.cluster.name;
    let entry = json!({"name": cluster, "principalArn": arn, "type": "STANDARD", "clientRequestToken": letters("token", arn, 20)});
    let made = json!({"accessEntry": {
        "clusterName": cluster, "principalArn": arn, "kubernetesGroups": [], "type": "STANDARD", "createdAt": NOW, "tags": {},
        "accessEntryArn": format!("arn:aws:eks:{}:{}:access-entry/{cluster}/{}", who.region, who.account, letters("entry", arn, 8)),
    }});
    s.cloudtrail(Record::new(s.start, who, "eks", "CreateAccessEntry").asked(entry).answered(made));
    s.wait(6);
    // The ARN is part of the path here, and stays encoded.
    let policy = format!("arn:aws:eks::aws:cluster-access-policy/{policy}");
    let escaped = arn.replace(':', "%3A").replace('/', "%2F");
    let asked = json!({"name": cluster, "principalArn": escaped, "policyArn": policy, "accessScope": {"type": "cluster", "namespaces": []}});
    let answered = json!({"clusterName": cluster, "principalArn": arn, "associatedAccessPolicy": {
        "policyArn": policy, "accessScope": {"type": "cluster", "namespaces": []}, "associatedAt": NOW, "modifiedAt": NOW,
    }});
    s.cloudtrail(Record::new(s.start, who, "eks", "AssociateAccessPolicy").asked(asked).answered(answered));
}

fn attack(s: &mut Scene) {
    let attacker = s.cast.attacker.clone();
    let engineer = Identity::user_of(&s.cast.cluster, &s.cast.engineer).at(&attacker);
    s.about("cluster", s.cast.cluster.name);
    s.about("account", &engineer.account);
    s.about("principal", engineer.arn());
    s.about("address", &attacker);
    s.cloudtrail(Record::sign_in(s.start, &engineer, true, false));
    s.wait(90);
    let session = engineer.clone().console(false);
    s.cloudtrail(Record::new(s.start, &session, "eks", "ListClusters").asked(json!({"maxResults": "100"})));
    s.wait(45);
    grant(s, &session, &engineer.arn(), "AmazonEKSClusterAdminPolicy");
    s.wait(70);
    let key = format!("AKIA{}", letters("new key", &attacker, 16));
    let made =
        json!({"accessKey": {"userName": engineer.name(), "accessKeyId": key, "status": "Active", "createDate": NOW}});
    s.cloudtrail(
        Record::new(s.start, &session, "iam", "CreateAccessKey")
            .asked(json!({"userName": engineer.name()}))
            .answered(made),
    );
    s.wait(40);
    let thief = engineer.keyed(&key).with(CLI);
    s.about("access_key", &key);
    s.cloudtrail(Record::new(s.start, &thief, "eks", "DescribeCluster").asked(json!({"name": s.cast.cluster.name})));
    s.wait(15);
    let actor = Actor::aws(&thief, &[], "kubectl/v1.31.3 (linux/amd64) kubernetes/c83cbee");
    let review = Object::of("authorization.k8s.io", "selfsubjectaccessreviews");
    s.kubernetes(Call::new(&actor, "create", review).body(json!({
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {},
        "spec": {"resourceAttributes": {"verb": "*", "group": "*", "resource": "*"}}, "status": {"allowed": false},
    })));
    s.wait(12);
    s.kubernetes(Call::new(&actor, "list", Object::core("secrets")).query("limit=500"));
}

fn benign(s: &mut Scene) {
    let cluster = s.cast.cluster.clone();
    let pipeline = Identity::federated(
        &cluster,
        "platform-pipeline",
        "GitHubActions",
        "192.88.99.20",
        crate::attack::cloudtrail::TERRAFORM,
    );
    let member = Identity::role(&cluster, "team-developers", &s.cast.engineer);
    s.about("cluster", cluster.name);
    s.about("principal", member.iam_arn());
    grant(s, &pipeline, &member.iam_arn(), "AmazonEKSViewPolicy");
    s.wait(400);
    let kubectl = s.cast.engineer.kubectl.clone();
    let actor = Actor::aws(&member, &[], &kubectl);
    let space = s.cast.pod.namespace.clone();
    s.kubernetes(Call::new(&actor, "list", Object::of("apps", "deployments").within(&space)).query("limit=500"));
    s.wait(30);
    s.kubernetes(Call::new(&actor, "list", Object::core("pods").within(&space)).query("limit=500"));
    s.wait(20);
    let pod = s.cast.pod.clone();
    s.kubernetes(Call::new(&actor, "get", Object::pod(&pod).sub("log")).query("tailLines=200"));
}
