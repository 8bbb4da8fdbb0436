//! What `check` says of a target's slots: whether any are free now, and whether the pools hold so
//! many at rest that a warning would never clear. Pools that only hold their floor page nobody, so
//! this is where an operator learns of it.

use plimsoll_core::judge::rule::{Level, Threshold};
use plimsoll_core::reading::FailureKind;
use plimsoll_core::reading::postgres::Slots;

use super::finding::Finding;
use super::target::{Wanted, lines};
use crate::collect::postgres::inspect::Inspection;

/// So many applications are named; the rest are one number.
const MAX_NAMED: usize = 5;

/// Above what rests there should be so much room for work, as a part of what is usable.
const ROOM: f64 = 0.05;

/// A warning above this comes no earlier than the critical level of the shipped rules.
const HIGHEST_LINE: f64 = 0.9;

/// Free slots right now.
pub(super) fn free(seen: &Inspection) -> Finding {
    const CHECK: &str = "slots";
    let slots = match &seen.slots {
        Ok(slots) => slots,
        // What is missing is said where it belongs.
        Err(failure) if failure.kind == FailureKind::NotAllowed => {
            return Finding::warning(CHECK, format!("not known: {}", failure.text));
        }
        Err(failure) => {
            return Finding::wrong(CHECK, format!("cannot be read: {}", failure.text));
        }
    };
    let Slots { free, usable, used, .. } = *slots;
    let counts =
        format!("{free} of {usable} usable slots are free ({used} used, one by this check)");
    if free > 0 {
        return Finding::ok(CHECK, counts);
    }
    Finding::wrong(CHECK, format!("the server is full: {counts}"))
        .hint("ordinary logins are refused now; pg_stat_activity says who holds the slots")
}

/// What the pools hold at rest against the lines of the rule `slots`.
pub(super) fn resting(wanted: &Wanted, seen: &Inspection) -> Finding {
    const CHECK: &str = "resting_level";
    let Ok(slots) = &seen.slots else {
        return Finding::warning(CHECK, "not known: slots cannot be read");
    };
    let resting: u32 = seen.resting.iter().map(|one| one.connections).sum();
    let usable = slots.usable;
    let per_cent = |slots: f64| 100.0 * slots / f64::from(usable.max(1));
    let held = format!(
        "at rest the pools hold {resting} of {usable} usable slots ({:.0} %{})",
        per_cent(f64::from(resting)),
        named(seen)
    );
    let levels = wanted.levels.iter();
    let levels = levels.flat_map(|l| [("warning", l.warning), ("critical", l.critical)]);
    let mut levels = levels.filter_map(|(word, level)| Some((word, level?)));
    let crossed = levels.find(|(_, level)| lines(level.threshold, usable).1 <= f64::from(resting));
    let Some((word, level)) = crossed else {
        return Finding::ok(CHECK, held);
    };
    let (above, clear_below) = lines(level.threshold, usable);
    let becomes =
        if above < f64::from(resting) { "fires all the time" } else { "would never clear" };
    let text = format!(
        "{held}: the {word} line is {}, clear_below {}: a {word} {becomes}",
        line(level, above, usable),
        line(level, clear_below, usable)
    );
    let rest = format!(
        "sessions idle for {} or longer count as resting",
        humantime::format_duration(wanted.rest)
    );
    let clear = f64::from(resting) / f64::from(usable.max(1)) + ROOM;
    // A line so high would say nothing in time.
    let hint = if clear + ROOM < HIGHEST_LINE {
        format!(
            "make the pools smaller; or lay the line of this target above what rests: \
             [targets.rules.slots] {word} = {{ above = {:.2}, clear_below = {clear:.2} }}; {rest}",
            clear + ROOM
        )
    } else {
        format!("make the pools smaller: what they hold leaves no room to see trouble in; {rest}")
    };
    Finding::warning(CHECK, text).hint(hint)
}

fn line(level: Level, at: f64, usable: u32) -> String {
    match level.threshold {
        Threshold::Ratio { .. } => format!("{:.0} %", 100.0 * at / f64::from(usable.max(1))),
        Threshold::Used { .. } => format!("{at:.0}"),
    }
}

/// `; payment-api 40, report 10, others 4`
fn named(seen: &Inspection) -> String {
    let mut parts: Vec<String> = seen
        .resting
        .iter()
        .take(MAX_NAMED)
        .map(|one| match one.application.as_str() {
            "" => format!("without a name {}", one.connections),
            name => format!("{name} {}", one.connections),
        })
        .collect();
    let others: u32 = seen.resting.iter().skip(MAX_NAMED).map(|one| one.connections).sum();
    if others > 0 {
        parts.push(format!("others {others}"));
    }
    if parts.is_empty() { String::new() } else { format!("; {}", parts.join(", ")) }
}
