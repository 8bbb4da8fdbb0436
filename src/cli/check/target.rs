//! What is good and bad about a target: findings from what was seen there. Pure; what is read of a
//! server is `collect::postgres::inspect`'s.

use std::time::Duration;

use plimsoll_core::judge::rule::{Levels, Threshold};
use plimsoll_core::reading::{Failure, FailureKind, Refusal};

use super::finding::Finding;
use super::{fallback, slots, statement_log};
use crate::cli::sql;
use crate::collect::postgres::inspect::{Checked, Inspection, KEEPALIVE, Link, Membership};

/// Majors that are tested, the oldest and the newest. Older ones are not read at all.
const TESTED: std::ops::RangeInclusive<u32> = 13..=18;

/// The daemon has two sessions at most; this leaves room for its successor, a `check` beside it,
/// and a backend that the server has not ended yet.
pub(in crate::cli) const ENOUGH_CONNECTIONS: i32 = 5;

/// Nothing is decided by the server's clock; but people read times of both in one message.
const CLOCKS_AGREE: Duration = Duration::from_secs(2);

/// Where a role without superuser rights may log in when ordinary slots are gone (16 and later).
const RESERVED_ROLE: &str = "pg_use_reserved_connections";

/// What settings say of a target, as far as it matters here.
pub(super) struct Wanted {
    /// Its lines for slots, if that rule is on.
    pub(super) levels: Option<Levels>,
    /// How long a session is idle until it counts as resting.
    pub(super) rest: Duration,
}

/// What there is to say of a target that was seen.
pub(super) fn find(wanted: &Wanted, seen: &Inspection) -> Vec<Finding> {
    let mut findings = vec![
        reach(seen),
        version(seen),
        privileges(seen),
        track_activities(seen),
        reserved_slots(seen),
        tls(seen),
        clock(seen),
        keepalive(seen),
        connection_limit(seen),
        slots::free(seen),
        slots::resting(wanted, seen),
        statement_log::find(seen),
    ];
    findings.extend(fallback::find(seen));
    findings
}

/// What there is to say of one that could not be seen. `role` is who the address names.
pub(super) fn unseen(role: Option<&str>, database: &str, failure: &Failure) -> Finding {
    const CHECK: &str = "reach";
    let role = role.map(sql::name);
    let wrong = |text: &str| Finding::wrong(CHECK, format!("{text}{}", failure.text));
    let mend = |finding: Finding, statement: &dyn Fn(&str) -> String| match &role {
        Some(role) => finding.run(statement(role)),
        None => finding,
    };
    let no_slot = || wrong("no slot was left for this check: ");
    match failure.kind {
        FailureKind::Refused(Refusal::RoleLimit) => {
            let finding = wrong("the role's CONNECTION LIMIT is used up: ");
            mend(finding, &|role| {
                format!("ALTER ROLE {role} CONNECTION LIMIT {ENOUGH_CONNECTIONS};")
            })
        }
        FailureKind::Refused(Refusal::DatabaseLimit) => {
            wrong("the database's CONNECTION LIMIT is used up: ").hint(format!(
                "raise it (ALTER DATABASE {} CONNECTION LIMIT …), or name another database in the \
                 address: any will do",
                sql::name(database)
            ))
        }
        // It is said only where there are such slots, and some are free.
        FailureKind::Refused(Refusal::ReservedForRole) => {
            mend(no_slot(), &|role| format!("GRANT {RESERVED_ROLE} TO {role};"))
                .hint("then a reserved slot will do; pg_stat_activity says who holds the others")
        }
        FailureKind::Refused(reason) if reason.is_want_of_slots() => no_slot().hint(
            "end sessions that are not needed, as a superuser. For the next time: \
             reserved_connections and pg_use_reserved_connections on 16 and later, `fallback = \
             \"replication\"` on any version",
        ),
        FailureKind::Unsupported => wrong("").hint(
            "a target is PostgreSQL itself, 13 or later: not PgBouncer, RDS Proxy, Supavisor or a \
             host with -pooler in its name",
        ),
        FailureKind::NotAllowed => wrong("").hint(
            "password, certificate, pg_hba.conf and the role decide this; `plimsoll setup-sql` \
             prints the role",
        ),
        FailureKind::Stopped => wrong("").hint("is the server up, and is this its host and port?"),
        FailureKind::Unreachable => {
            wrong("").hint("is the host's name right, and does every firewall let us through?")
        }
        FailureKind::TooSlow => {
            wrong("").hint("no second login was tried; `poll.timeout` says how long one may take")
        }
        _ => wrong(""),
    }
}

