//! Identities of the AWS accounts: principals with sessions that follow each other, their addresses and agents.

use event::Micros;
use rand::Rng;

use super::duties::{self, Domain, Duty, ROLES};
use super::team;
use crate::random::{base32, draw, mix, put, zipf_of};

/// The 17 regions that are on by default, the busiest first.
pub const REGIONS: [&str; 17] = [
    "us-east-1",
    "eu-west-1",
    "us-west-2",
    "eu-central-1",
    "ap-southeast-2",
    "us-east-2",
    "ap-northeast-1",
    "eu-west-2",
    "ap-southeast-1",
    "ca-central-1",
    "ap-south-1",
    "eu-west-3",
    "eu-north-1",
    "sa-east-1",
    "ap-northeast-2",
    "us-west-1",
    "ap-northeast-3",
];

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
    /// What it calls itself while it holds its present keys.
    pub session: String,
    /// When the session began.
    pub since: Micros,
    pub number: u64,
    /// What a role is there for.
    pub duty: Option<Duty>,
    /// Which APIs it works with.
    pub domain: Domain,
    /// Whether CloudTrail knows how its connections are encrypted.
    pub tells_tls: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrincipalKind {
    AssumedRole,
    IamUser,
    Service,
    Root,
}

/// Of any twenty principals in a row fifteen are roles, three AWS services, two users.
const KINDS: u64 = 20;
/// Services that act in an account on their own behalf, the busiest first.
const SERVICES: [&str; 12] = [
    "autoscaling",
    "cloudtrail",
    "config",
    "elasticloadbalancing",
    "delivery.logs",
    "rds",
    "eks",
    "lambda",
    "ssm",
    "guardduty",
    "access-analyzer",
    "backup",
];

impl Principal {
    /// Of the kind that its number stands for, in its first session.
    pub fn new(number: u64) -> Principal {
        let kind = match number % KINDS {
            0..15 => PrincipalKind::AssumedRole,
            15..18 => PrincipalKind::Service,
            _ => PrincipalKind::IamUser,
        };
        Principal::in_session(number, kind, 0, 1_768_435_200_000_000)
    }

    /// An IAM user, as attackers like them: long-lived keys.
    pub fn user(number: u64) -> Principal {
        Principal::in_session(number, PrincipalKind::IamUser, 0, 0)
    }

    /// The number of a principal of a kind: `rank` counts within the kind, the busiest first.
    pub fn number_of(kind: PrincipalKind, rank: u64) -> u64 {
        match kind {
            PrincipalKind::AssumedRole => rank / 15 * KINDS + rank % 15,
            PrincipalKind::Service => rank / 3 * KINDS + 15 + rank % 3,
            PrincipalKind::IamUser => rank / 2 * KINDS + 18 + rank % 2,
            PrincipalKind::Root => rank,
        }
    }

    /// How many of `principals` are of a kind.
    pub fn share(kind: PrincipalKind, principals: u64) -> u64 {
        let of_twenty = match kind {
            PrincipalKind::AssumedRole => 15,
            PrincipalKind::Service => 3,
            PrincipalKind::IamUser => 2,
            PrincipalKind::Root => 1,
        };
        (principals * of_twenty / KINDS).max(1)
    }

    /// What the role of the number is there for, and in which domain.
    pub fn role(number: u64) -> (Duty, Domain) {
        let rank = number / KINDS * 15 + number % KINDS;
        ROLES[(rank % ROLES.len() as u64) as usize]
    }

    /// The number of a role: `rank` counts within those of its `slot` in [`ROLES`].
    pub fn number_of_role(slot: u64, rank: u64) -> u64 {
        Principal::number_of(PrincipalKind::AssumedRole, rank * ROLES.len() as u64 + slot)
    }

    /// The number of a user of a domain.
    pub fn number_of_user(domain: Domain, rank: u64) -> u64 {
        Principal::number_of(PrincipalKind::IamUser, rank * Domain::ALL.len() as u64 + domain as u64)
    }

    /// The name of a role, which others know it by too.
    pub fn role_name(number: u64) -> String {
        duties::name(Principal::role(number), number)
    }

    /// A person at a keyboard rather than a program.
    pub fn is_human(&self) -> bool {
        matches!(self.duty, Some(Duty::Engineer | Duty::Admin))
    }

    /// Whether its calls come from more than one place. Users of long-lived keys are programs that stay where they are.
    pub fn moves(&self) -> bool {
        matches!(self.duty, Some(Duty::Workload | Duty::Deploy | Duty::Engineer))
    }

