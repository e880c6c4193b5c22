//! Pods and their lives. A new pod comes with every `every` events of a stream and takes over the slot of one that
//! is deleted then, as a rolling update does; names are retired for good. Which pods run at an event's number is
//! arithmetic: pod `j` is of class `j % 16`, and a class of `s` slots gives each pod a life of `16 s` pods.

use rand::Rng;
use rand::rngs::SmallRng;

use super::{CLUSTERS, NODES, cluster_of, namespace, node, node_address, part, uid};
use crate::random::{hex, mix, suffix, zipf_of};

/// Slots by class: most pods are short-lived, most running pods are not.
const SLOTS: [u64; 16] = [64, 64, 64, 64, 64, 64, 128, 128, 128, 128, 256, 256, 256, 512, 512, 4_096];
/// Pods that came before the stream.
const BEFORE: u64 = 1 << 20;
const WORKLOADS: u64 = 900;

/// Which pods run while one frame of the stream lasts.
#[derive(Clone, Copy, Debug)]
pub struct Population {
    /// Pods below were created before the frame.
    pub created: u64,
    /// How many pods are created (and deleted) within it.
    pub turnover: u64,
    /// Chosen from the newest only.
    pub fresh: bool,
}

impl Population {
    pub fn at(frame: u64, turnover: u64, fresh: bool) -> Population {
        Population { created: BEFORE + frame * turnover, turnover, fresh }
    }

    /// The `nth` pod that is created within the frame.
    pub fn newcomer(&self, nth: u64) -> Pod {
        Pod::new(self.created + nth)
    }

    /// The pod whose slot the `nth` newcomer takes.
    pub fn leaver(&self, nth: u64) -> Pod {
        let newcomer = self.created + nth;
        Pod::new(newcomer - 16 * SLOTS[(newcomer % 16) as usize])
    }

    /// A pod that runs for the whole frame, the same few most often.
    pub fn running(&self, rng: &mut SmallRng) -> Pod {
        if self.fresh {
            return Pod::new(self.created - 1 - rng.random_range(0..self.turnover));
        }
        loop {
            let class = match rng.random_range(0..100) {
                0..25 => rng.random_range(0..13),
                25..40 => rng.random_range(13..15),
                _ => 15,
            };
            let slots = SLOTS[class as usize];
            let slot = zipf_of(rng, slots, 1.48);
            let newest = self.newest(class, slot);
            if newest + 16 * slots >= self.created + self.turnover {
                return Pod::new(newest);
            }
        }
    }

    /// One of the long-lived pods, the same for as long as it lives.
    pub fn settled(&self, which: u64) -> Pod {
        let (class, slots) = (15, SLOTS[15]);
        let alive = |slot: &u64| self.newest(class, *slot) + 16 * slots >= self.created + self.turnover;
        let slot = (0..slots).map(|n| (which + n) % slots).find(alive).unwrap_or(which % slots);
        Pod::new(self.newest(class, slot))
    }

    /// The last pod of the slot that was created before the frame.
    fn newest(&self, class: u64, slot: u64) -> u64 {
        let slots = SLOTS[class as usize];
        let last = (self.created - 1 - class) / 16;
        16 * (last - (last + slots - slot) % slots) + class
    }
}

pub struct Pod {
    pub number: u64,
    pub name: String,
    pub namespace: String,
    pub node: String,
    pub cluster: &'static str,
    /// The first 12 hex digits, as Falco reports it.
    pub container_id: String,
    pub container: &'static str,
    pub image: String,
    pub tag: String,
    pub uid: String,
    pub ip: String,
    pub node_number: u64,
    /// The deployment (or job) that the pod is of, and its number.
    pub workload: String,
    pub workload_number: u64,
    /// Whose namespace it is in.
    pub team_number: u64,
}

impl Pod {
    pub fn new(number: u64) -> Pod {
        let class = number % 16;
        let slots = SLOTS[class as usize];
        let (slot, generation) = (number / 16 % slots, number / 16 / slots);
        let workload_number = (slot + mix(0x51, class)) % WORKLOADS;
        let space = workload_number.wrapping_mul(37) % super::NAMESPACES;
        let namespace = namespace(space);
        let container = part(workload_number / 7 + space / 24);
        let workload = match class {
            0..4 => format!("{container}-job"),
            _ => format!("{container}-{}", ["main", "v2", "blue", "eu", "core"][(workload_number % 5) as usize]),
        };
        // A revision of the deployment lasts for some generations of its pods.
        let revision = mix(0x52, (workload_number << 20) | (generation / 3));
        let cluster_number = workload_number % CLUSTERS;
        let node_number = mix(0x53, number) % (NODES / CLUSTERS) * CLUSTERS + cluster_number;
        let address = mix(0x54, number);
        Pod {
            name: format!("{workload}-{}-{}", suffix(1, revision, 10), suffix(2, number, 5)),
            node: node(node_number),
            cluster: cluster_of(cluster_number).name,
            container_id: hex(3, number, 12),
            container,
            image: format!("registry.corp.example/{namespace}/{container}"),
            tag: format!("{}.{}.{}", 1 + workload_number % 4, workload_number % 19, revision % 40),
            uid: uid(5, number),
            ip: format!("10.{}.{}.{}", 128 + cluster_number, address % 256, address / 256 % 254 + 1),
            node_number,
            workload,
            workload_number,
            team_number: space % super::TEAM_COUNT,
            namespace,
            number,
        }
    }

    /// Of a job rather than of a deployment.
    pub fn is_of_job(&self) -> bool {
        self.number % 16 < 4
    }

    /// All of a container id.
    pub fn long_container_id(&self) -> String {
        hex(3, self.number, 64)
    }

    pub fn node_ip(&self) -> String {
        node_address(self.node_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::draw;

    #[test]
    fn a_running_pod_was_created_before_the_frame_and_is_deleted_after_it() {
        let mut rng = draw(1, 1);
        for frame in [0, 1, 77, 5_000] {
            for turnover in [60, 384] {
                let population = Population::at(frame, turnover, false);
                for _ in 0..2_000 {
                    let pod = population.running(&mut rng);
                    let life = 16 * SLOTS[(pod.number % 16) as usize];
                    assert!(pod.number < population.created);
                    assert!(pod.number + life >= population.created + turnover);
                }
            }
        }
    }

    #[test]
    fn a_newcomer_is_of_the_leavers_workload_and_has_a_name_of_its_own() {
        let population = Population::at(3, 60, false);
        for nth in 0..60 {
            let (old, new) = (population.leaver(nth), population.newcomer(nth));
            assert_eq!((old.workload, old.namespace, old.cluster), (new.workload, new.namespace, new.cluster));
            assert_ne!(old.name, new.name);
        }
    }
}
