//! Techniques against what is stored and reachable in an account: loot, open ports, shared copies, images, buckets.

use serde_json::{Value, json};

use super::cluster::PLAIN;
use crate::attack::cast::digits;
use crate::attack::cloudtrail::{BOTO, CLI, Identity, Record, TERRAFORM};
use crate::attack::scenarios::push;
use crate::attack::scene::Scene;
use crate::attack::scenery::BEFORE;
use crate::attack::story::Story;

fn about_user(s: &mut Scene, who: &Identity) {
    s.about("account", &who.account);
    s.about("principal", who.arn());
    s.about("access_key", who.key());
}

/// Objects taken in one real incident, in less than a minute.
const LOOT_OBJECTS: usize = 1_168;

pub(super) const LOOT: Story = Story {
    id: "T6",
    title: "a stolen key looks around, is denied much, then takes all objects of a bucket",
    twin: "a backup reads all objects of its bucket",
    detections: &["aws-discovery-burst", "aws-access-denied-burst"],
    without_rule: &["aws-s3-download-volume-anomaly"],
    while_learning: &["aws-long-term-key-from-new-network"],
    attack: |s| {
        let home = Identity::user(&s.cast.user);
        let thief = home.clone().at(&s.cast.attacker).with(BOTO);
        about_user(s, &thief);
        s.about("address", s.cast.attacker.clone());
        s.history(BEFORE, |s| s.cloudtrail(Record::new(s.start, &home, "sts", "GetCallerIdentity")));
        s.cloudtrail(Record::new(s.start, &thief, "sts", "GetCallerIdentity"));
        let open = [
            ("s3", "ListBuckets"),
            ("ec2", "DescribeInstances"),
            ("ec2", "DescribeRegions"),
            ("lambda", "ListFunctions20150331"),
        ];
        for (service, call) in open {
            s.wait(3);
            s.cloudtrail(Record::new(s.start, &thief, service, call));
        }
        let closed = [
            ("iam", "ListUsers"),
            ("iam", "ListRoles"),
            ("iam", "GetAccountAuthorizationDetails"),
            ("secretsmanager", "ListSecrets"),
            ("rds", "DescribeDBInstances"),
            ("organizations", "DescribeOrganization"),
            ("ec2", "DescribeSnapshots"),
        ];
        for n in 0..21 {
            let (service, call) = closed[n % closed.len()];
            s.wait(2);
            s.cloudtrail(Record::new(s.start, &thief, service, call).denied());
        }
        s.wait(30);
        take(s, &thief, "exports");
    },
    benign: |s| {
        let backup = Identity::user(&s.cast.user).with(BOTO);
        about_user(s, &backup);
        s.history(BEFORE, |s| s.cloudtrail(Record::new(s.start, &backup, "s3", "ListBuckets")));
        s.cloudtrail(Record::new(s.start, &backup, "sts", "GetCallerIdentity"));
        s.wait(3);
        s.cloudtrail(Record::new(s.start, &backup, "s3", "ListBuckets"));
        s.wait(2);
        s.cloudtrail(Record::new(s.start, &backup, "s3", "GetBucketTagging").denied());
        s.wait(10);
        take(s, &backup, "backups");
    },
    ..PLAIN
};

fn take(s: &mut Scene, who: &Identity, kind: &str) {
    let bucket = format!("{}-{kind}-{}", s.cast.user.name, who.account);
    s.about("bucket", &bucket);
    for n in 0..LOOT_OBJECTS {
        let key = format!("customers/2026/{:02}/part-{n:05}.parquet", 1 + n % 12);
        s.cloudtrail(Record::object(s.start, who, "GetObject", (&bucket, &key), json!({})));
        s.wait_ms(48);
    }
}

pub(super) const SECURITY_GROUP: Story = Story {
    id: "T8",
    title: "a port opened to the world and closed again",
    twin: "a port opened to the office and closed again",
    detections: &["aws-security-group-open-to-world", "aws-security-group-briefly-opened"],
    attack: |s| port(s, "0.0.0.0/0", true),
    benign: |s| port(s, "198.51.100.7/32", false),
    ..PLAIN
};

fn port(s: &mut Scene, block: &str, stolen: bool) {
    let mut who = Identity::user(&s.cast.user).with(CLI);
    if stolen {
        who = who.at(&s.cast.attacker);
    }
    about_user(s, &who);
    let group = format!("sg-0{}", digits("security group", &who.arn(), 16));
    s.about("security_group", &group);
    let rule = format!("sgr-0{}", digits("security group rule", block, 16));
    let asked = json!({"groupId": group, "ipPermissions": {"items": [{
        "ipProtocol": "tcp", "fromPort": 22, "toPort": 22, "groups": {}, "ipRanges": {"items": [{"cidrIp": block}]}, "ipv6Ranges": {}, "prefixListIds": {},
    }]}});
    let set = |key: &str| {
        json!({"_return": true, key: {"items": [{
            "groupOwnerId": who.account, "groupId": group, "securityGroupRuleId": rule, "isEgress": false, "ipProtocol": "tcp",
            "fromPort": 22, "toPort": 22, "cidrIpv4": block,
        }]}})
    };
    let opened = set("securityGroupRuleSet");
    let closed = set("revokedSecurityGroupRuleSet");
    s.cloudtrail(
        Record::new(s.start, &who, "ec2", "AuthorizeSecurityGroupIngress").asked(asked.clone()).answered(opened),
    );
    s.wait(600);
    s.cloudtrail(Record::new(s.start, &who, "ec2", "RevokeSecurityGroupIngress").asked(asked).answered(closed));
}