    /// `session` counts the sessions of a role: each has keys and a name of its own. Users keep their keys.
    pub fn in_session(number: u64, kind: PrincipalKind, session: u64, since: Micros) -> Principal {
        let mut rng = draw(5, number);
        let account_number = zipf_of(&mut rng, 40, 1.1);
        let region = REGIONS[zipf_of(&mut rng, 17, 1.5) as usize];
        let role = Principal::role(number);
        let duty = (kind == PrincipalKind::AssumedRole).then_some(role.0);
        let name = match kind {
            PrincipalKind::Service => {
                SERVICES[(number / KINDS * 3 + number % KINDS) as usize % SERVICES.len()].to_owned()
            }
            PrincipalKind::IamUser => format!("svc-{}-{}", team(number), number / 20),
            _ => duties::name(role, number),
        };
        let keys = if kind == PrincipalKind::AssumedRole { session } else { 0 };
        let human = matches!(duty, Some(Duty::Engineer | Duty::Admin));
        // An account has one role of a name.
        let identity = if duty == Some(Duty::Backup) { 1 << 40 | account_number } else { number };
        Principal {
            account: account(account_number),
            region,
            ip: address(rng.random_range(0..4_000)),
            agent: match duty {
                Some(Duty::Backup) => agent(duties::family(role, number), 0),
                Some(_) => agent(duties::family(role, number), mix(0x62, number) % 4),
                None => agent(family(number), mix(0x62, number) % 4),
            },
            access_key: match kind {
                PrincipalKind::IamUser => format!("AKIA{}", base32(6, number, 16)),
                _ => format!("ASIA{}", base32(6 ^ (keys << 16), number, 16)),
            },
            principal_id: match kind {
                PrincipalKind::IamUser => format!("AIDA{}", base32(7, number, 17)),
                _ => format!("AROA{}", base32(7, identity, 17)),
            },
            session: duties::session(role, number, keys, since),
            since: if human { since - 1_000_000 * (mix(9, number) % 600) as i64 } else { since },
            domain: match kind {
                PrincipalKind::AssumedRole => role.1,
                _ => {
                    let rank = number / KINDS * 2 + number % KINDS % 2;
                    Domain::ALL[(rank % Domain::ALL.len() as u64) as usize]
                }
            },
            tells_tls: number % 16 >= 8,
            duty,
            kind,
            name,
            number,
        }
    }

    /// The role in the hands of one of many programs: applications, which run near what they call, and pipelines, of
    /// which Terraform runs elsewhere and comes to the public endpoints.
    pub fn with_client(mut self, program: u64) -> Principal {
        let duty = if program % 5 < 2 { Duty::Workload } else { Duty::Deploy };
        let family = duties::family((duty, self.domain), program);
        self.agent = agent(family, mix(0x62, program) % 4);
        self.tells_tls = family == TERRAFORM;
        self
    }

    pub fn arn(&self) -> String {
        let Principal { account, name, .. } = self;
        match self.kind {
            PrincipalKind::AssumedRole => format!("arn:aws:sts::{account}:assumed-role/{name}/{}", self.session),
            PrincipalKind::IamUser => format!("arn:aws:iam::{account}:user/{name}"),
            PrincipalKind::Root => format!("arn:aws:iam::{account}:root"),
            PrincipalKind::Service => String::new(),
        }
    }

    /// The domain name that a service acts under.
    pub fn service_domain(&self) -> String {
        format!("{}.amazonaws.com", self.name)
    }

