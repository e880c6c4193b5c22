//! The one world that all three sources talk about. Entities are computed from their number, never stored: the
//! same principal keeps its ARN, key, agent and address, a pod its node, uid, address and container id in Kubernetes
//! and Falco events alike. The world is the same for every seed; the seed says what happens in it.

mod aws;
mod callers;
mod duties;
mod pods;
mod things;

pub use aws::{Principal, PrincipalKind, account, address, agent};
pub use callers::{Caller, TOKEN_EPOCHS};
pub use duties::{Domain, Duty};
pub(crate) use duties::{ROLES, pool, slot};
pub use pods::{Pod, Population};
pub use things::{Thing, object_key};

pub use crate::random::{draw, mix, uuid, zipf, zipf_of};
use crate::random::{hex, pow};

pub const CLUSTERS: u64 = 12;
/// An assumption of 1 GB of events: 25 nodes a cluster.
pub const NODES: u64 = 300;
pub const NAMESPACES: u64 = 250;

/// How many there are of what grows with the stream; figures are those of 1 GB.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub accounts: u64,
    pub principals: u64,
    pub addresses: u64,
    pub arns: u64,
    pub buckets: u64,
    pub object_keys: u64,
    pub objects: u64,
    pub people: u64,
    pub hosts: u64,
}

impl Sizes {
    /// Grow with the 0.6th power of the stream's size: twice the events do not meet twice the people.
    pub fn of(world_gb: f64) -> Sizes {
        let factor = pow(world_gb.max(0.001), 0.6);
        let sized = |base: u64| ((base as f64 * factor) as u64).max(4);
        Sizes {
            accounts: sized(40),
            principals: sized(4_000),
            addresses: sized(6_000),
            arns: sized(200_000),
            buckets: sized(3_000),
            object_keys: sized(2_000_000),
            objects: sized(30_000),
            people: sized(240),
            hosts: sized(100),
        }
    }
}

/// A Kubernetes cluster: its name, AWS region, version and the commit that its components were built from.
pub struct Cluster {
    pub name: &'static str,
    pub region: &'static str,
    pub version: &'static str,
    pub commit: &'static str,
}

const fn of(name: &'static str, region: &'static str, version: &'static str, commit: &'static str) -> Cluster {
    Cluster { name, region, version, commit }
}

static CLUSTER: [Cluster; CLUSTERS as usize] = [
    of("prod-eu", "eu-west-1", "v1.33.5", "b2f61d0"),
    of("prod-us", "us-east-1", "v1.33.5", "b2f61d0"),
    of("staging", "eu-west-1", "v1.34.1", "7c0e9a4"),
    of("prod-ap", "ap-southeast-2", "v1.32.9", "e51f3c8"),
    of("data-eu", "eu-central-1", "v1.32.9", "e51f3c8"),
    of("data-us", "us-west-2", "v1.32.9", "e51f3c8"),
    of("edge-eu", "eu-west-1", "v1.31.13", "90ad27b"),
    of("edge-us", "us-east-2", "v1.31.13", "90ad27b"),
    of("build", "us-east-1", "v1.34.1", "7c0e9a4"),
    of("sandbox", "eu-central-1", "v1.34.1", "7c0e9a4"),
    of("ml", "us-west-2", "v1.33.5", "b2f61d0"),
    of("tools", "eu-west-1", "v1.31.13", "90ad27b"),
];

/// The name of a cluster.
pub fn cluster(number: u64) -> &'static str {
    cluster_of(number).name
}

pub fn cluster_of(number: u64) -> &'static Cluster {
    &CLUSTER[(number % CLUSTERS) as usize]
}

pub const TEAM_COUNT: u64 = 24;
const TEAMS: [&str; TEAM_COUNT as usize] = [
    "pay", "ledger", "search", "shop", "login", "bill", "order", "media", "risk", "report", "mail", "edge", "price",
    "fraud", "club", "ship", "refund", "cms", "bi", "agent", "help", "app", "stock", "legal",
];
const PARTS: [&str; 12] = ["api", "run", "cron", "gw", "sync", "db", "web", "etl", "idx", "hub", "store", "ui"];

pub fn team(number: u64) -> &'static str {
    TEAMS[(number % 24) as usize]
}

pub fn part(number: u64) -> &'static str {
    PARTS[(number % 12) as usize]
}

pub fn namespace(number: u64) -> String {
    let n = number % NAMESPACES;
    format!("{}-{}", team(n), part(n / 24))
}

/// The name of a node; nodes are dealt to the clusters in turn.
pub fn node(number: u64) -> String {
    let n = number % NODES;
    format!("{}-{}", cluster(n), n / CLUSTERS)
}

pub fn node_address(number: u64) -> String {
    let n = number % NODES;
    let (third, fourth) = node_octets(n);
    format!("10.{}.{third}.{fourth}", 1 + n % CLUSTERS)
}

fn node_octets(n: u64) -> (u64, u64) {
    let hash = mix(0x90DE, n);
    (32 * (hash % 6) + hash / 8 % 32, 4 + hash / 256 % 250)
}

/// A machine outside of the clusters.
pub fn host(number: u64) -> String {
    format!("{}-{}-{:02}", ["vm", "db", "bastion", "ci", "vpn"][(number % 5) as usize], team(number / 5), number / 120)
}

pub fn person(number: u64) -> String {
    const FIRST: [&str; 16] = [
        "ada", "ben", "chen", "dora", "emil", "fay", "gus", "hana", "ivo", "jun", "kim", "lea", "max", "nia", "oli",
        "pam",
    ];
    const LAST: [&str; 10] = ["fox", "ito", "horn", "gomez", "evans", "dietz", "costa", "baker", "ahmed", "jansen"];
    let (first, last) = (FIRST[(number % 16) as usize], LAST[(number / 16 % 10) as usize]);
    match number / 160 {
        0 => format!("{first}.{last}"),
        again => format!("{first}.{last}{again}"),
    }
}

pub fn office_ip(number: u64) -> String {
    // TEST-NET ranges of RFC 5737: no one's real addresses.
    format!("{}.{}", ["198.51.100", "203.0.113"][(number % 2) as usize], 1 + number / 2 % 250)
}

/// The uid of an object of Kubernetes, fixed for its life.
pub fn uid(kind: u64, number: u64) -> String {
    crate::random::entity_uuid(0x01D0_0000 ^ kind, number)
}

/// The digest of a container image.
pub fn image_digest(number: u64) -> String {
    hex(0x1A6E, number, 64)
}
