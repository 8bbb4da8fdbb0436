//! What rules saw and what they ask for, in words that stand alone.

use std::time::Duration;

use super::{Level, Levels, RuleName, RuleSet, Subject, SubjectRule, Threshold, WaitLevel};
use crate::judge::Severity;
use crate::judge::pool::{Keeper, PoolName, PoolState};
use crate::judge::refusal::SeenBy;
use crate::reading::postgres::Slots;
use crate::reading::{Failure, Refusal, probe};

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

/// E.g. `logins are refused (every slot is taken, those for superusers too), seen by probe/app,
/// though 16 usable slots look free: logins under way hold them`.
pub fn refused_despite(reason: Refusal, by: &SeenBy, looks_free: Option<i64>) -> String {
    let despite = looks_free
        .map(|free| format!(", though {free} usable slots look free: logins under way hold them"));
    format!("{}{}{}", refused(reason), by.words(), despite.unwrap_or_default())
}

/// E.g. `probe/app has no answer to its login (no answer within 5 s)`, or that it has one.
pub fn unanswered(probe: &str, seen: &probe::Observation) -> String {
    let probe = clean(probe);
    match &seen.newest.outcome {
        Err(failure) => format!("{probe} has no answer to its login ({})", clean(&failure.text)),
        Ok(()) => format!("{probe} has an answer to its login"),
    }
}

/// E.g. `pool payment/api of pooler/pgbouncer`.
pub fn pool_name(name: &PoolName) -> String {
    let source = clean(&name.source);
    match name.pool() {
        "" => format!("the pool of {source}"),
        pool => format!("pool {} of {source}", clean(pool)),
    }
}

/// Who waits for a pool, e.g. `12 wait for pool payment/api of pooler/pgbouncer (one of them for
/// 4.2 s, 20 of 20 connections in use)`; of client slots how many are taken.
pub fn pool(pool: &PoolState) -> String {
    if pool.keeper == Keeper::ClientSlots {
        return pool_in_use(pool);
    }
    let name = pool_name(&pool.name);
    let waits = match pool.waiting {
        Some(1) if pool.someone_waits => Some("1 waits".to_owned()),
        Some(waiting) if pool.someone_waits => Some(format!("{waiting} wait")),
        None if pool.someone_waits => Some("somebody waits".to_owned()),
        _ => None,
    };
    let mut more: Vec<String> = Vec::new();
    let lead = match (pool.timeouts, waits) {
        (0, Some(waits)) => format!("{waits} for {name}"),
        (0, None) => format!("nobody waits for {name}"),
        (gave_up, waits) => {
            more.extend(waits);
            format!("{gave_up} gave up waiting for {name}")
        }
    };
    if let Some(seconds) = pool.wait_seconds.filter(|_| pool.someone_waits) {
        let whose = if pool.keeper == Keeper::Pooler { "one of them" } else { "on average" };
        more.push(format!("{whose} for {}", spell_seconds(seconds)));
    }
    if pool.instances > 1 && pool.starved > 0 {
        more.push(format!("in {} of {} instances", pool.starved, pool.instances));
    }
    match (pool.in_use, pool.taken()) {
        (_, Some((in_use, max))) => more.push(format!("{in_use} of {max} connections in use")),
        (Some(in_use), None) => more.push(format!("{in_use} connections in use")),
        (None, None) => {}
    }
    if more.is_empty() { lead } else { format!("{lead} ({})", more.join(", ")) }
}

/// How full a pool is, e.g. `20 of 20 connections of pool payment/api of pooler/pgbouncer in use
/// (100 %)`, or `97 of 100 clients of pooler/pgbouncer (97 %)`.
pub fn pool_in_use(pool: &PoolState) -> String {
    let Some((in_use, max)) = pool.taken() else {
        return format!("{} has no bound that is known", pool_name(&pool.name));
    };
    let percent = percent(f64::from(in_use) / f64::from(max.max(1)));
    if pool.keeper == Keeper::ClientSlots {
        let (source, of) = (clean(&pool.name.source), clean(pool.name.pool()));
        return format!("{in_use} of {max} {of} of {source} ({percent} %)");
    }
    format!("{in_use} of {max} connections of {} in use ({percent} %)", pool_name(&pool.name))
}

/// A wait for people: in milliseconds below a second, to a tenth of one below ten.
fn spell_seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        return format!("{:.0} ms", (seconds.max(0.0) * 1000.0).floor());
    }
    if seconds < 10.0 {
        // Never rounds up to a line that was not reached.
        return format!("{:.1} s", (seconds * 10.0).floor() / 10.0);
    }
    spell(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
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
    let is_critical = severity == Severity::Critical;
    let level = |levels: Option<Levels>| {
        let levels = levels?;
        let level = if is_critical { levels.critical } else { levels.warning };
        level.map(|l| level_words(&l))
    };
    let of_subject = |rule: &SubjectRule| level(rule.levels_of(subject.word()));
    let words = match rule {
        RuleName::Slots => level(set.slots),
        RuleName::RoleLimit => set.role_limit.as_ref().and_then(of_subject),
        RuleName::DatabaseLimit => set.database_limit.as_ref().and_then(of_subject),
        RuleName::SlotsFull => {
            Some("none free in two readings, or a login refused for want of one".to_owned())
        }
        RuleName::LoginsRefused => match subject {
            Subject::Unanswered(_) => set.logins_refused.map(|rule| {
                format!("a login without an answer for {}", spell(rule.unanswered_for))
            }),
            _ => Some("a login is refused".to_owned()),
        },
        RuleName::PoolWaiting => set.pool_waiting.as_ref().and_then(|rule| {
            let levels = rule.levels_of(subject.word())?;
            let level = if is_critical { levels.critical } else { levels.warning };
            let gave_up = if is_critical && rule.timeouts { ", or somebody gave up" } else { "" };
            Some(format!("{}{gave_up}", wait_words(&level?)))
        }),
        RuleName::PoolUtilization => set.pool_utilization.as_ref().and_then(|rule| {
            let felt = if is_critical && !rule.alone { ", while somebody waits" } else { "" };
            Some(format!("{}{felt}", of_subject(&rule.levels)?))
        }),
        RuleName::Overcommit => Some("more may be opened than is usable".to_owned()),
        RuleName::SourceUnreadable => set.source_unreadable.as_ref().map(|rule| match subject {
            Subject::Source(name) if rule.subjects.contains_key(name) => {
                let own = rule.subjects.get(name).copied().flatten().unwrap_or_default();
                format!("unreadable for {}", spell(own))
            }
            Subject::Source(name) if name != crate::judge::source::POSTGRES => {
                format!("unreadable for {}", spell(rule.others))
            }
            _ => format!(
                "refused or stopped for {}, unreachable or slow for {}, starting for {}",
                spell(rule.refused_or_stopped),
                spell(rule.unreachable_or_slow),
                spell(rule.starting)
            ),
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

fn wait_words(level: &WaitLevel) -> String {
    let many =
        level.above_clients.map(|ratio| format!(", or {} % of clients wait", percent(ratio)));
    let line = format!("waits above {}{}", spell(level.above), many.unwrap_or_default());
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
