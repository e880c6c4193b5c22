//! The twelve stories that go through more than one plane, each with its benign twin.

mod s01_web_shell;
mod s02_access_entry;
mod s03_web_identity;
mod s04_pipeline;
mod s05_privileged_daemonset;
mod s06_blindfold;
mod s07_lateral;
mod s08_node_access;
mod s09_kubelet;
mod s10_ransom;
mod s11_miner;
mod s12_state_file;

pub(super) use s04_pipeline::push;

use super::story::Story;

pub(super) const SCENARIOS: [Story; 12] = [
    s01_web_shell::STORY,
    s02_access_entry::STORY,
    s03_web_identity::STORY,
    s04_pipeline::STORY,
    s05_privileged_daemonset::STORY,
    s06_blindfold::STORY,
    s07_lateral::STORY,
    s08_node_access::STORY,
    s09_kubelet::STORY,
    s10_ransom::STORY,
    s11_miner::STORY,
    s12_state_file::STORY,
];