fn reach(seen: &Inspection) -> Finding {
    let role = &seen.role.name;
    Finding::ok("reach", format!("PostgreSQL itself answers, and no pooler; we are {role}"))
}

fn version(seen: &Inspection) -> Finding {
    let (major, version) = (seen.major(), &seen.version);
    let newest = TESTED.end();
    if TESTED.contains(&major) {
        return Finding::ok("version", format!("PostgreSQL {version}"));
    }
    let text = format!("PostgreSQL {version} is newer than any that was tested (up to {newest})");
    Finding::warning("version", text).hint("see whether there is a newer Plimsoll")
}

fn privileges(seen: &Inspection) -> Finding {
    const CHECK: &str = "privileges";
    let name = &seen.role.name;
    if seen.role.is_superuser {
        let text = format!("{name} is a superuser: far more than reading needs");
        return Finding::warning(CHECK, text)
            .hint("`plimsoll setup-sql` prints a role that may read and nothing else");
    }
    // Up to 14 being a member is enough to see sessions, inherited or not (pgstatfuncs.c asks
    // is_member_of_role there, and has_privs_of_role from 15 on).
    let place = |role: &str| match seen.membership(role) {
        Some(Membership::WithoutRights) if seen.major() < 15 => Membership::Full,
        place => place.unwrap_or(Membership::None),
    };
    match (place("pg_monitor"), place("pg_read_all_stats")) {
        (Membership::Full, _) => {
            Finding::ok(CHECK, format!("{name} sees all sessions (pg_monitor)"))
        }
        (_, Membership::Full) => {
            Finding::ok(CHECK, format!("{name} sees all sessions (pg_read_all_stats)"))
        }
        (Membership::None, Membership::None) => {
            let text = format!("{name} is no member of pg_monitor: others' sessions are hidden");
            Finding::wrong(CHECK, text).run(grant("pg_monitor", seen))
        }
        _ => {
            let text = format!("{name} is a member of pg_monitor and does not have its rights");
            let finding = Finding::wrong(CHECK, text);
            // From 16 on each grant says by itself whether it is inherited.
            if seen.major() < 16 {
                finding.run(format!("ALTER ROLE {} INHERIT;", sql::name(name)))
            } else {
                finding.run(format!("GRANT pg_monitor TO {} WITH INHERIT TRUE;", sql::name(name)))
            }
        }
    }
}

/// The statement that gives us the rights of another role. A role that does not inherit has to be
/// told so with each grant from 16 on.
fn grant(of: &str, seen: &Inspection) -> String {
    let role = sql::name(&seen.role.name);
    let is_told = 16 <= seen.major() && !seen.role.inherits;
    format!("GRANT {of} TO {role}{};", if is_told { " WITH INHERIT TRUE" } else { "" })
}

