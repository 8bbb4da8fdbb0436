//! `/metrics`: one text, made at each scrape from what was published last. It touches no database,
//! keeps no value between scrapes, and so whatever vanished is gone from the next.
//!
//! Missing beats wrong: what is not known now is absent, not repeated. `docs/metrics.md` lists
//! every family; a test compares it with what is exported.

mod beside;
mod encoded;
mod family;
mod holders;
mod own;
pub(super) mod process;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use plimsoll_core::status::Published;

use super::server::Numbers;
use crate::health::Values;
pub(super) use encoded::Encoded;
use family::Sheet;
pub(super) use family::printable;

/// All that one answer is made of.
pub(super) struct Scrape {
    /// Plimsoll's version.
    pub(super) version: &'static str,
    /// The wall clock.
    pub(super) now: Timestamp,
    /// The monotonic clock at the same instant.
    pub(super) monotonic: Instant,
    /// What was published last of every target.
    pub(super) targets: Vec<Arc<Published>>,
    /// What Plimsoll knows of itself.
    pub(super) health: Values,
    /// The HTTP server's own numbers.
    pub(super) http: Numbers,
    /// What the system says of us; `None` where it cannot be read.
    pub(super) process: Option<process::Numbers>,
}

/// The text of `/metrics`, in Prometheus' text format 0.0.4, sorted by name and labels.
/// What is kept of the answer before costs time only when it is lost.
pub(super) fn text(scrape: &Scrape, before: &mut Encoded) -> String {
    let mut sheet = Sheet::default();
    // In the order of importance: should the series be too many, the last ones are left out.
    own::write(&mut sheet, scrape);
    for published in &scrape.targets {
        target::write_small(&mut sheet, scrape, published);
        beside::write_small(&mut sheet, scrape, published);
    }
    for published in &scrape.targets {
        target::write_large(&mut sheet, scrape, published);
        beside::write_large(&mut sheet, scrape, published);
    }
    before.text(sheet)
}
