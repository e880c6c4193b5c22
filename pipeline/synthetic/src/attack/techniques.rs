//! Single techniques, each with a benign twin: in the cluster, in the cloud, with identities.

mod cloud;
mod cluster;
mod identity;

use super::story::Story;

pub(super) const TECHNIQUES: [Story; 19] = [
    cluster::EXEC,
    cluster::SECRETS,
    identity::TRAIL,
    identity::DENIED,
    cluster::RELEASE_AGENT,
    cloud::LOOT,
    identity::ADMIN_POLICY,
    cloud::SECURITY_GROUP,
    cloud::SNAPSHOT,
    cluster::ANONYMOUS_ADMIN,
    cluster::CERTIFICATE,
    cloud::TAG_MOVED,
    identity::BRUTE_FORCE,
    identity::NEW_NETWORK,
    cluster::MINER,
    cluster::ANONYMOUS_READ,
    cluster::TOKEN,
    cloud::PUBLIC_BUCKET,
    identity::KEY_FOR_ANOTHER,
];
