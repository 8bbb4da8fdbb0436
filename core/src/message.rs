//! The words that a person receives, made from the facts of a report.
//!
//! Read at three in the morning, on a phone. The first line stands alone; what follows is for the
//! one who is up. Text from outside is shown on one line and without control characters.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;

use crate::judge::alert::AlertState;
use crate::judge::incident::{Holder, IncidentState, Report, StateCount};
use crate::judge::rule::RuleName;
use crate::judge::rule::words::{
    clean, failure_words, refusal, refused, slots_in_use, spell, unreadable,
};
use crate::reading::FailureKind;

/// The longest summary that every receiver takes (PagerDuty: 1,024 characters).
pub const MAX_SUMMARY_CHARS: usize = 1024;

/// One line that stands alone on a phone, e.g. `payment-db-primary: 48 of 47 usable slots in use
/// (102 %) for 12 s; payment-api holds 39, 36 of them waiting for a lock`.
pub fn summary(report: &Report) -> String {
    let target = clean(&report.target);
    let line = match report.state {
        IncidentState::Resolved => format!("{target}: {}", resolved(report)),
        IncidentState::Open => {
            let holds = if report.known_at.is_some() { "held" } else { "holds" };
            let largest = report.holders.first().map(|h| format!("; {}", holder_words(h, holds)));
            let switch = report.switch.map(|switch| format!("; {}", switch.to.words()));
            let (largest, switch) = (largest.unwrap_or_default(), switch.unwrap_or_default());
            format!("{target}: {}{largest}{switch}", symptom(report))
        }
    };
    cut(&line, MAX_SUMMARY_CHARS)
}

/// A message that is older than this when it is sent must not be read as of now.
const LATE: Duration = Duration::from_mins(1);

/// What a message says at the end of its first line if it is sent late, e.g. ` (as of
/// 2026-11-20T12:53:30Z, sent 4 min later)`; nothing if it is not.
pub fn lateness(report: &Report, now: Timestamp) -> String {
    let age = Duration::try_from(now.duration_since(report.at)).unwrap_or_default();
    if age < LATE {
        return String::new();
    }
    format!(" (as of {:.0}, sent {} later)", report.at, spell(age))
}

fn resolved(report: &Report) -> String {
    // By the wall, so that it agrees with the times beside it.
    let lasted = spell(report.at.duration_since(report.opened_at).unsigned_abs());
    if report.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Broken) {
        return format!("not watched any more; it was in trouble for {lasted}");
    }
    let after = if report.alerts.is_empty() && report.peak.is_none() {
        "no trouble".to_owned()
    } else {
        format!("resolved after {lasted}")
    };
    let now = match (report.slots, report.known_at) {
        (Some(slots), None) => format!(": {}", slots_in_use(&slots)),
        _ => String::new(),
    };
    let used = report.slots.map_or(0, |slots| slots.used);
    let worst = report.peak.as_ref().filter(|peak| used < peak.slots.used).map(|peak| {
        let who = peak
            .holders
            .first()
            .map(|h| format!(", of which {} held {}", holder_name(h), h.connections));
        format!("; at worst {}{}", peak.slots.used, who.unwrap_or_default())
    });
    format!("{after}{now}{}", worst.unwrap_or_default())
}

fn symptom(report: &Report) -> String {
    if let (Some(failure), Some(known_at), Some(slots)) =
        (&report.failure, report.known_at, report.slots)
    {
        // What is known of the slots is of before, and must not be read as of now.
        let age = spell(report.at.duration_since(known_at).unsigned_abs());
        let observed = match failure.kind {
            FailureKind::Refused(reason) if reason.is_want_of_slots() => refused(reason),
            _ => unreadable("postgres", failure),
        };
        return format!("{observed}, last read {age} ago: {}", slots_in_use(&slots));
    }
    let firing = report.alerts.iter().filter(|a| a.state == AlertState::Firing);
    // The worst first; of equals the one that says most about the slots themselves.
    let lead = firing.min_by_key(|a| (std::cmp::Reverse(a.severity), rank(a.rule)));
    let Some(lead) = lead else { return "trouble".to_owned() };
    let since =
        if lead.held.is_zero() { String::new() } else { format!(" for {}", spell(lead.held)) };
    format!("{}{since}", lead.observed)
}

fn rank(rule: RuleName) -> u8 {
    match rule {
        RuleName::SlotsFull => 0,
        RuleName::Slots => 1,
        RuleName::LoginsRefused => 2,
        RuleName::RoleLimit => 3,
        RuleName::DatabaseLimit => 4,
        RuleName::PoolWaiting => 5,
        RuleName::PoolUtilization => 6,
        RuleName::SourceUnreadable => 7,
        RuleName::Overcommit => 8,
    }
}

fn holder_words(holder: &Holder, holds: &str) -> String {
    let name = holder_name(holder);
    let total = holder.connections;
    let part = |count: u32, what: &str| match total {
        1 => format!(", {what}"),
        _ if count == total => format!(", all {what}"),
        _ => format!(", {count} of them {what}"),
    };
    // What at least half of them do is what the holder does.
    let does = if total <= holder.waiting_for_lock.saturating_mul(2) && holder.waiting_for_lock > 0
    {
        part(holder.waiting_for_lock, "waiting for a lock")
    } else {
        holder.states.first().map(|s| part(s.connections, s.state.word())).unwrap_or_default()
    };
    format!("{name} {holds} {total}{does}")
}