    /// The `userIdentity` of a CloudTrail record.
    pub fn identity(&self) -> String {
        let Principal { account, name, access_key, principal_id, session, .. } = self;
        let arn = self.arn();
        let mut text = String::with_capacity(600);
        match self.kind {
            PrincipalKind::Service => {
                put!(&mut text, r#"{{"type":"AWSService","invokedBy":"{}"}}"#, self.service_domain())
            }
            PrincipalKind::IamUser => put!(
                &mut text,
                r#"{{"type":"IAMUser","principalId":"{principal_id}","arn":"{arn}","accountId":"{account}","accessKeyId":"{access_key}","userName":"{name}"}}"#
            ),
            PrincipalKind::Root => put!(
                &mut text,
                r#"{{"type":"Root","principalId":"{account}","arn":"{arn}","accountId":"{account}","accessKeyId":""}}"#
            ),
            PrincipalKind::AssumedRole => put!(
                &mut text,
                r#"{{"type":"AssumedRole","principalId":"{principal_id}:{session}","arn":"{arn}","accountId":"{account}","accessKeyId":"{access_key}","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"{principal_id}","arn":"arn:aws:iam::{account}:role/{path}{name}","accountId":"{account}","userName":"{name}"}},"attributes":{{"creationDate":"{since}","mfaAuthenticated":"{mfa}"}}}}}}"#,
                since = event::format_micros(self.since - self.since.rem_euclid(1_000_000)),
                path = self.duty.map_or("", duties::path),
                mfa = self.is_human(),
            ),
        }
        text
    }
}

/// The twelve digits of an account.
pub fn account(number: u64) -> String {
    (100_000_000_000 + mix(0x71, number) % 899_999_999_999).to_string()
}

/// A client's address: three in ten are shared by an office or a NAT gateway.
pub fn address(number: u64) -> String {
    if number % 10 < 3 {
        return super::office_ip(number % 40);
    }
    let hash = mix(0x72, number);
    match hash % 3 {
        0 => format!("10.{}.{}.{}", 64 + hash / 8 % 32, hash / 512 % 256, 1 + hash / 131_072 % 254),
        // 198.18.0.0/15 is set aside for benchmarks (RFC 2544), 100.64.0.0/10 for carriers (RFC 6598).
        1 => format!("198.{}.{}.{}", 18 + hash / 8 % 2, hash / 512 % 256, 1 + hash / 131_072 % 254),
        _ => format!("100.{}.{}.{}", 64 + hash / 8 % 64, hash / 512 % 256, 1 + hash / 131_072 % 254),
    }
}

/// Families of clients; `{}` are version parts, which move with the release.
const AGENTS: [&str; 16] = [
    "aws-cli/2.{}.{} md/awscrt#0.27.{} ua/2.1 os/linux#6.1.{} md/arch#x86_64 lang/python#3.13.{} md/pyimpl#CPython cfg/retry-mode#standard md/installer#exe md/prompt#off md/command#{}",
    "Boto3/1.{}.{} md/Botocore#1.{}.{} ua/2.1 os/linux#5.10.{} md/arch#x86_64 lang/python#3.12.{} md/pyimpl#CPython exec-env/AWS_Lambda_python3.12 cfg/retry-mode#legacy",
    "aws-sdk-go-v2/1.{}.{} ua/2.1 os/linux lang/go#1.24.{} md/GOOS#linux md/GOARCH#amd64 api/sts#1.{}.{}",
    "APN/1.0 HashiCorp/1.0 Terraform/1.{}.{} (+https://www.terraform.io) terraform-provider-aws/5.{}.{} (+https://registry.terraform.io/providers/hashicorp/aws) aws-sdk-go-v2/1.{}.{} os/linux lang/go#1.23.{} md/GOOS#linux md/GOARCH#amd64",
    "aws-sdk-java/2.{}.{} md/io#sync md/http#Apache ua/2.1 os/Linux#5.15.{} lang/java#21.0.{} md/vendor#Eclipse_Adoptium md/en_US",
    "console.amazonaws.com",
    "aws-sdk-js/3.{}.{} ua/2.1 os/linux#5.10.{} lang/js md/nodejs#20.{}.{}",
    "aws-internal/3 aws-sdk-java/1.12.{} Linux/5.10.{} OpenJDK_64-Bit_Server_VM/17.0.{} java/17 kotlin/1.9.{}",
    "Boto3/1.{}.{} Python/3.11.{} Linux/5.4.{} Botocore/1.{}.{}",
    "aws-sdk-go/1.{}.{} (go1.22.{}; linux; amd64)",
    "kubernetes/v1.33.{} aws-sdk-go-v2/1.{}.{} os/linux lang/go#1.24.{} md/GOOS#linux md/GOARCH#amd64 api/ec2#1.{}.{}",
    "karpenter.sh-{}.{}.{} aws-sdk-go-v2/1.{}.{} ua/2.1 os/linux lang/go#1.24.{}",
    "AWS Internal",
    "aws-sdk-rust/1.{}.{} os/linux lang/rust/1.8{}.0",
    "S3Console/0.4, aws-internal/3 aws-sdk-java/1.12.{} Linux/5.10.{}-2.amzn2int.x86_64 OpenJDK_64-Bit_Server_VM/25.{}-b08 java/1.8.0_{} vendor/Oracle_Corporation",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/13{}.0.0.0 Safari/537.36",
];

/// Its family among [`AGENTS`].
const TERRAFORM: u64 = 3;

/// Of clients that are no role's: Terraform has more of them than the others.
fn family(principal: u64) -> u64 {
    match mix(0x61, principal) % 19 {
        n if n < AGENTS.len() as u64 => n,
        _ => TERRAFORM,
    }
}

/// The user agent of a family in a release.
pub fn agent(family: u64, release: u64) -> String {
    let mut versions = draw(0x73 ^ (family << 8), release);
    let mut parts = AGENTS[(family % AGENTS.len() as u64) as usize].split("{}");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        put!(&mut text, "{}{part}", versions.random_range(0..60));
    }
    text
}
