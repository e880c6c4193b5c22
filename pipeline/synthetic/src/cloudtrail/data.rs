//! A trail with data events, by the mix of a real storage account: services that write objects make most of it, a
//! third of the calls is refused.

use event::Micros;
use rand::Rng;
use rand::rngs::SmallRng;

use super::background::{Background, Outcome, write};
use super::callers::Callers;
use super::calls::Call;
use super::parameters::{Asked, Value};
use crate::random::{chance, pick};
use crate::world::{Domain, Duty, Thing};

/// Service, name, share in percent, read-only.
pub const SHARES: [(&str, &str, f64, bool); 7] = [
    ("s3", "PutObject", 49.5, false),
    ("s3", "GetBucketAcl", 22.1, true),
    ("kms", "GenerateDataKey", 16.7, true),
    ("s3", "GetObject", 3.8, true),
    ("kms", "Decrypt", 3.7, true),
    ("s3", "HeadBucket", 1.1, true),
    ("sts", "AssumeRole", 0.6, true),
];

pub fn data_event(rng: &mut SmallRng, at: Micros, of: &Background<'_>) -> Vec<u8> {
    let mut left = rng.random::<f64>() * SHARES.iter().map(|share| share.2).sum::<f64>();
    let found = SHARES.iter().find(|share| {
        left -= share.2;
        left < 0.0
    });
    let (service, name, _, read_only) = *found.unwrap_or(&SHARES[0]);
    let by = match chance(rng, 87.0) {
        true => Callers::Service,
        false => Callers::Role(pick(rng, &[Duty::Workload, Duty::Deploy]), Domain::Storage),
    };
    let mut call = Call::new(service, name, read_only, members(name));
    let principal = of.principal(rng, by);
    let denied = match name {
        "PutObject" => chance(rng, 55.0),
        "GetBucketAcl" => chance(rng, 24.0),
        _ => false,
    };
    if name == "GenerateDataKey" {
        call.members.push(("encryptionContext", Value::Made("context")));
    }
    let (bytes, _): (_, Asked) =
        write(rng, at, of, &call, &principal, if denied { Outcome::Denied } else { Outcome::Done });
    bytes
}

fn members(name: &str) -> Vec<(&'static str, Value)> {
    let bucket = ("bucketName", Value::Id(Thing::Bucket));
    let host = ("Host", Value::Made("host"));
    match name {
        "PutObject" => vec![
            bucket,
            host,
            ("x-amz-acl", Value::Word("bucket-owner-full-control")),
            ("x-amz-server-side-encryption", Value::Word("aws:kms")),
            ("x-amz-server-side-encryption-aws-kms-key-id", Value::Arn(Thing::Key)),
            ("x-amz-storage-class", Value::Word("STANDARD")),
            ("key", Value::Made("objectkey")),
        ],
        "GetObject" => vec![bucket, host, ("key", Value::Made("objectkey"))],
        "GetBucketAcl" => vec![bucket, host, ("acl", Value::Made("flag"))],
        "AssumeRole" => vec![("roleArn", Value::Arn(Thing::Role)), ("roleSessionName", Value::Made("session"))],
        "HeadBucket" => vec![bucket, host],
        _ => vec![("keyId", Value::Arn(Thing::Key)), ("encryptionAlgorithm", Value::Made("algorithm"))],
    }
}