/// The application, or who it logged in as where it gave no name.
pub fn holder_name(holder: &Holder) -> String {
    if holder.application.trim().is_empty() {
        clean(&format!("{}@{}", holder.role, holder.database))
    } else {
        clean(&holder.application)
    }
}

/// Everything else that a person wants at that hour: thresholds, holders as a table, counts by
/// state, what was refused, how many reserved slots are left and who may use them, links.
///
/// Plain text; its length is bounded by the bounds of a report.
pub fn details(report: &Report) -> String {
    let mut text = String::new();
    for section in [
        alerts(report),
        bottleneck(report),
        failure(report),
        slots(report),
        holders(&report.holders),
        peak(report),
        refused_logins(report),
        about(report),
    ] {
        if section.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&section);
    }
    text
}

/// Writing to a String cannot fail; this names the one place that relies on it.
fn line(text: &mut String, args: std::fmt::Arguments<'_>) {
    text.write_fmt(args).expect("writing to a String does not fail");
    text.push('\n');
}

fn alerts(report: &Report) -> String {
    let mut text = String::new();
    for alert in &report.alerts {
        let subject = match alert.subject.word() {
            "" => String::new(),
            subject => format!(" ({})", clean(subject)),
        };
        let (rule, state, severity) = (alert.rule, alert.state.word(), alert.severity);
        let (observed, threshold) = (&alert.observed, &alert.threshold);
        let since = format!("{:.0}", alert.since);
        line(
            &mut text,
            format_args!(
                "{severity} {rule}{subject} {state}: {observed}; since {since}, {}; threshold: {threshold}",
                spell(alert.held)
            ),
        );
    }
    text
}

fn bottleneck(report: &Report) -> String {
    let mut text = String::new();
    if let Some(found) = &report.bottleneck {
        let when = match report.state {
            IncidentState::Open => "Bottleneck",
            IncidentState::Resolved => "Bottleneck meanwhile",
        };
        line(&mut text, format_args!("{when}: {}: {}", found.at, found.figures));
    }
    text
}

fn failure(report: &Report) -> String {
    let mut text = String::new();
    if let Some(failure) = &report.failure {
        line(&mut text, format_args!("Not readable now: {}", failure_words(failure)));
    }
    if let Some(known_at) = report.known_at {
        line(&mut text, format_args!("What follows was read at {known_at:.0}."));
    }
    if let Some(switch) = report.switch {
        line(&mut text, format_args!("Since {:.0}: {}", switch.at, switch.to.words()));
    }
    text
}

fn slots(report: &Report) -> String {
    let Some(slots) = report.slots else { return String::new() };
    let mut text = String::new();
    line(
        &mut text,
        format_args!(
            "Slots: {} max, {} reserved, {} usable, {} used, {} free",
            slots.max, slots.reserved, slots.usable, slots.used, slots.free
        ),
    );
    if !report.states.is_empty() {
        line(&mut text, format_args!("States: {}", state_words(&report.states)));
    }
    let who = if report.superusers.is_empty() {
        "superusers".to_owned()
    } else {
        clean(&report.superusers.join(", "))
    };
    line(
        &mut text,
        format_args!(
            "Reserved slots left: {} of {}, for {who}",
            slots.reserved_left(),
            slots.reserved
        ),
    );
    text
}

fn state_words(states: &[StateCount]) -> String {
    let words: Vec<_> =
        states.iter().map(|s| format!("{} {}", s.connections, s.state.word())).collect();
    words.join(", ")
}

/// How it was at its worst, once that is over.
fn peak(report: &Report) -> String {
    let Some(peak) = report.peak.as_ref().filter(|_| report.state == IncidentState::Resolved)
    else {
        return String::new();
    };
    let mut text = String::new();
    line(&mut text, format_args!("At worst, at {:.0}: {}", peak.at, slots_in_use(&peak.slots)));
    text.push_str(&holders(&peak.holders));
    text
}

fn holders(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return String::new();
    }
    let mut rows =
        vec![["holder", "role", "database", "from", "slots", "wait", "states"].map(str::to_owned)];
    for holder in holders {
        rows.push([
            cut(&holder_name(holder), MAX_COLUMN_CHARS),
            cut(&clean(&holder.role), MAX_COLUMN_CHARS),
            cut(&clean(&holder.database), MAX_COLUMN_CHARS),
            cut(&clean(&holder.address), MAX_COLUMN_CHARS),
            holder.connections.to_string(),
            holder.waiting_for_lock.to_string(),
            state_words(&holder.states),
        ]);
    }
    table(&rows)
}

/// A column of the table of holders is no wider.
const MAX_COLUMN_CHARS: usize = 32;

fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(&mut text, format_args!("{}", cells.join("  ").trim_end()));
    }
    text
}

fn refused_logins(report: &Report) -> String {
    let mut text = String::new();
    for (reason, count) in &report.refused {
        line(
            &mut text,
            format_args!("Logins refused since it opened: {count} ({})", refusal(*reason)),
        );
    }
    text
}

fn about(report: &Report) -> String {
    let mut text = String::new();
    for (name, value) in &report.labels {
        line(&mut text, format_args!("{}: {}", clean(name), clean(value)));
    }
    line(&mut text, format_args!("Incident {} of {}", report.id, clean(&report.dedup_key)));
    if let Some(link) = &report.link {
        line(&mut text, format_args!("{}", clean(link)));
    }
    text
}

/// The text, or its beginning and `…` if it has more characters than that.
pub fn cut(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(max_chars.saturating_sub(1)).collect();
    kept.push('…');
    kept
}
