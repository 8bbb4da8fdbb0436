//! What the counters of applications' pools say from one observation to the next.
//!
//! Libraries without a gauge of those who wait (Go's `database/sql`, pgx) count them, and all count
//! those who gave up. A counter is raw and begins anew with its instance: one that falls is a new
//! beginning, and so is the first reading of a run. Nothing is known between a beginning and the
//! observation after it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::reading::app_pool::{Instance, Max, Pool};
use crate::reading::{FailureKind, Reading};

/// At most so many pools of instances are followed from one observation to the next, some hundred
/// bytes each; those beyond it are counted. Two applications of 1,000 instances fit, or 20 of 100.
pub const MAX_POOLS_FOLLOWED: usize = 2000;

/// The pools of applications' instances: by application, address, and name with its place among
/// those of one name; at most [`MAX_POOLS_FOLLOWED`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    applications: BTreeMap<String, BTreeMap<String, Vec<Followed>>>,
    /// Pools for which there was no room in the newest observations.
    pub left_out: u32,
}

/// One pool of one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Followed {
    name: String,
    waits: Option<u64>,
    wait_seconds: Option<f64>,
    timeouts: Option<u64>,
    moved: Moved,
}

/// What gauges and counters of a pool said of those who wait, when it was last seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// Whether somebody waited then.
    pub someone_waits: bool,
    /// How long those waited on average who got what they waited for since the observation before;
    /// `None` where that is not counted, or nobody did.
    pub wait_seconds: Option<f64>,
    /// How many gave up waiting since the observation before.
    pub timeouts: u64,
}

impl Counters {
    /// After a reading. An instance that is not listed any more, or is stopped, is forgotten; one
    /// that could not be read keeps what was last seen of it.
    pub(super) fn advanced(mut self, reading: &Reading) -> Self {
        // What was counted while nobody watched is not of now.
        let is_first = reading.elapsed.is_zero();
        let before =
            if is_first { BTreeMap::new() } else { std::mem::take(&mut self.applications) };
        let mut after = Self { applications: BTreeMap::new(), left_out: 0 };
        let mut room = MAX_POOLS_FOLLOWED;
        for application in &reading.app_pools {
            let known = before.get(&application.name);
            let instances = match &application.part.seen {
                Ok(seen) if application.part.fresh => {
                    let followed = seen.instances.iter().filter_map(|instance| {
                        let known = known.and_then(|known| known.get(&instance.address));
                        Some((instance.address.clone(), followed(instance, known)?))
                    });
                    followed.collect()
                }
                _ => known.cloned().unwrap_or_default(),
            };
            let (kept, left_out) = cut(instances, room);
            room -= kept.values().map(Vec::len).sum::<usize>();
            after.left_out = after.left_out.saturating_add(left_out);
            after.applications.insert(application.name.clone(), kept);
        }
        after
    }

    /// What was last seen of a pool: the `nth` of its name at this instance. `None` of one that was
    /// not seen yet, or for which there was no room.
    pub fn moved(&self, application: &str, address: &str, pool: &str, nth: usize) -> Option<Moved> {
        let pools = self.applications.get(application)?.get(address)?;
        pools.iter().filter(|followed| followed.name == pool).nth(nth).map(|one| one.moved)
    }

    /// Whether somebody waited in a pool of this name at this instance when it was last seen.
    pub fn last_waited(&self, application: &str, address: &str, pool: &str) -> bool {
        let of = |it: &BTreeMap<String, Vec<Followed>>| {
            let pools = it.get(address)?;
            Some(pools.iter().any(|one| one.name == pool && one.moved.someone_waits))
        };
        self.applications.get(application).and_then(of).unwrap_or(false)
    }
}

/// As many instances as there is room for with all their pools, and how many pools that leaves out.
fn cut(
    instances: BTreeMap<String, Vec<Followed>>,
    mut room: usize,
) -> (BTreeMap<String, Vec<Followed>>, u32) {
    let (mut kept, mut left_out) = (BTreeMap::new(), 0_u32);
    for (address, pools) in instances {
        if pools.len() <= room {
            room -= pools.len();
            kept.insert(address, pools);
        } else {
            left_out = left_out.saturating_add(u32::try_from(pools.len()).unwrap_or(u32::MAX));
        }
    }
    (kept, left_out)
}

/// The pools of an instance after what was just seen of it; `None` of one that is stopped, since
/// nobody waits in a program that is not there.
fn followed(instance: &Instance, known: Option<&Vec<Followed>>) -> Option<Vec<Followed>> {
    let pools = match &instance.pools {
        Ok(pools) => pools,
        Err(failure) if failure.kind == FailureKind::Stopped => return None,
        Err(_) => return known.cloned(),
    };
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let followed = pools.iter().map(|pool| {
        let nth = seen.entry(&pool.name).or_default();
        let mut same = known.into_iter().flatten().filter(|one| one.name == pool.name);
        let before = same.nth(*nth);
        *nth += 1;
        Followed::advanced(before, pool)
    });
    Some(followed.collect())
}

impl Followed {
    fn advanced(before: Option<&Self>, pool: &Pool) -> Self {
        let after = Self {
            name: pool.name.clone(),
            waits: pool.waits_total,
            wait_seconds: pool.wait_seconds_total,
            timeouts: pool.timeouts_total,
            moved: Moved::default(),
        };
        // All of an instance's counters begin anew together.
        let before = before.filter(|before| !after.began_anew(before));
        let moved = after.moved(before, pool);
        Self { moved, ..after }
    }

    fn began_anew(&self, before: &Self) -> bool {
        let falls =
            |before: Option<u64>, now: Option<u64>| before.zip(now).is_some_and(|(b, n)| n < b);
        let seconds = before.wait_seconds.zip(self.wait_seconds);
        falls(before.waits, self.waits)
            || falls(before.timeouts, self.timeouts)
            || seconds.is_some_and(|(before, now)| now < before)
    }

    fn moved(&self, before: Option<&Self>, pool: &Pool) -> Moved {
        let grown =
            |was: Option<u64>, now: Option<u64>| now.zip(was).map(|(n, w)| n.saturating_sub(w));
        let waits = grown(before.and_then(|b| b.waits), self.waits);
        let timeouts = grown(before.and_then(|b| b.timeouts), self.timeouts).unwrap_or(0);
        let was = before.and_then(|b| b.wait_seconds);
        let seconds = self.wait_seconds.zip(was).map(|(now, was)| now - was);
        let mean = match (waits, seconds) {
            (Some(waits), Some(seconds)) if waits > 0 && seconds > 0.0 => {
                Some(seconds / waits as f64)
            }
            _ => None,
        };
        let someone_waits = match pool.waiting {
            Some(waiting) => waiting > 0,
            None => {
                is_full(pool) && (waits.is_some_and(|n| n > 0) || before.is_some_and(is_stalled))
            }
        };
        Moved { someone_waits, wait_seconds: mean, timeouts }
    }
}

/// Whether everything that a pool may open is lent out: who then asks has to wait.
fn is_full(pool: &Pool) -> bool {
    matches!((pool.in_use, pool.max), (Some(in_use), Max::Of(max)) if max <= in_use)
}

/// Somebody began to wait, and nobody was given anything since: those who wait are not counted
/// again, but a pool that stays full has not served them.
fn is_stalled(before: &Followed) -> bool {
    before.moved.someone_waits && before.moved.wait_seconds.is_none()
}
