//! Stakeout: an audit-log stream processor and SIEM in one binary. This package wires the rooms of `pipeline/`
//! together and holds the commands; see `pipeline/ARCHITECTURE.md` for the picture.

pub mod alerts;
pub mod api;
pub mod backtest;
pub mod bench;
pub mod cli;
pub mod config;
pub mod demo;
pub mod explain;
pub mod generate;
pub mod health;
pub mod hunt;
pub mod import;
pub mod keep;
pub mod keeper;
pub mod output;
pub mod pack;
pub mod reload;
pub mod rooms;
pub mod rules;
pub mod run;
pub mod shutdown;
pub mod telemetry;
pub mod why;

/// A tenth less resident under load than with the system's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
