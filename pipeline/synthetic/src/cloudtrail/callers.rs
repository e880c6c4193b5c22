//! Who makes which call. A call belongs to a domain; the roles with a duty there make it, and the users and services
//! that work in it. The mix says how often a call is made, this says by whom.

use rand::Rng;
use rand::rngs::SmallRng;

use crate::random::zipf_of;
use crate::world::{Domain, Duty, Principal, PrincipalKind, Sizes, pool, slot};

/// Those among whom the caller is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Callers {
    Role(Duty, Domain),
    User(Domain),
    Service,
    Root,
}

/// Callers of one call with their weights.
pub type Shares = Vec<(u32, Callers)>;

use Callers::{Role, User};
use Domain::{Compute, Console, Database, Fleet, Functions, Guards, Identity, Keys, Network, Parameters, Secrets};
use Domain::{Storage, Trails};
use Duty::{Admin, Audit, Backup, Deploy, Engineer, Platform, Workload};

const WORKLOADS: [Domain; 4] = [Parameters, Secrets, Keys, Storage];
const DEPLOYS: [Domain; 8] = [Network, Compute, Identity, Parameters, Secrets, Storage, Database, Functions];

/// Users are few, and each is a program of its own: one in so many is still in use.
const USERS_IDLE: u64 = 8;

/// The domain that a call belongs to.
pub fn domain(service: &str, name: &str) -> Domain {
    const NETWORK: [&str; 17] = [
        "Vpc",
        "Subnet",
        "Route",
        "Gateway",
        "Acl",
        "Address",
        "NetworkInterface",
        "SecurityGroup",
        "FlowLogs",
        "Vpn",
        "Dhcp",
        "ClassicLink",
        "Endpoint",
        "Firewall",
        "Peering",
        "HostedZone",
        "Resolver",
    ];
    const FLEET: [&str; 7] = ["Instance", "Inventory", "Compliance", "Association", "Command", "Document", "Patch"];
    match service {
        "kms" => Keys,
        "ssm" if FLEET.iter().any(|word| name.contains(word)) => Fleet,
        "ssm" => Parameters,
        "secretsmanager" => Secrets,
        "iam" | "rolesanywhere" | "sts" => Identity,
        "s3" => Storage,
        "rds" => Database,
        "lambda" | "logs" | "monitoring" => Functions,
        "ec2" | "route53" | "route53resolver" if NETWORK.iter().any(|word| name.contains(word)) => Network,
        "ec2" | "autoscaling" | "elasticloadbalancing" => Compute,
        "cloudtrail" => Trails,
        "guardduty" | "securityhub" | "organizations" => Guards,
        _ => Console,
    }
}

