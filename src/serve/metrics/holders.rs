//! Who holds slots, cut to what a time series database bears: the largest by name, the rest in
//! sums that stay exact.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use plimsoll_core::reading::postgres::{Group, SessionState};

use super::family::printable;
use crate::serve::limits::{MAX_ADDRESS_SERIES, MAX_HOLDER_SERIES, MAX_LABEL_CHARS};

/// The name under which the rest are summed.
pub(super) const OTHER: &str = "other";

/// Connections that are alike but for their address, as they are shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holder {
    pub(super) application: String,
    pub(super) role: String,
    pub(super) database: String,
    pub(super) state: SessionState,
}

/// What is counted of a [`Holder`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) connections: u64,
    pub(super) waiting_for_lock: u64,
}

/// The largest holders, the rest as one `other` a state, and how many those rest were. Sums over
/// everything, and over each state, are those of all groups.
pub(super) fn holders(groups: &[Group]) -> (BTreeMap<Holder, Held>, usize) {
    let mut all: BTreeMap<Holder, Held> = BTreeMap::new();
    for group in groups {
        let shown = |name: &str| printable(name, MAX_LABEL_CHARS).into_owned();
        let holder = Holder {
            application: shown(&group.application),
            role: shown(&group.role),
            database: shown(&group.database),
            state: group.state,
        };
        let held = all.entry(holder).or_default();
        held.connections += u64::from(group.connections);
        held.waiting_for_lock += u64::from(group.waiting_for_lock);
    }
    let mut ranked: Vec<(Holder, Held)> = all.into_iter().collect();
    // Stable: holders of the same size are cut in the order of their names, at every scrape alike.
    ranked.sort_by_key(|(_, held)| Reverse((held.connections, held.waiting_for_lock)));
    let rest = ranked.split_off(ranked.len().min(MAX_HOLDER_SERIES));
    let mut shown: BTreeMap<Holder, Held> = ranked.into_iter().collect();
    for (holder, held) in &rest {
        let (role, database) = (String::new(), String::new());
        let application = OTHER.to_owned();
        let other = Holder { application, role, database, state: holder.state };
        let sum = shown.entry(other).or_default();
        sum.connections += held.connections;
        sum.waiting_for_lock += held.waiting_for_lock;
    }
    (shown, rest.len())
}

/// Connections by address: the most, the rest as `other`, and how many addresses those were.
pub(super) fn addresses(groups: &[Group]) -> (BTreeMap<String, u64>, usize) {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for group in groups {
        *all.entry(group.address.to_string()).or_default() += u64::from(group.connections);
    }
    cut(all, MAX_ADDRESS_SERIES)
}

/// The largest of what is counted, the rest as `other`, and how many those were.
pub(super) fn cut(all: BTreeMap<String, u64>, most: usize) -> (BTreeMap<String, u64>, usize) {
    let mut ranked: Vec<(String, u64)> = all.into_iter().collect();
    ranked.sort_by_key(|(_, count)| Reverse(*count));
    let rest = ranked.split_off(ranked.len().min(most));
    let mut shown: BTreeMap<String, u64> = ranked.into_iter().collect();
    for (_, count) in &rest {
        *shown.entry(OTHER.to_owned()).or_default() += count;
    }
    (shown, rest.len())
}
