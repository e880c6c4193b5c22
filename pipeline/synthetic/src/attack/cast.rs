//! The cast of a story: who and what of the one world takes part. The only place here that knows the world; what the world
//! does not say of its entities (an instance's id, a role, an address) is computed from their names, so that it is the
//! same in every story and every source.

use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::truth::hex;
use crate::world;

/// So many numbers name different entities, or repeat the busiest ones.
const PEOPLE: u64 = 1_000;
const USERS: u64 = 100_000;

/// A draw of the random numbers of one story.
pub(super) fn draw(seed: u64, number: u64) -> SmallRng {
    world::draw(seed, number)
}

pub(super) fn uuid(rng: &mut SmallRng) -> String {
    world::uuid(rng)
}

#[derive(Clone, Debug)]
pub(super) struct Cast {
    pub cluster: Cluster,
    /// Where it begins, or what it is all about.
    pub pod: Pod,
    /// Another pod of its namespace, on another node.
    pub neighbour: Pod,
    pub engineer: Person,
    /// An IAM user with a long-term key.
    pub user: User,
    /// Where the attacker calls from: nobody's network.
    pub attacker: String,
    pub second_attacker: String,
}

/// A cluster of EKS.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub name: &'static str,
    pub account: String,
    pub region: String,
    /// Id of its issuer of tokens.
    pub oidc: String,
    /// By which its nodes and pods reach the Internet.
    pub way_out: String,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub name: String,
    pub ip: String,
    pub instance: String,
    pub role: String,
    /// Of its role's session.
    pub key: String,
    pub uid: String,
}

#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub ip: String,
    /// Its Deployment.
    pub workload: String,
    pub replica_set: String,
    pub container: String,
    /// As Falco has it: twelve digits.
    pub container_id: String,
    pub image: String,
    pub tag: String,
    pub service_account: String,
    pub service_account_uid: String,
    pub node: Node,
}

#[derive(Clone, Debug)]
pub(super) struct Person {
    /// `ada.fox1`
    pub name: String,
    pub email: String,
    pub ip: String,
    pub kubectl: String,
}

#[derive(Clone, Debug)]
pub(super) struct User {
    pub name: String,
    pub account: String,
    pub region: String,
    pub ip: String,
    pub agent: String,
    pub key: String,
}

impl Cast {
    /// Attacks and twins play on nodes of their own, so that what one does is not taken for the other's.
    pub fn draw(rng: &mut SmallRng, benign: bool) -> Cast {
        // Long-lived, and running when the stream begins.
        let running = world::Population::at(0, 1, false);
        let nodes = world::NODES / world::CLUSTERS;
        let is_ours = |node: u64| (node / world::CLUSTERS % 2 == 1) == benign;
        let pod = std::iter::repeat_with(|| running.settled(rng.random())).find(|pod| is_ours(pod.node_number));
        let pod = pod.expect("half of all nodes are ours");
        let cluster = Cluster::new(pod.cluster);
        let first = rng.random_range(1..nodes);
        let others = (0..nodes).map(|n| (pod.node_number + (first + n) * world::CLUSTERS) % world::NODES);
        let beside = others.into_iter().find(|node| *node != pod.node_number && is_ours(*node)).expect("a dozen are");
        let mut neighbour = running.settled(rng.random());
        while neighbour.number == pod.number {
            neighbour = running.settled(rng.random());
        }
        neighbour.image = neighbour.image.replace(&neighbour.namespace, &pod.namespace);
        neighbour.namespace.clone_from(&pod.namespace);
        let pod = Pod::new(pod, &cluster);
        let mut neighbour = Pod::new(neighbour, &cluster);
        // Another of the cluster's nodes: neighbours may be of any cluster.
        neighbour.node = Node::new(beside, &cluster);
        Cast {
            pod,
            neighbour,
            engineer: Person::new(rng.random_range(0..PEOPLE)),
            user: User::new(rng.random_range(0..USERS / 2) * 2),
            attacker: stranger(rng, "192.175.48"),
            second_attacker: stranger(rng, "192.52.193"),
            cluster,
        }
    }
}

/// Of blocks that IANA has set aside for services of the network itself: routed, and nobody's own (RFC 7535, RFC 7450).
fn stranger(rng: &mut SmallRng, network: &str) -> String {
    format!("{network}.{}", rng.random_range(2..250))
}