/// Who makes the call; `rare` are those that everyday traffic hardly has.
pub fn callers(service: &str, name: &str, read_only: bool, rare: bool) -> Shares {
    let of = domain(service, name);
    let user = (14, User(of));
    let one = |duty, domain| vec![(1, Role(duty, domain))];
    match (service, name) {
        // Whoever rotates a key has one: a user its own.
        ("iam", "CreateAccessKey") => vec![(1, User(Identity))],
        ("signin", _) => one(Engineer, Console),
        // Code, rules and retention are what pipelines change.
        ("lambda", "UpdateFunctionCode20150331v2" | "AddPermission20150331v2")
        | ("ec2", "AuthorizeSecurityGroupIngress")
        | ("logs", "DeleteLogGroup")
        | ("s3", "PutBucketLifecycle" | "PutBucketPolicy") => one(Deploy, of),
        ("ec2", "SharedSnapshotVolumeCreated") => vec![(1, Callers::Service)],
        _ if rare => one(Admin, Identity),
        ("kms", _) => {
            let roles = [(20, Parameters), (8, Secrets), (22, Keys), (6, Storage)];
            let mut shares: Shares = roles.map(|(weight, domain)| (weight, Role(Workload, domain))).to_vec();
            shares.extend([(5, Role(Deploy, Parameters)), (72, Callers::Service), user]);
            shares
        }
        ("sts", "AssumeRole") => {
            let mut shares: Shares = WORKLOADS.map(|domain| (10, Role(Workload, domain))).to_vec();
            shares.extend(DEPLOYS.map(|domain| (2, Role(Deploy, domain))));
            shares.extend([(72, Callers::Service), user]);
            shares
        }
        // Programs ask who they are when they start.
        ("sts", _) => {
            let mut shares: Shares = WORKLOADS.map(|domain| (5, Role(Workload, domain))).to_vec();
            shares.extend(DEPLOYS.map(|domain| (8, Role(Deploy, domain))));
            shares
        }
        ("secretsmanager", "GetSecretValue") => vec![(93, Role(Workload, Secrets)), (7, User(Secrets))],
        ("ssm", "GetParameter" | "GetParameters") => {
            vec![(70, Role(Workload, Parameters)), (19, Role(Deploy, Parameters)), user]
        }
        ("ec2", name) if name.starts_with("Describe") && of == Network => {
            vec![(33, Role(Deploy, Network)), (18, Role(Platform, Network)), (72, Callers::Service), user]
        }
        ("ec2", name) if name.starts_with("Describe") => {
            let roles = [(20, Deploy), (16, Platform), (15, Engineer)];
            let mut shares: Shares = roles.map(|(weight, duty)| (weight, Role(duty, Compute))).to_vec();
            shares.extend([(72, Callers::Service), user]);
            shares
        }
        // Controllers of clusters see to names and balancers.
        ("route53" | "route53resolver", _) => one(Platform, Network),
        ("autoscaling" | "elasticloadbalancing", _) => one(Platform, Compute),
        ("ec2", "CreateNetworkInterface" | "DeleteNetworkInterface" | "DetachNetworkInterface") => {
            one(Platform, Network)
        }
        ("ec2", "CreateSnapshot" | "DeleteSnapshot" | "RegisterImage" | "DeregisterImage")
        | ("rds", "CreateDBSnapshot" | "DeleteDBSnapshot") => one(Backup, Compute),
        // Autoscalers, and here and there a pipeline that bakes images.
        ("ec2", "RunInstances" | "TerminateInstances") => {
            vec![(99, Role(Platform, Compute)), (1, Role(Deploy, Compute))]
        }
        ("ec2", "CreateTags" | "CreateVolume" | "DeleteVolume") => {
            vec![(85, Role(Platform, Compute)), (15, Role(Deploy, Compute))]
        }
        ("iam", "ListUsers" | "GetAccountSummary" | "GetAccountAuthorizationDetails") => one(Audit, Identity),
        ("organizations" | "guardduty" | "securityhub", _) if read_only => one(Audit, Guards),
        ("cloudtrail", _) if read_only => one(Audit, Trails),
        ("cloudtrail" | "rolesanywhere", _) => one(Deploy, Identity),
        // The owner of the account looks at its health and its bill.
        ("health" | "ce", _) => vec![(95, Role(Engineer, Console)), (3, Callers::Root), (2, User(Console))],
        _ => match (of, read_only) {
            (Console, _) => one(Engineer, Console),
            (Fleet, _) => one(Platform, Fleet),
            (Identity, true) => vec![(60, Role(Deploy, Identity)), (29, Role(Audit, Identity)), user],
            (Storage, true) => vec![(50, Role(Deploy, Storage)), (39, Role(Audit, Storage)), user],
            (Database, true) => vec![(50, Role(Deploy, Database)), (39, Role(Engineer, Database)), user],
            (Identity | Storage | Database | Secrets, false) => one(Deploy, of),
            (Parameters | Secrets | Functions | Network | Compute, _) => vec![(89, Role(Deploy, of)), user],
            (Keys | Trails | Guards, _) => one(Deploy, Parameters),
        },
    }
}

/// One of the callers by their weights.
pub fn draw(rng: &mut SmallRng, shares: &Shares) -> Callers {
    let mut left = rng.random_range(0..shares.iter().map(|share| share.0).sum());
    for (weight, callers) in shares {
        if left < *weight {
            return *callers;
        }
        left -= weight;
    }
    unreachable!("a draw is below the sum of the weights")
}

impl Callers {
    pub fn kind(self) -> PrincipalKind {
        match self {
            Role(..) => PrincipalKind::AssumedRole,
            User(_) => PrincipalKind::IamUser,
            Callers::Service => PrincipalKind::Service,
            Callers::Root => PrincipalKind::Root,
        }
    }

    /// The number of one of them, the busiest most often.
    pub fn number(self, rng: &mut SmallRng, sizes: &Sizes) -> u64 {
        let of = Principal::share(self.kind(), sizes.principals);
        match self {
            Role(duty, domain) => {
                let alike = pool(duty, of / crate::world::ROLES.len() as u64);
                // Applications that read secrets by themselves are fewer than those that are given them.
                let alike = if (duty, domain) == (Workload, Secrets) { alike.div_ceil(2) } else { alike };
                Principal::number_of_role(slot(duty, domain), zipf_of(rng, alike, 1.1))
            }
            User(domain) => {
                let alike = of / (USERS_IDLE * Domain::ALL.len() as u64);
                Principal::number_of_user(domain, zipf_of(rng, alike.max(1), 1.1))
            }
            Callers::Service | Callers::Root => Principal::number_of(self.kind(), zipf_of(rng, of, 1.1)),
        }
    }
}
