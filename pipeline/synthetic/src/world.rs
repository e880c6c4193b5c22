//! The one world that all three sources talk about. Entities are computed from their number, never stored: the
//! same principal keeps its ARN, key, agent and address, a pod its node, uid and container id in Kubernetes and
//! Falco events alike.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

pub const CLUSTERS: u64 = 3;
const ACCOUNTS: u64 = 12;
const PRINCIPALS: u64 = 4_000;
const NAMESPACES: u64 = 120;
const SERVICE_ACCOUNTS: u64 = 900;
const PODS: u64 = 20_000;
const NODES: u64 = 90;

const REGIONS: [&str; 6] = ["us-east-1", "eu-west-1", "us-west-2", "eu-central-1", "ap-southeast-2", "us-east-2"];
const TEAMS: [&str; 12] = [
    "payments", "ledger", "search", "catalog", "identity", "billing", "orders", "media", "risk", "reports", "mail",
    "edge",
];
const PARTS: [&str; 8] = ["api", "worker", "cron", "gateway", "sync", "cache", "web", "batch"];
const AGENTS: [&str; 8] = [
    "aws-cli/2.17.{} md/awscrt#0.21 ua/2.0 os/linux#6.1 md/arch#x86_64 lang/python#3.11",
    "Boto3/1.34.{} md/Botocore#1.34 ua/2.0 os/linux#5.10 lang/python#3.12 cfg/retry-mode#legacy",
    "aws-sdk-go-v2/1.30.{} os/linux lang/go#1.22 md/GOOS#linux md/GOARCH#amd64 api/s3#1.58",
    "APN/1.0 HashiCorp/1.0 Terraform/1.9.{} (+https://www.terraform.io) terraform-provider-aws/5.60",
    "aws-sdk-java/2.26.{} Linux/5.10 OpenJDK_64-Bit_Server_VM/21 Java/21 vendor/Eclipse_Adoptium",
    "console.amazonaws.com",
    "aws-sdk-js/3.6{}.0 ua/2.1 os/linux#5.10 lang/js md/nodejs#20.15",
    "aws-internal/3 aws-sdk-java/1.12.{} Linux/5.10 OpenJDK_64-Bit_Server_VM/17",
];

/// The random numbers of one event: any event can be made again from the seed and its number alone.
pub fn draw(seed: u64, number: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number.wrapping_mul(0xD134_2543_DE82_EF95))
}

/// A rank below `n`, the first ones most often (Zipf with exponent 1).
pub fn zipf(rng: &mut SmallRng, n: u64) -> u64 {
    let rank = (n as f64).powf(rng.random::<f64>()) as u64 - 1;
    rank.min(n - 1)
}

/// A version 4 UUID.
pub fn uuid(rng: &mut SmallRng) -> String {
    let (a, b) = (rng.next_u64(), rng.next_u64());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        0x8000 | (b >> 48) & 0x3fff,
        b & 0xffff_ffff_ffff
    )
}

/// Fixed pseudo-random hex digits of an entity.
fn hex(kind: u64, number: u64, digits: usize) -> String {
    let mut rng = draw(kind, number);
    let mut text = String::new();
    while text.len() < digits {
        text.push_str(&format!("{:016x}", rng.next_u64()));
    }
    text.truncate(digits);
    text
}

pub fn cluster(number: u64) -> &'static str {
    ["prod-eu", "prod-us", "staging"][(number % CLUSTERS) as usize]
}

pub fn namespace(number: u64) -> String {
    let n = number % NAMESPACES;
    format!("{}-{}", TEAMS[(n % 12) as usize], PARTS[(n / 12 % 8) as usize])
}

/// Someone or something that calls the Kubernetes API.
pub struct Caller {
    pub username: String,
    pub groups: String,
    pub agent: String,
    pub ip: String,
    /// Where a service account lives and mostly works.
    pub namespace: String,
}

