//! How long ago each source was heard, in time served.
//!
//! What a slow source says is carried by every reading until it says something else. Patience with
//! it is served from one of its own observations to the next, or a single one would serve it alone.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::judge::MAX_SERVED_BY_ONE_READING;
use crate::judge::source::Standing;

/// At most so many sources are remembered: a target has a log and some probes, poolers and
/// applications, and settings bound each of them lower.
pub const MAX_SOURCES: usize = 1024;

/// When each source of a target was heard, by its name; at most [`MAX_SOURCES`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heard(BTreeMap<String, Time>);

/// Of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Time {
    /// Served since it was heard last.
    since: Duration,
    /// Served between that and the time before, at most [`MAX_SERVED_BY_ONE_READING`].
    gap: Duration,
}

impl Heard {
    /// After a reading that came `served` after the one before. Sources that it says nothing of
    /// are forgotten.
    pub(super) fn advanced(mut self, standings: &[Standing], served: Duration) -> Self {
        let mut heard = BTreeMap::new();
        for standing in standings.iter().take(MAX_SOURCES) {
            let time = match self.0.remove(&standing.name) {
                None => Time::default(),
                Some(before) => {
                    let since = before.since.saturating_add(served);
                    if standing.fresh {
                        Time { since: Duration::ZERO, gap: since.min(MAX_SERVED_BY_ONE_READING) }
                    } else {
                        Time { since, ..before }
                    }
                }
            };
            heard.insert(standing.name.clone(), time);
        }
        Self(heard)
    }

    /// Patience that the newest observation of a source served: the time since the one before it,
    /// good or failed.
    pub fn gap(&self, source: &str) -> Duration {
        self.0.get(source).map(|time| time.gap).unwrap_or_default()
    }
}
