//! Refused logins, as far as they must be remembered from one reading to the next.
//!
//! A refusal is a thing that happened, in one reading; what it says of the server lasts a little
//! longer. And the server's own view can be compared with it only when it happens: a view that
//! showed free slots then is not to be believed until somebody gets in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::judge::refusal::{self, SeenBy};
use crate::reading::postgres::Slots;
use crate::reading::{Reading, Refusal, Sourced, probe};

/// A refusal says for so long how the server stands. Logins that are refused come again within
/// seconds, so this bridges the time between them and no more.
pub const REFUSAL_SPEAKS_FOR: Duration = Duration::from_secs(10);

/// A view of before this long says nothing of the moment of a refusal.
const VIEW_SPEAKS_FOR: Duration = Duration::from_secs(5);

/// Fewer free slots than this part of the usable ones are no proof that a view is blind: logins
/// come and go between two polls.
const BLIND_FROM_FREE_RATIO: f64 = 0.05;

/// What is remembered: at most one entry a reason, and one a probe of the reading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refusals {
    /// The newest of each reason, for [`REFUSAL_SPEAKS_FOR`].
    pub recent: BTreeMap<Refusal, Recent>,
    /// What probes were refused for and, as far as their later logins show, still are.
    #[serde(default)]
    pub standing: BTreeMap<String, Standing>,
    /// What the server's view showed last.
    view: Option<View>,
}

/// A probe's refusal that lasts: its later logins, if there were any, showed nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Why.
    pub reason: Refusal,
    /// How many slots the server's view showed free then, if it was refused for want of one and
    /// the view showed enough of them to be blind.
    pub despite_free: Option<i64>,
}

/// What the server's view of its slots showed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct View {
    free: i64,
    usable: u32,
    /// Time served since then.
    ago: Duration,
}

/// The newest refusal of a reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// Time served since then.
    pub ago: Duration,
    /// How many slots the server's view showed free then, if it showed enough of them to be blind.
    pub despite_free: Option<i64>,
    /// Who saw it.
    pub seen_by: SeenBy,
}

impl Refusals {
    /// After a reading that came `served` after the one before.
    pub(super) fn advanced(self, reading: &Reading, served: Duration) -> Self {
        let later = |recent: Recent| Recent { ago: recent.ago.saturating_add(served), ..recent };
        let mut recent: BTreeMap<_, _> =
            self.recent.into_iter().map(|(reason, one)| (reason, later(one))).collect();
        recent.retain(|_, one| one.ago < REFUSAL_SPEAKS_FOR);
        let before = self.view.map(|view| View { ago: view.ago.saturating_add(served), ..view });
        let now = reading.postgres.known().map(|seen| View::of(seen.slots()));
        let looks_free = looks_free(before, now);
        for (reason, seen_by) in refusal::seen(reading) {
            let despite_free = looks_free.filter(|_| reason.is_want_of_slots());
            recent.insert(reason, Recent { ago: Duration::ZERO, despite_free, seen_by });
        }
        let standing = reading.probes.iter().filter_map(|probe| {
            let was = self.standing.get(&probe.name).copied();
            Some((probe.name.clone(), standing(probe, was, looks_free)?))
        });
        let standing = standing.collect();
        let view = now.filter(|_| reading.postgres.fresh).or(before);
        Self { recent, standing, view }
    }
}

/// The refusal of a probe that stands after a reading, if one does. What was refused in that very
/// reading is compared with the free slots that its view shows.
fn standing(
    probe: &Sourced<probe::Observation, probe::Attempts>,
    was: Option<Standing>,
    looks_free: Option<i64>,
) -> Option<Standing> {
    let Some(seen) = probe.part.known() else { return was };
    if !refusal::is_decided(&seen.newest) {
        return was;
    }
    let reason = refusal::of_attempt(&seen.newest)?;
    let despite_free =
        if probe.happened.0.is_empty() { was.and_then(|was| was.despite_free) } else { looks_free };
    Some(Standing { reason, despite_free: despite_free.filter(|_| reason.is_want_of_slots()) })
}

impl View {
    fn of(slots: Slots) -> Self {
        Self { free: slots.free, usable: slots.usable, ago: Duration::ZERO }
    }

    /// How many slots it showed free, if those are too many to be a matter of the moment.
    fn looks_free(self) -> Option<i64> {
        let enough = f64::from(self.usable) * BLIND_FROM_FREE_RATIO + 1.0;
        (enough < self.free as f64).then_some(self.free)
    }
}

/// The free slots that the server's view shows now, and showed just before if it was read then:
/// the fewer. `None` where one of them shows too few to contradict a refusal.
fn looks_free(before: Option<View>, now: Option<View>) -> Option<i64> {
    let free = now?.looks_free()?;
    match before.filter(|before| before.ago <= VIEW_SPEAKS_FOR) {
        Some(before) => before.looks_free().map(|was| was.min(free)),
        None => Some(free),
    }
}