impl Caller {
    pub fn service_account(number: u64) -> Caller {
        let n = number % SERVICE_ACCOUNTS;
        let namespace = namespace(n);
        let name = PARTS[(n / NAMESPACES % 8) as usize];
        Caller {
            username: format!("system:serviceaccount:{namespace}:{name}"),
            groups: format!(r#""system:serviceaccounts","system:serviceaccounts:{namespace}","system:authenticated""#),
            agent: format!("{name}/v1.{} (linux/amd64) kubernetes/$Format", n % 30),
            ip: format!("10.{}.{}.{}", 16 + n % 8, n / 8 % 250, 2 + n % 200),
            namespace,
        }
    }

    pub fn node(number: u64) -> Caller {
        let node = node(number);
        Caller {
            username: format!("system:node:{node}"),
            groups: r#""system:nodes","system:authenticated""#.to_owned(),
            agent: "kubelet/v1.30.4 (linux/amd64) kubernetes/a51b3b7".to_owned(),
            ip: format!("10.1.{}.{}", number % 4, 4 + number % NODES),
            namespace: "kube-system".to_owned(),
        }
    }

    pub fn controller(number: u64) -> Caller {
        let name = ["deployment-controller", "replicaset-controller", "job-controller", "generic-garbage-collector"]
            [(number % 4) as usize];
        Caller {
            username: format!("system:serviceaccount:kube-system:{name}"),
            groups: r#""system:serviceaccounts","system:serviceaccounts:kube-system","system:authenticated""#
                .to_owned(),
            agent: "kube-controller-manager/v1.30.4 (linux/amd64) kubernetes/a51b3b7/system:serviceaccount".to_owned(),
            ip: "10.0.0.10".to_owned(),
            namespace: "kube-system".to_owned(),
        }
    }

    pub fn human(number: u64) -> Caller {
        Caller {
            username: format!("{}@corp.example", person(number)),
            groups: r#""engineering","system:authenticated""#.to_owned(),
            agent: format!("kubectl/v1.{}.0 (darwin/arm64) kubernetes/4a3b558", 28 + number % 4),
            ip: office_ip(number),
            namespace: namespace(number),
        }
    }
}

pub fn person(number: u64) -> String {
    const FIRST: [&str; 16] = [
        "ada", "ben", "chen", "dora", "emil", "fay", "gus", "hana", "ivo", "jun", "kim", "lea", "max", "nia", "oli",
        "pam",
    ];
    const LAST: [&str; 10] = ["ahmed", "baker", "costa", "dietz", "evans", "fox", "gomez", "horn", "ito", "jansen"];
    format!("{}.{}{}", FIRST[(number % 16) as usize], LAST[(number / 16 % 10) as usize], number / 160)
}

pub fn office_ip(number: u64) -> String {
    // TEST-NET ranges of RFC 5737: no one's real addresses.
    format!("{}.{}", ["198.51.100", "203.0.113"][(number % 2) as usize], 1 + number / 2 % 250)
}

pub fn node(number: u64) -> String {
    let n = number % NODES;
    format!("ip-10-1-{}-{}.eu-west-1.compute.internal", n % 4, 4 + n)
}

pub struct Pod {
    pub name: String,
    pub namespace: String,
    pub node: String,
    pub cluster: &'static str,
    pub container_id: String,
    pub container: &'static str,
    pub image: String,
}

impl Pod {
    pub fn new(number: u64) -> Pod {
        let n = number % PODS;
        let container = PARTS[(n / NAMESPACES % 8) as usize];
        let namespace = namespace(n);
        Pod {
            name: format!("{container}-{}-{}", hex(1, n / 3, 10), hex(2, n, 5)),
            node: node(n * 7),
            cluster: cluster(n),
            container_id: hex(3, n, 12),
            container,
            image: format!("registry.corp.example/{namespace}/{container}"),
            namespace,
        }
    }

