//! Reads what is watched: each source has a task of its own and leaves what it saw in a mailbox.
//!
//! `run` starts the sources, takes from their mailboxes and composes readings. Nothing is judged
//! here, and nothing is written anywhere.

pub mod conninfo;
pub mod mailbox;
pub mod postgres;
mod tls;