impl Cluster {
    fn new(name: &'static str) -> Cluster {
        let home = world::Principal::user(number("account", name) % USERS);
        Cluster {
            name,
            account: home.account,
            region: (0..world::CLUSTERS)
                .map(world::cluster_of)
                .find(|known| known.name == name)
                .map_or(home.region, |known| known.region)
                .to_owned(),
            oidc: digits("oidc", name, 32).to_uppercase(),
            // As above (RFC 7534): public, as ways out are.
            way_out: format!("192.31.196.{}", 2 + number("way out", name) % 250),
        }
    }
}

impl Node {
    fn new(number: u64, cluster: &Cluster) -> Node {
        let name = world::node(number);
        let within = format!("{}/{name}", cluster.name);
        Node {
            ip: world::node_address(number),
            instance: format!("i-0{}", digits("instance", &within, 16)),
            role: format!("eks-{}-node", cluster.name),
            key: format!("ASIA{}", letters("node key", &within, 16)),
            uid: uuid_of("node", &within),
            name,
        }
    }
}

impl Pod {
    fn new(pod: world::Pod, cluster: &Cluster) -> Pod {
        let account = format!("{}/{}/{}", cluster.name, pod.namespace, pod.container);
        // deployment-replicaset-pod
        let replica_set = pod.name.rsplit_once('-').map_or(pod.name.as_str(), |(set, _)| set).to_owned();
        Pod {
            uid: pod.uid,
            ip: pod.ip,
            workload: pod.workload,
            replica_set,
            tag: pod.tag,
            container_id: pod.container_id,
            image: pod.image,
            service_account: pod.container.to_owned(),
            container: pod.container.to_owned(),
            service_account_uid: uuid_of("service account", &account),
            node: Node::new(pod.node_number, cluster),
            name: pod.name,
            namespace: pod.namespace,
        }
    }

    /// A pod with another name that runs the one container of a template on the same node.
    pub fn running(&self, cluster: &Cluster, namespace: &str, name: String, container: &Value) -> Pod {
        let within = format!("{}/{namespace}/{name}", cluster.name);
        let image = container["image"].as_str().unwrap_or_default();
        let (image, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        Pod {
            namespace: namespace.to_owned(),
            uid: uuid_of("pod", &within),
            container_id: digits("container", &within, 12),
            container: container["name"].as_str().unwrap_or_default().to_owned(),
            image: image.to_owned(),
            tag: tag.to_owned(),
            name,
            ..self.clone()
        }
    }

    /// `system:serviceaccount:payments-api:worker`
    pub fn identity(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.service_account)
    }
}

impl Person {
    fn new(number: u64) -> Person {
        let caller = world::Caller::human(number);
        let name = caller.username.split('@').next().unwrap_or_default().to_owned();
        Person { name, email: caller.username, ip: caller.ip, kubectl: caller.agent }
    }
}

impl User {
    fn new(number: u64) -> User {
        let known = world::Principal::user(number);
        let key = match known.access_key.starts_with("AKIA") {
            true => known.access_key,
            false => format!("AKIA{}", letters("user key", &known.name, 16)),
        };
        User {
            name: known.name,
            account: known.account,
            region: known.region.to_owned(),
            ip: known.ip,
            agent: known.agent,
            key,
        }
    }
}

/// A digest of an entity's name, one for each kind of fact about it.
fn fact(kind: &str, of: &str) -> Vec<u8> {
    Sha256::digest(format!("{kind}|{of}")).to_vec()
}

pub(super) fn number(kind: &str, of: &str) -> u64 {
    fact(kind, of).iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// At most 64 hexadecimal digits.
pub(super) fn digits(kind: &str, of: &str, count: usize) -> String {
    hex(&fact(kind, of)).chars().take(count).collect()
}

/// As in ids of AWS: capitals and the digits 2 to 7.
pub(super) fn letters(kind: &str, of: &str, count: usize) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    fact(kind, of).iter().take(count).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

pub(super) fn uuid_of(kind: &str, of: &str) -> String {
    let d = digits(kind, of, 32);
    format!("{}-{}-4{}-a{}-{}", &d[..8], &d[8..12], &d[13..16], &d[17..20], &d[20..32])
}