    pub fn draw(rng: &mut SmallRng) -> Pod {
        Pod::new(zipf(rng, PODS))
    }
}

/// An identity in AWS.
pub struct Principal {
    pub account: String,
    pub region: &'static str,
    pub ip: String,
    pub agent: String,
    pub kind: PrincipalKind,
    pub name: String,
    pub access_key: String,
    pub principal_id: String,
    number: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PrincipalKind {
    AssumedRole,
    IamUser,
    Service,
    Root,
}

impl Principal {
    pub fn draw(rng: &mut SmallRng) -> Principal {
        Principal::new(zipf(rng, PRINCIPALS))
    }

    pub fn new(number: u64) -> Principal {
        let mut rng = draw(4, number);
        let kind = match rng.random_range(0..1000) {
            0 => PrincipalKind::Root,
            1..=100 => PrincipalKind::IamUser,
            101..=250 => PrincipalKind::Service,
            _ => PrincipalKind::AssumedRole,
        };
        Principal { kind, ..Principal::user(number) }
    }

    /// An IAM user, as attackers like them: long-lived keys.
    pub fn user(number: u64) -> Principal {
        let mut rng = draw(5, number);
        let account = 100_000_000_000 + rng.random_range(0..ACCOUNTS) * 7_654_321_987 % 899_999_999_999;
        let agent = AGENTS[rng.random_range(0..AGENTS.len())].replace("{}", &rng.random_range(1..60).to_string());
        Principal {
            account: account.to_string(),
            region: REGIONS[zipf(&mut rng, 6) as usize],
            ip: office_ip(rng.random_range(0..400)),
            agent,
            kind: PrincipalKind::IamUser,
            name: format!("{}-{}", TEAMS[(number % 12) as usize], PARTS[(number / 12 % 8) as usize])
                + &format!("-{}", number / 96),
            access_key: format!("A{}IA{}", ['K', 'S'][(number % 2) as usize], hex(6, number, 16).to_uppercase()),
            principal_id: format!("AROA{}", hex(7, number, 17).to_uppercase()),
            number,
        }
    }

    pub fn arn(&self) -> String {
        let Principal { account, name, .. } = self;
        match self.kind {
            PrincipalKind::AssumedRole => {
                format!("arn:aws:sts::{account}:assumed-role/{name}/i-{}", hex(8, self.number, 17))
            }
            PrincipalKind::IamUser => format!("arn:aws:iam::{account}:user/{name}"),
            PrincipalKind::Root => format!("arn:aws:iam::{account}:root"),
            PrincipalKind::Service => String::new(),
        }
    }

    /// The `userIdentity` of a CloudTrail record.
    pub fn identity(&self) -> String {
        let Principal { account, name, access_key, principal_id, .. } = self;
        let arn = self.arn();
        match self.kind {
            PrincipalKind::Service => r#"{"type":"AWSService","invokedBy":"autoscaling.amazonaws.com"}"#.to_owned(),
            PrincipalKind::IamUser => format!(
                r#"{{"type":"IAMUser","principalId":"{principal_id}","arn":"{arn}","accountId":"{account}","accessKeyId":"{access_key}","userName":"{name}"}}"#
            ),
            PrincipalKind::Root => format!(
                r#"{{"type":"Root","principalId":"{account}","arn":"{arn}","accountId":"{account}","accessKeyId":""}}"#
            ),
            PrincipalKind::AssumedRole => format!(
                r#"{{"type":"AssumedRole","principalId":"{principal_id}:i-{session}","arn":"{arn}","accountId":"{account}","accessKeyId":"{access_key}","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"{principal_id}","arn":"arn:aws:iam::{account}:role/{name}","accountId":"{account}","userName":"{name}"}},"attributes":{{"creationDate":"2026-01-15T08:00:00Z","mfaAuthenticated":"false"}}}}}}"#,
                session = hex(8, self.number, 17),
            ),
        }
    }
}
