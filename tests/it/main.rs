//! Everything that is tested from outside, in one binary: linking is the slow part of a suite.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]
#![expect(clippy::print_stderr, reason = "tests print the figures that they measure")]

mod app_pool;
mod check;
mod daemon;
mod drill;
mod failover;
mod log;
mod major;
mod namespace;
mod notify;
mod pooler;
mod postgres;
mod probe;
mod serve;
mod server;
mod settings;
mod store;
mod tidy;