pub(super) const SNAPSHOT: Story = Story {
    id: "T9",
    title: "a snapshot shared with a foreign account",
    twin: "an old share of a snapshot taken back",
    detections: &["aws-snapshot-or-image-shared"],
    attack: |s| {
        let thief = Identity::user(&s.cast.user).at(&s.cast.attacker).with(CLI);
        share(s, &thief, "add");
    },
    benign: |s| {
        let owner = Identity::user(&s.cast.user);
        share(s, &owner, "remove");
    },
    ..PLAIN
};

fn share(s: &mut Scene, who: &Identity, how: &str) {
    about_user(s, who);
    let snapshot = format!("snap-0{}", digits("snapshot", &who.arn(), 16));
    s.about("snapshot", &snapshot);
    s.cloudtrail(Record::new(s.start, who, "ec2", "DescribeSnapshots").asked(json!({
        "maxResults": 100, "ownersSet": {"items": [{"owner": "self"}]}, "filterSet": {}, "snapshotSet": {}, "sharedUsersSet": {},
    })));
    s.wait(25);
    s.cloudtrail(
        Record::new(s.start, who, "ec2", "ModifySnapshotAttribute")
            .asked(json!({
                "snapshotId": snapshot, "attributeType": "CREATE_VOLUME_PERMISSION",
                "createVolumePermission": {how: {"items": [{"userId": "902345678917"}]}},
            }))
            .answered(json!({"_return": true})),
    );
}

pub(super) const TAG_MOVED: Story = Story {
    id: "T12",
    title: "the tag of a release moved to another image",
    twin: "the next release gets a tag of its own",
    detections: &["aws-ecr-tag-moved"],
    while_learning: &["aws-ecr-push-by-unknown-principal"],
    attack: |s| release(s, true),
    benign: |s| release(s, false),
    ..PLAIN
};

fn release(s: &mut Scene, moved: bool) {
    let cluster = s.cast.cluster.clone();
    let pipeline = Identity::federated(&cluster, "release-pipeline", "GitHubActions", "192.88.99.61", CLI);
    // The address makes the repository one of this story alone: a tag has a history.
    let repository =
        format!("{}/{}-{}", s.cast.pod.namespace, s.cast.pod.container, &digits("repository", &s.cast.pod.uid, 6));
    let digest = |of: &str| format!("sha256:{}", digits(of, &repository, 64));
    s.about("account", &cluster.account);
    s.about("repository", &repository);
    s.history(BEFORE, |s| push(s, &pipeline, &repository, "v3.1.0", &digest("before")));
    s.scenery(|s| push(s, &pipeline, &repository, "v3.2.0", &digest("release")));
    s.wait(300);
    if moved {
        let thief = Identity::user_of(&cluster, &s.cast.engineer).at(&s.cast.attacker);
        s.about("principal", thief.arn());
        push(s, &thief, &repository, "v3.2.0", &digest("implant"));
    } else {
        s.about("principal", pipeline.iam_arn());
        push(s, &pipeline, &repository, "v3.2.1", &digest("fix"));
    }
}

pub(super) const PUBLIC_BUCKET: Story = Story {
    id: "T18",
    title: "a bucket's policy lets anybody read",
    twin: "a bucket's policy lets the company's own distribution read",
    detections: &["aws-s3-bucket-shared-or-public"],
    attack: |s| {
        let thief = Identity::user(&s.cast.user).at(&s.cast.attacker).with(CLI);
        policy(
            s,
            &thief,
            |_, bucket| json!({"Sid": "read", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{bucket}/*")}),
        );
    },
    benign: |s| {
        let owner = Identity::user(&s.cast.user).with(TERRAFORM);
        policy(s, &owner, |account, bucket| {
            json!({
                "Sid": "cdn", "Effect": "Allow", "Principal": {"Service": "cloudfront.amazonaws.com"}, "Action": "s3:GetObject",
                "Resource": format!("arn:aws:s3:::{bucket}/*"),
                "Condition": {"StringEquals": {"AWS:SourceArn": format!("arn:aws:cloudfront::{account}:distribution/E2QWRUHAPOMQZL")}},
            })
        });
    },
    ..PLAIN
};

fn policy(s: &mut Scene, who: &Identity, statement: fn(&str, &str) -> Value) {
    about_user(s, who);
    let bucket = format!("{}-assets-{}", s.cast.user.name, who.account);
    s.about("bucket", &bucket);
    let policy = json!({"Version": "2012-10-17", "Statement": [statement(&who.account, &bucket)]});
    s.cloudtrail(Record::bucket(
        s.start,
        who,
        "PutBucketPolicy",
        &bucket,
        json!({"policy": "", "bucketPolicy": policy}),
    ));
}
