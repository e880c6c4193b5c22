//! The one integration binary: the real `stakeout` against real events, a real broker and a pager on loopback.

mod anger;
mod bench;
mod crash;
mod demo;
mod deploy;
mod import;
#[path = "../kafka/mod.rs"]
mod kafka;
mod kills;
mod lease;
mod line;
mod pager;
mod play;
mod process;
mod readme;
mod receivers;
mod retention;
mod scenarios;
mod stored;
mod stories;
mod tools;

use std::path::PathBuf;

/// The folder of real events beside the repository, or `None` with a word about it.
fn real_events() -> Option<PathBuf> {
    let data = process::root().join("../shared/data");
    if data.is_dir() {
        return Some(data);
    }
    assert!(std::env::var_os("STAKEOUT_TESTS_REQUIRE_ALL").is_none(), "{} is absent", data.display());
    println!("skipped: no real events in {}", data.display());
    None
}