fn track_activities(seen: &Inspection) -> Finding {
    const CHECK: &str = "track_activities";
    let off: Vec<_> = seen.track_activities.iter().filter(|own| is_off(&own.value)).collect();
    let resets = off.iter().map(|own| match (&own.role, &own.database) {
        (Some(role), Some(database)) => {
            let (role, database) = (sql::name(role), sql::name(database));
            format!("ALTER ROLE {role} IN DATABASE {database} RESET track_activities;")
        }
        (Some(role), None) => format!("ALTER ROLE {} RESET track_activities;", sql::name(role)),
        (None, Some(database)) => {
            format!("ALTER DATABASE {} RESET track_activities;", sql::name(database))
        }
        (None, None) => "ALTER ROLE ALL RESET track_activities;".to_owned(),
    });
    let resets: Vec<String> = resets.collect();
    let ours = seen.settings.get("track_activities");
    if let Some(ours) = ours.filter(|ours| is_off(&ours.value)) {
        let text = "track_activities is off for our own session: nothing can be read";
        let mut finding = Finding::wrong(CHECK, text);
        finding.statements = resets;
        match ours.source.as_str() {
            "client" => finding.hint("`options` of the address set it: take that out"),
            source if source.contains("user") || source.contains("database") => finding,
            "command line" => {
                finding.hint("the server was started with -c track_activities=off: take that out")
            }
            _ => finding
                .run("ALTER SYSTEM SET track_activities = on;")
                .run("SELECT pg_reload_conf();"),
        }
    } else if resets.is_empty() {
        Finding::ok(CHECK, "track_activities is on, and no role or database has it off")
    } else {
        let whose: Vec<String> = off
            .iter()
            .map(|own| match (&own.role, &own.database) {
                (Some(role), Some(database)) => format!("role {role} in database {database}"),
                (Some(role), None) => format!("role {role}"),
                (None, Some(database)) => format!("database {database}"),
                (None, None) => "all roles".to_owned(),
            })
            .collect();
        let text = format!(
            "track_activities is off for {}: what these sessions do is not shown",
            whose.join(", ")
        );
        let mut finding = Finding::warning(CHECK, text)
            .hint("sessions that are logged in keep it until they log in again");
        finding.statements = resets;
        finding
    }
}

/// What Postgres reads as false (bool.c, `parse_bool`): any beginning of the words that is of no
/// other.
fn is_off(value: &str) -> bool {
    let value = value.trim().to_lowercase();
    let begins = |word: &str, least: usize| least <= value.len() && word.starts_with(&*value);
    begins("off", 2) || begins("false", 1) || begins("no", 1) || value == "0"
}

fn reserved_slots(seen: &Inspection) -> Finding {
    const CHECK: &str = "reserved_slots";
    let name = &seen.role.name;
    if seen.role.is_superuser {
        let text = format!("{name} is a superuser: it gets in while a reserved slot is free");
        return Finding::ok(CHECK, text);
    }
    if seen.fallback == Some(Ok(())) {
        let text = "none are needed: the fallback reads a server that has no slot left";
        return Finding::ok(CHECK, text);
    }
    let Some(place) = seen.membership(RESERVED_ROLE) else {
        let text = format!(
            "PostgreSQL {} has no slots that a role like {name} could use when all others are taken",
            seen.major()
        );
        return Finding::warning(CHECK, text).hint(format!(
            "the kept connection goes on in a full server, but one that is cut does not come back. \
             Ways: `fallback = \"replication\"` for this target{}, or a superuser",
            if seen.role.has_replication { "" } else { " (ALTER ROLE … REPLICATION)" }
        ));
    };
    let reserved = seen.setting("reserved_connections").and_then(|n| n.parse::<u32>().ok());
    let has_slots = reserved.is_some_and(|n| n > 0);
    if place == Membership::Full && has_slots {
        let text = format!(
            "{name} gets in when ordinary slots are gone: {} are reserved for {RESERVED_ROLE}",
            reserved.unwrap_or_default()
        );
        return Finding::ok(CHECK, text);
    }
    let mut missing = Vec::new();
    let mut statements = Vec::new();
    if place != Membership::Full {
        missing.push(format!("{name} has not the rights of {RESERVED_ROLE}"));
        statements.push(match place {
            Membership::WithoutRights => {
                format!("GRANT {RESERVED_ROLE} TO {} WITH INHERIT TRUE;", sql::name(name))
            }
            _ => grant(RESERVED_ROLE, seen),
        });
    }
    if !has_slots {
        missing.push("reserved_connections is 0".to_owned());
        statements.push("ALTER SYSTEM SET reserved_connections = 2;".to_owned());
    }
    let text = format!(
        "a connection that is cut does not come back while the server is full: {}",
        missing.join(", and ")
    );
    let mut finding = Finding::warning(CHECK, text);
    finding.statements = statements;
    finding.needs_restart = !has_slots;
    finding
}

