//! Techniques with identities of an account: its record, its rights, its passwords and keys.

use serde_json::json;

use super::cluster::PLAIN;
use crate::attack::cast::letters;
use crate::attack::cloudtrail::{BOTO, BROWSER, CLI, Identity, Record};
use crate::attack::scene::{NOW, Scene};
use crate::attack::scenery::BEFORE;
use crate::attack::story::Story;

fn about_user(s: &mut Scene, who: &Identity) {
    s.about("account", &who.account);
    s.about("principal", who.arn());
}

pub(super) const TRAIL: Story = Story {
    id: "T3",
    title: "a trail switched off",
    twin: "a trail switched on",
    detections: &["aws-cloudtrail-tampering"],
    attack: |s| trail(s, "StopLogging"),
    benign: |s| trail(s, "StartLogging"),
    ..PLAIN
};

fn trail(s: &mut Scene, call: &str) {
    let who = Identity::user(&s.cast.user);
    about_user(s, &who);
    let trail = format!(
        "arn:aws:cloudtrail:{}:{}:trail/org-{}",
        who.region,
        who.account,
        letters("trail", &who.account, 6).to_lowercase()
    );
    s.about("trail", &trail);
    s.cloudtrail(Record::new(s.start, &who, "cloudtrail", call).asked(json!({"name": trail})));
}

pub(super) const DENIED: Story = Story {
    id: "T4",
    title: "a stolen key tries what it may do",
    twin: "a job asks for the same thing again and again, and may not",
    detections: &["aws-access-denied-burst"],
    attack: |s| denied(s, 7),
    benign: |s| denied(s, 1),
    ..PLAIN
};

/// Twenty-one refused calls in a minute, of so many kinds.
fn denied(s: &mut Scene, distinct: usize) {
    const PROBES: [(&str, &str); 7] = [
        ("iam", "ListUsers"),
        ("s3", "ListBuckets"),
        ("ec2", "DescribeSnapshots"),
        ("secretsmanager", "ListSecrets"),
        ("lambda", "ListFunctions20150331"),
        ("organizations", "DescribeOrganization"),
        ("rds", "DescribeDBSnapshots"),
    ];
    let who = Identity::user(&s.cast.user);
    about_user(s, &who);
    for n in 0..21 {
        let (service, call) = PROBES[n % distinct];
        s.cloudtrail(Record::new(s.start, &who, service, call).denied());
        s.wait(2);
    }
}

pub(super) const ADMIN_POLICY: Story = Story {
    id: "T7",
    title: "a user gives itself all rights",
    twin: "a user may read",
    detections: &["aws-iam-admin-policy-granted"],
    attack: |s| attach(s, "AdministratorAccess"),
    benign: |s| attach(s, "ReadOnlyAccess"),
    ..PLAIN
};

fn attach(s: &mut Scene, policy: &str) {
    let who = Identity::user(&s.cast.user).with(CLI);
    about_user(s, &who);
    let asked = json!({"userName": who.name(), "policyArn": format!("arn:aws:iam::aws:policy/{policy}")});
    s.cloudtrail(Record::new(s.start, &who, "iam", "AttachUserPolicy").asked(asked));
}

pub(super) const BRUTE_FORCE: Story = Story {
    id: "T13",
    title: "passwords tried at the console until one fits",
    twin: "somebody mistypes a password twice",
    detections: &["aws-console-bruteforce-then-success", "aws-console-login-without-mfa"],
    attack: |s| {
        let who = Identity::user_of(&s.cast.cluster, &s.cast.engineer).at(&s.cast.attacker);
        s.about("address", s.cast.attacker.clone());
        sign_in(s, &who, 9, false);
    },
    benign: |s| {
        let who = Identity::user_of(&s.cast.cluster, &s.cast.engineer);
        sign_in(s, &who, 2, true);
    },
    ..PLAIN
};

fn sign_in(s: &mut Scene, who: &Identity, failures: usize, mfa: bool) {
    about_user(s, who);
    s.about("user", who.name());
    for _ in 0..failures {
        s.cloudtrail(Record::sign_in(s.start, who, false, false));
        s.wait(11);
    }
    s.cloudtrail(Record::sign_in(s.start, who, true, mfa));
}

pub(super) const NEW_NETWORK: Story = Story {
    id: "T14",
    title: "a long-term key used from a network it never came from",
    twin: "a long-term key used from where it always is",
    while_learning: &["aws-long-term-key-from-new-network"],
    attack: |s| {
        let home = Identity::user(&s.cast.user);
        let thief = home.clone().at(&s.cast.attacker).with(BOTO);
        s.about("address", s.cast.attacker.clone());
        use_key(s, &home, &thief);
    },
    benign: |s| {
        let home = Identity::user(&s.cast.user);
        use_key(s, &home.clone(), &home);
    },
    ..PLAIN
};

fn use_key(s: &mut Scene, before: &Identity, now: &Identity) {
    about_user(s, now);
    s.about("access_key", now.key());
    s.history(BEFORE, |s| s.cloudtrail(Record::new(s.start, before, "sts", "GetCallerIdentity")));
    s.cloudtrail(Record::new(s.start, now, "sts", "GetCallerIdentity"));
    s.wait(20);
    s.cloudtrail(Record::new(s.start, now, "s3", "ListBuckets").asked(json!({"Host": "s3.amazonaws.com"})));
}

pub(super) const KEY_FOR_ANOTHER: Story = Story {
    id: "T19",
    title: "a key made for another user and used from elsewhere",
    twin: "a user renews its own key",
    detections: &["aws-iam-credential-added-for-other-user", "aws-new-access-key-used-from-new-address"],
    attack: |s| {
        let thief = Identity::user(&s.cast.user).at(&s.cast.attacker).with(CLI);
        let mut victim = s.cast.user.clone();
        victim.name = s.cast.engineer.name.clone();
        let victim = Identity::user(&victim).at(&s.cast.second_attacker).with(BOTO);
        renew(s, &thief, &victim);
    },
    benign: |s| {
        let who = Identity::user(&s.cast.user).with(BROWSER);
        renew(s, &who, &who.clone());
    },
    ..PLAIN
};

fn renew(s: &mut Scene, maker: &Identity, user: &Identity) {
    about_user(s, maker);
    s.about("user", user.name());
    let key = format!("AKIA{}", letters("renewed", &format!("{}{}", user.arn(), s.start), 16));
    s.about("access_key", &key);
    let made =
        json!({"accessKey": {"userName": user.name(), "accessKeyId": key, "status": "Active", "createDate": NOW}});
    s.cloudtrail(
        Record::new(s.start, maker, "iam", "CreateAccessKey").asked(json!({"userName": user.name()})).answered(made),
    );
    s.wait(120);
    s.cloudtrail(Record::new(s.start, &user.clone().keyed(&key), "sts", "GetCallerIdentity"));
}
