//! `slots`: how many of the usable slots are in use.
//!
//! From the post-mortem of 2024-03-15 (80 % and 90 %), incident 042 (80 % for 60 s) and 2020-12-11
//! (more than 90 connections: `above_used`).

use super::{Finding, Findings, RuleSet, Subject, words};
use crate::reading::Reading;

pub(super) fn find(set: &RuleSet, reading: &Reading) -> Findings {
    let Some(levels) = set.slots else { return Findings::Off };
    let Some(seen) = reading.postgres.known() else { return Findings::Unknown };
    let slots = seen.slots();
    Findings::Known(vec![Finding {
        subject: Subject::Target,
        warning: levels.warning.map(|l| l.finding(slots.used, slots.usable)),
        critical: levels.critical.map(|l| l.finding(slots.used, slots.usable)),
        observed: words::slots_in_use(&slots),
        weight: slots.utilization,
        served: None,
    }])
}
