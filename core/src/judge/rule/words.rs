//! What rules saw and what they ask for, in words that stand alone.

use std::time::Duration;

use super::{Level, Levels, RuleName, RuleSet, Subject, Threshold};
use crate::judge::Severity;
use crate::reading::postgres::Slots;
use crate::reading::{Failure, Refusal};

/// E.g. `48 of 47 usable slots in use (102 %)`.
pub fn slots_in_use(slots: &Slots) -> String {
    let Slots { used, usable, utilization, .. } = slots;
    format!("{used} of {usable} usable slots in use ({} %)", percent(*utilization))
}

/// E.g. `role payment uses 45 of its 50 connections (90 %)`.
pub fn limit_in_use(kind: &str, name: &str, used: u32, limit: u32) -> String {
    let name = clean(name);
    if limit == u32::MAX {
        return format!("{kind} {name} has no connection limit any more");
    }
    let ratio = percent(f64::from(used) / f64::from(limit.max(1)));
    format!("{kind} {name} uses {used} of its {limit} connections ({ratio} %)")
}

/// E.g. `logins are refused (every slot is taken, those for superusers too)`.
pub fn refused(reason: Refusal) -> String {
    format!("logins are refused ({})", refusal(reason))
}

/// E.g. `every slot is taken, those for superusers too`.
pub fn refusal(reason: Refusal) -> &'static str {
    match reason {
        Refusal::AllSlotsTaken => "every slot is taken, those for superusers too",
        Refusal::ReservedForSuperusers => "the slots that are left are reserved for superusers",
        Refusal::ReservedForRole => {
            "the slots that are left are reserved for pg_use_reserved_connections"
        }
        Refusal::RoleLimit => "the role is at its CONNECTION LIMIT",
        Refusal::DatabaseLimit => "the database is at its CONNECTION LIMIT",
        Refusal::LoginsUnderWay => "too many logins are under way",
        Refusal::WalSenders => "max_wal_senders is reached",
        Refusal::PoolerClients => "the pooler takes no more clients",
        Refusal::PoolerWait => "the pooler had no connection to the server to give",
    }
}

/// E.g. `postgres cannot be read (stopped: connection refused at 127.0.0.1:5432)`.
pub fn unreadable(source: &str, failure: &Failure) -> String {
    format!("{source} cannot be read ({})", failure_words(failure))
}

/// E.g. `too slow: no answer within 2 s`.
pub fn failure_words(failure: &Failure) -> String {
    format!("{}: {}", failure.kind.word().replace('_', " "), clean(&failure.text))
}

/// E.g. `postgres gave nothing for 12 s`.
pub fn stale(source: &str, age: Duration) -> String {
    format!("{source} gave nothing for {}", spell(age))
}

/// What an alert asks for, e.g. `above 90 % for 10 s`.
pub fn threshold(set: &RuleSet, rule: RuleName, subject: &Subject, severity: Severity) -> String {
    let level = |levels: Option<Levels>| {
        let levels = levels?;
        let level = if severity == Severity::Critical { levels.critical } else { levels.warning };
        level.map(|l| level_words(&l))
    };
    let of_subject = |rule: &Option<super::SubjectRule>| {
        let rule = rule.as_ref()?;
        match rule.subjects.get(subject.word()) {
            Some(own) => level(*own),
            None => level(Some(rule.levels)),
        }
    };
    let words = match rule {
        RuleName::Slots => level(set.slots),
        RuleName::RoleLimit => of_subject(&set.role_limit),
        RuleName::DatabaseLimit => of_subject(&set.database_limit),
        RuleName::SlotsFull => Some("none free in two readings, or our login refused".to_owned()),
        RuleName::LoginsRefused => Some("a login is refused".to_owned()),
        RuleName::SourceUnreadable => set.source_unreadable.map(|r| {
            format!(
                "refused or stopped for {}, unreachable or slow for {}, starting for {}",
                spell(r.refused_or_stopped),
                spell(r.unreachable_or_slow),
                spell(r.starting)
            )
        }),
    };
    words.unwrap_or_else(|| "turned off".to_owned())
}

fn level_words(level: &Level) -> String {
    let line = match level.threshold {
        Threshold::Ratio { above, .. } => format!("above {} %", percent(above)),
        Threshold::Used { above, .. } => format!("above {above} connections"),
    };
    if level.hold.is_zero() { line } else { format!("{line} for {}", spell(level.hold)) }
}

/// A ratio as a whole per cent, without a tenth that nobody reads at night. Never rounds up to a
/// line that was not reached: 0.999 is 99.
pub fn percent(ratio: f64) -> u64 {
    // Ratios are quotients of small whole numbers: the epsilon undoes 0.29 × 100 = 28.999….
    (ratio * 100.0 + 1e-9).floor().max(0.0) as u64
}

/// A duration for people: `12 s`, `4 min 10 s`, `2 h 5 min`, `3 d 2 h`.
pub fn spell(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    let two = |a: u64, unit_a: &str, b: u64, unit_b: &str| {
        if b == 0 { format!("{a} {unit_a}") } else { format!("{a} {unit_a} {b} {unit_b}") }
    };
    if 0 < days {
        two(days, "d", hours, "h")
    } else if 0 < hours {
        two(hours, "h", minutes, "min")
    } else if 0 < minutes {
        two(minutes, "min", seconds, "s")
    } else if seconds == 0 && !duration.is_zero() {
        format!("{} ms", duration.as_millis().max(1))
    } else {
        format!("{seconds} s")
    }
}

/// At most so many characters of a name or text from outside are shown in a sentence.
pub const MAX_NAME_CHARS: usize = 64;

/// Text from outside as it can stand in a sentence: one line, no control characters, not long.
pub fn clean(text: &str) -> String {
    let long = text.chars().count() > 4 * MAX_NAME_CHARS;
    let kept = text.chars().take(4 * MAX_NAME_CHARS);
    let mut shown: String = kept.map(|c| if is_unprintable(c) { '\u{fffd}' } else { c }).collect();
    if long {
        shown.push('…');
    }
    shown
}

/// Control characters, and those that turn the direction of the text around them.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2028}'..='\u{2029}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