fn tls(seen: &Inspection) -> Finding {
    const CHECK: &str = "tls";
    const MEND: &str = "sslmode=verify-full in the address, with sslrootcert for an authority of \
                        your own";
    let way = &seen.way;
    match (&way.tls, way.link) {
        (_, Link::Socket) => Finding::ok(CHECK, "a Unix socket needs none"),
        (Some((version, cipher)), _) => {
            let ok = |text: &str| Finding::ok(CHECK, format!("{version} ({cipher}), {text}"));
            match way.checked {
                Checked::AuthorityAndName => ok("and the certificate is checked"),
                Checked::Authority => {
                    ok("and the certificate is checked, but not which host it is for").hint(MEND)
                }
                Checked::Nothing => ok("but the certificate is not checked").hint(MEND),
            }
        }
        (None, Link::Loopback) => Finding::ok(CHECK, "none, within this machine"),
        (None, Link::Network) => {
            let text = "none, over a network: everybody on the way reads along";
            Finding::warning(CHECK, text).hint(MEND)
        }
    }
}

fn clock(seen: &Inspection) -> Finding {
    let (ahead, error) = (seen.clock.ahead_seconds, seen.clock.error_seconds);
    if ahead.abs() <= CLOCKS_AGREE.as_secs_f64() + error {
        return Finding::ok("clock", "the server's clock and ours agree");
    }
    let whose = if ahead > 0.0 { "ahead of" } else { "behind" };
    let seconds = ahead.abs();
    let text = format!("the server's clock is {seconds:.1} s (± {error:.1} s) {whose} ours");
    Finding::warning("clock", text).hint(
        "let both follow the same time (NTP): nothing fires because of it, but messages hold \
               times of both",
    )
}

/// What each session of ours asks for, and what the server says that it has.
fn keepalive(seen: &Inspection) -> Finding {
    const CHECK: &str = "keepalive";
    if seen.way.link == Link::Socket {
        return Finding::ok(CHECK, "a Unix socket needs none: the kernel knows when we are gone");
    }
    // tcp_user_timeout is the operating system's to have: Linux does. What is not had is 0.
    let other = KEEPALIVE.into_iter().filter_map(|(name, asked)| match seen.setting(name) {
        Some(value) if value == asked => None,
        None | Some("0") => Some(name.to_owned()),
        Some(value) => Some(format!("{name} (it is {value}, not {asked})")),
    });
    let other: Vec<String> = other.collect();
    if other.is_empty() {
        return Finding::ok(CHECK, "the server drops us within 25 s when the network is gone");
    }
    let text = format!("the server's machine does not take {}", other.join(", "));
    Finding::warning(CHECK, text).hint(
        "after a network failure our slots there are given back late: keep CONNECTION LIMIT at \
               5 or more",
    )
}

fn connection_limit(seen: &Inspection) -> Finding {
    const CHECK: &str = "connection_limit";
    let (name, limit) = (&seen.role.name, seen.role.connection_limit);
    match limit {
        _ if seen.role.is_superuser => {
            Finding::ok(CHECK, format!("{name} has none: no limit holds for a superuser"))
        }
        -1 => Finding::ok(CHECK, format!("{name} has none")),
        limit if limit >= ENOUGH_CONNECTIONS => {
            Finding::ok(CHECK, format!("{name} may log in {limit} times at once"))
        }
        limit => {
            let text = format!(
                "{name} may log in {limit} times at once, and needs up to {ENOUGH_CONNECTIONS}: a \
                 connection and its successor, this check, and what the server has not ended yet"
            );
            Finding::warning(CHECK, text).run(format!(
                "ALTER ROLE {} CONNECTION LIMIT {ENOUGH_CONNECTIONS};",
                sql::name(name)
            ))
        }
    }
}

/// Where a level's line is and where it clears, in slots of so many.
pub(super) fn lines(threshold: Threshold, usable: u32) -> (f64, f64) {
    match threshold {
        Threshold::Ratio { above, clear_below } => {
            (above * f64::from(usable), clear_below * f64::from(usable))
        }
        Threshold::Used { above, clear_below } => (f64::from(above), f64::from(clear_below)),
    }
}
