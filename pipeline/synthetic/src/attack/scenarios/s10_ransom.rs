//! The protections of a bucket go one after the other; its objects are written anew with a key that only the thief has, and
//! a note is left. The twin: a bucket moves to another storage class and the company's own key.

use serde_json::json;

use crate::attack::cast::{digits, uuid_of};
use crate::attack::cloudtrail::{BOTO, Identity, Record, TERRAFORM};
use crate::attack::scene::Scene;
use crate::attack::story::Story;

pub(super) const STORY: Story = Story {
    id: "S10",
    title: "protections of a bucket removed, its objects encrypted with a foreign key, a note left",
    twin: "a bucket moves to another storage class and the company's own key",
    detections: &["aws-s3-control-teardown", "aws-s3-ransom-activity"],
    without_rule: &[],
    while_learning: &["aws-long-term-key-from-new-network"],
    allow: &[],
    attack,
    benign,
};

const OBJECTS: usize = 48;

fn key(n: usize) -> String {
    format!("invoices/2026/{:02}/{}.pdf", 1 + n % 12, digits("invoice", &n.to_string(), 12))
}

fn attack(s: &mut Scene) {
    let home = Identity::user(&s.cast.user);
    let thief = home.clone().at(&s.cast.attacker).with(BOTO);
    let bucket = format!("{}-documents-{}", s.cast.user.name, s.cast.user.account);
    s.about("account", &thief.account);
    s.about("principal", thief.arn());
    s.about("access_key", thief.key());
    s.about("bucket", &bucket);
    s.about("address", s.cast.attacker.clone());
    s.history(9, |s| {
        s.cloudtrail(Record::bucket(s.start, &home, "GetBucketLocation", &bucket, json!({"location": ""})))
    });
    s.cloudtrail(Record::bucket(s.start, &thief, "GetBucketVersioning", &bucket, json!({"versioning": ""})));
    s.wait(20);
    let xmlns = "http://s3.amazonaws.com/doc/2006-03-01/";
    let steps = [
        (
            "PutBucketVersioning",
            json!({"versioning": "", "VersioningConfiguration": {"Status": "Suspended", "xmlns": xmlns}}),
        ),
        ("DeleteBucketPublicAccessBlock", json!({"publicAccessBlock": ""})),
        ("DeleteBucketReplication", json!({"replication": ""})),
        ("PutBucketLogging", json!({"logging": "", "BucketLoggingStatus": {"xmlns": xmlns}})),
    ];
    for (call, parameters) in steps {
        s.cloudtrail(Record::bucket(s.start, &thief, call, &bucket, parameters));
        s.wait(12);
    }
    s.wait(60);
    for n in 0..OBJECTS {
        let key = key(n);
        let foreign = json!({
            "x-amz-copy-source": format!("{bucket}/{key}"), "x-amz-server-side-encryption-customer-algorithm": "AES256",
            "x-amz-server-side-encryption-customer-key-MD5": "HIDDEN_DUE_TO_SECURITY_REASONS",
        });
        s.cloudtrail(Record::object(s.start, &thief, "CopyObject", (&bucket, &key), foreign));
        s.wait_ms(700);
    }
    s.wait(20);
    let note = json!({"x-amz-storage-class": "STANDARD"});
    s.cloudtrail(Record::object(s.start, &thief, "PutObject", (&bucket, "HOW_TO_RECOVER_YOUR_FILES.txt"), note));
}

fn benign(s: &mut Scene) {
    let home = Identity::user(&s.cast.user);
    let mover = home.clone().with(TERRAFORM);
    let bucket = format!("{}-documents-{}", s.cast.user.name, s.cast.user.account);
    s.about("account", &mover.account);
    s.about("principal", mover.arn());
    s.about("bucket", &bucket);
    s.history(9, |s| {
        s.cloudtrail(Record::bucket(s.start, &home, "GetBucketLocation", &bucket, json!({"location": ""})))
    });
    let own = format!("arn:aws:kms:{}:{}:key/{}", mover.region, mover.account, uuid_of("key", &bucket));
    let xmlns = "http://s3.amazonaws.com/doc/2006-03-01/";
    let rule = json!({"ID": "archive", "Status": "Enabled", "Filter": "", "Transition": {"Days": 30, "StorageClass": "GLACIER_IR"}, "Expiration": {"Days": 2555}});
    let encryption = json!({"xmlns": xmlns, "Rule": {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": own}, "BucketKeyEnabled": true,
    }});
    let steps = [
        (
            "PutBucketVersioning",
            json!({"versioning": "", "VersioningConfiguration": {"Status": "Enabled", "xmlns": xmlns}}),
        ),
        ("PutBucketEncryption", json!({"encryption": "", "ServerSideEncryptionConfiguration": encryption})),
        ("PutBucketLifecycle", json!({"lifecycle": "", "LifecycleConfiguration": {"xmlns": xmlns, "Rule": rule}})),
    ];
    for (call, parameters) in steps {
        s.cloudtrail(Record::bucket(s.start, &mover, call, &bucket, parameters));
        s.wait(10);
    }
    s.wait(60);
    for n in 0..OBJECTS {
        let key = key(n);
        let ours = json!({
            "x-amz-copy-source": format!("{bucket}/{key}"), "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": own, "x-amz-storage-class": "GLACIER_IR",
        });
        s.cloudtrail(Record::object(s.start, &mover, "CopyObject", (&bucket, &key), ours));
        s.wait_ms(700);
    }
    for n in 0..6 {
        s.cloudtrail(Record::object(s.start, &mover, "DeleteObject", (&bucket, &format!("tmp/part-{n}")), json!({})));
        s.wait_ms(300);
    }
}
