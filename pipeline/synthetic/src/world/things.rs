//! What calls are about: ids, ARNs and object keys, each from its number.

use event::Micros;

use super::aws::{Principal, REGIONS, account};
use super::{part, team};
use crate::random::{base32, entity_uuid, hex, mix};

/// What a call is about; its id or ARN follows from kind, number and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Thing {
    Vpc,
    Subnet,
    SecurityGroup,
    RouteTable,
    InternetGateway,
    NatGateway,
    Address,
    Interface,
    Instance,
    Volume,
    Snapshot,
    Image,
    Key,
    Role,
    User,
    Policy,
    Profile,
    Parameter,
    Secret,
    Bucket,
    Function,
    Trail,
    Database,
    LogGroup,
}

impl Thing {
    /// What requests name it by.
    pub fn id(self, number: u64) -> String {
        let prefix = match self {
            Thing::Vpc => "vpc-",
            Thing::Subnet => "subnet-",
            Thing::SecurityGroup => "sg-",
            Thing::RouteTable => "rtb-",
            Thing::InternetGateway => "igw-",
            Thing::NatGateway => "nat-",
            Thing::Address => "eipalloc-",
            Thing::Interface => "eni-",
            Thing::Instance => "i-",
            Thing::Volume => "vol-",
            Thing::Snapshot => "snap-",
            Thing::Image => "ami-",
            Thing::Key => return entity_uuid(0x81, number),
            Thing::Role => return Principal::role_name(number),
            Thing::User => return format!("svc-{}-{}", team(number), number / 20),
            Thing::Policy => {
                return format!(
                    "{}-{}-{}",
                    team(number),
                    ["read", "write", "deploy"][(number % 3) as usize],
                    number / 72
                );
            }
            Thing::Profile => return format!("{}-node-{}", team(number), number / 24),
            Thing::Parameter => return format!("/{}/{}/setting-{}", team(number), part(number / 24), number / 288),
            Thing::Secret => return format!("{}/{}-{}", team(number), part(number / 24), number / 288),
            Thing::Bucket => return format!("corp-{}-{}-{}", team(number), part(number / 24), hex(0x82, number, 6)),
            Thing::Function => return format!("{}-{}-fn-{}", team(number), part(number / 24), number / 288),
            Thing::Trail => return format!("org-trail-{}", number % 40),
            Thing::Database => return format!("{}-db-{}", team(number), number / 24),
            Thing::LogGroup => {
                let kind = ["lambda", "eks", "rds", "apigateway"][(mix(0x87, number) % 4) as usize];
                return format!("/aws/{kind}/{}/{}", team(number), part(number / 24));
            }
        };
        prefix.to_owned() + &hex(0x83 + self as u64, number, 17)
    }

    pub fn arn(self, number: u64, region: &str, account: &str) -> String {
        let id = self.id(number);
        match self {
            Thing::Key => format!("arn:aws:kms:{region}:{account}:key/{id}"),
            Thing::Role => format!("arn:aws:iam::{account}:role/{id}"),
            Thing::User => format!("arn:aws:iam::{account}:user/{id}"),
            Thing::Policy => format!("arn:aws:iam::{account}:policy/{id}"),
            Thing::Profile => format!("arn:aws:iam::{account}:instance-profile/{id}"),
            Thing::Parameter => format!("arn:aws:ssm:{region}:{account}:parameter{id}"),
            Thing::Secret => {
                format!("arn:aws:secretsmanager:{region}:{account}:secret:{id}-{}", base32(0x84, number, 6))
            }
            Thing::Bucket => format!("arn:aws:s3:::{id}"),
            Thing::Function => format!("arn:aws:lambda:{region}:{account}:function:{id}"),
            Thing::Trail => format!("arn:aws:cloudtrail:{region}:{account}:trail/{id}"),
            Thing::Database => format!("arn:aws:rds:{region}:{account}:db:{id}"),
            Thing::LogGroup => format!("arn:aws:logs:{region}:{account}:log-group:{id}"),
            Thing::Instance => format!("arn:aws:ec2:{region}:{account}:instance/{id}"),
            _ => format!("arn:aws:ec2:{region}:{account}:{}", id.replacen('-', "/", 1)),
        }
    }

    /// CloudFormation's name of the type, where records carry resources of it.
    pub fn resource_type(self) -> Option<&'static str> {
        match self {
            Thing::Key => Some("AWS::KMS::Key"),
            Thing::Role => Some("AWS::IAM::Role"),
            Thing::Bucket => Some("AWS::S3::Bucket"),
            Thing::Secret => Some("AWS::SecretsManager::Secret"),
            _ => None,
        }
    }
}

/// The key of an object: dated prefixes, as logs and exports have them. `at` says which day it is.
pub fn object_key(number: u64, at: Micros) -> String {
    let hash = mix(0x85, number);
    let day = event::format_micros(at - (hash % 30) as i64 * 86_400_000_000);
    let (year, month, date) = (&day[..4], &day[5..7], &day[8..10]);
    let service = part(hash / 64);
    match hash % 4 {
        0 => format!(
            "AWSLogs/{}/elasticloadbalancing/{}/{year}/{month}/{date}/{service}-{:08x}.log.gz",
            account(hash % 40),
            REGIONS[(hash / 8 % 6) as usize],
            hash >> 32
        ),
        1 => format!(
            "exports/{service}/year={year}/month={month}/day={date}/part-{:05}-{}.snappy.parquet",
            hash % 200,
            entity_uuid(0x86, number)
        ),
        2 => format!("{}/{service}/{year}-{month}-{date}/{:x}.json", team(hash / 512), hash >> 24),
        _ => format!("backup/{}/{service}/{year}{month}{date}/{}.tar.zst", team(hash / 512), hash >> 40),
    }
}
