//! What the roles of the AWS accounts are there for. A role has one duty in one domain, which says what it may call,
//! what it is named, how its sessions are called and which clients it uses: an application reads its parameters, a
//! pipeline deploys networks, an auditor looks at identities. Duties follow from a role's number.

use event::Micros;

use super::{cluster, part, person, team};
use crate::random::{base32, hex, mix, pick};

/// A group of APIs that belong together: what one automation is given rights for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    Network,
    Compute,
    /// Machines as Systems Manager sees them.
    Fleet,
    Identity,
    Parameters,
    Secrets,
    Keys,
    Storage,
    Database,
    Functions,
    Trails,
    Guards,
    /// What the console's own pages ask for: health, cost, notifications.
    Console,
}

impl Domain {
    pub const ALL: [Domain; 13] = [
        Domain::Network,
        Domain::Compute,
        Domain::Fleet,
        Domain::Identity,
        Domain::Parameters,
        Domain::Secrets,
        Domain::Keys,
        Domain::Storage,
        Domain::Database,
        Domain::Functions,
        Domain::Trails,
        Domain::Guards,
        Domain::Console,
    ];

    fn word(self) -> &'static str {
        match self {
            Domain::Network => "net",
            Domain::Compute => "vm",
            Domain::Fleet => "node",
            Domain::Identity => "iam",
            Domain::Parameters => "conf",
            Domain::Secrets => "vault",
            Domain::Keys => "keys",
            Domain::Storage => "s3",
            Domain::Database => "db",
            Domain::Functions => "fn",
            Domain::Trails => "trail",
            Domain::Guards => "guard",
            Domain::Console => "view",
        }
    }
}

/// The kind of a role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duty {
    /// An application: the same few calls on the same few resources.
    Workload,
    /// A pipeline that applies infrastructure as code.
    Deploy,
    /// What runs clusters and machines: autoscalers, network and storage plugins, agents.
    Platform,
    Backup,
    /// Reads configuration and findings.
    Audit,
    /// People who sign in through Identity Center and look around in the console.
    Engineer,
    /// The few who do what is hardly ever done.
    Admin,
}

/// Of any twenty-four roles in a row, each has one of these.
pub const ROLES: [(Duty, Domain); 24] = [
    (Duty::Workload, Domain::Parameters),
    (Duty::Deploy, Domain::Network),
    (Duty::Workload, Domain::Keys),
    (Duty::Deploy, Domain::Parameters),
    (Duty::Engineer, Domain::Console),
    (Duty::Workload, Domain::Secrets),
    (Duty::Deploy, Domain::Identity),
    (Duty::Workload, Domain::Storage),
    (Duty::Deploy, Domain::Compute),
    (Duty::Platform, Domain::Compute),
    (Duty::Deploy, Domain::Secrets),
    (Duty::Engineer, Domain::Compute),
    (Duty::Deploy, Domain::Storage),
    (Duty::Platform, Domain::Network),
    (Duty::Deploy, Domain::Database),
    (Duty::Engineer, Domain::Database),
    (Duty::Audit, Domain::Identity),
    (Duty::Platform, Domain::Fleet),
    (Duty::Deploy, Domain::Functions),
    (Duty::Audit, Domain::Storage),
    (Duty::Audit, Domain::Trails),
    (Duty::Backup, Domain::Compute),
    (Duty::Audit, Domain::Guards),
    (Duty::Admin, Domain::Identity),
];

/// The place in [`ROLES`] of a duty in a domain.
pub fn slot(duty: Duty, domain: Domain) -> u64 {
    let found = ROLES.iter().position(|role| *role == (duty, domain));
    found.expect("only duties that roles have are asked for") as u64
}

/// How many roles of `of` that are alike there are. Applications, pipelines and people are many, the rest is few.
pub fn pool(duty: Duty, of: u64) -> u64 {
    let most = match duty {
        Duty::Workload | Duty::Deploy | Duty::Engineer => of,
        Duty::Platform => 24,
        Duty::Backup => 12,
        Duty::Audit => 8,
        Duty::Admin => 3,
    };
    most.min(of).max(1)
}

/// The path that the ARN of the role has before its name.
pub fn path(duty: Duty) -> &'static str {
    match duty {
        Duty::Backup => "service-role/",
        Duty::Engineer => "aws-reserved/sso.amazonaws.com/",
        _ => "",
    }
}

pub fn name((duty, domain): (Duty, Domain), number: u64) -> String {
    match duty {
        Duty::Workload => format!("{}-{}-{}", team(number), part(number / 24), number / 288),
        Duty::Deploy => format!("{}-ci-{}-{}", team(number), domain.word(), number / 24),
        Duty::Platform => format!("{}-{}-{}", cluster(number), domain.word(), number / 12),
        Duty::Backup => ["AWSBackupDefaultServiceRole", "AWSDataLifecycleManagerDefaultRole"]
            [(mix(0x63, number) % 2) as usize]
            .to_owned(),
        Duty::Audit => format!("audit-{}-{}", domain.word(), number / 24),
        Duty::Engineer => format!("AWSReservedSSO_{}-{}_{}", team(number), domain.word(), hex(0x64, number, 16)),
        Duty::Admin => format!("platform-admin-{}", number / 24),
    }
}

/// What a session of the role is called, which began at `since`.
pub fn session((duty, domain): (Duty, Domain), number: u64, count: u64, since: Micros) -> String {
    let instance = || format!("i-{}", hex(8, number << 20 | count, 17));
    match duty {
        Duty::Workload => match mix(0x65, number) % 4 {
            0 => instance(),
            1 => format!("botocore-session-{}", since / 1_000_000),
            2 => format!("{}-{}", part(number / 24), base32(10, number << 20 | count, 8)),
            _ => format!("aws-go-sdk-{}", since * 1_000),
        },
        Duty::Deploy => match mix(0x65, number) % 3 {
            0 => format!("{}-{}", team(number), base32(10, number << 20 | count, 8)),
            1 => format!("pipeline-{}", mix(0x66, number << 20 | count) % 900_000 + 100_000),
            _ => format!("aws-go-sdk-{}", since * 1_000),
        },
        Duty::Platform if domain == Domain::Fleet => instance(),
        Duty::Platform => format!("aws-go-sdk-{}", since * 1_000),
        Duty::Backup => format!("AWSBackup-{}", since / 1_000_000),
        Duty::Audit => format!("botocore-session-{}", since / 1_000_000),
        Duty::Engineer | Duty::Admin => person(number / 5),
    }
}

/// The family of the role's clients.
pub fn family((duty, domain): (Duty, Domain), number: u64) -> u64 {
    let of: &[u64] = match (duty, domain) {
        (Duty::Workload, _) => &[1, 2, 4, 6, 8, 9, 13, 9],
        (Duty::Deploy, _) => &[3, 3, 0, 2, 8, 9, 9],
        (Duty::Platform, Domain::Compute) => &[10, 11],
        (Duty::Platform, Domain::Network) => &[10, 2],
        (Duty::Platform, _) => &[9],
        (Duty::Backup, _) => return BACKUP_FAMILY,
        (Duty::Audit, _) => &[8, 4, 1],
        (Duty::Engineer, _) => &[5, 14, 15, 15, 0],
        (Duty::Admin, _) => &[0, 15],
    };
    pick(&mut crate::random::draw(0x61, number), of)
}

/// AWS Backup and the lifecycle manager are the same program in all accounts.
const BACKUP_FAMILY: u64 = 7;
