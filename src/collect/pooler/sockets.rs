//! Single clients and servers, gathered: who they are, who waits, which backends are the pooler's.
//!
//! Pure: answers in, values out. A thousand clients become some groups of those that are alike.
//! Called by [`super::look`], now and then: listing them costs the pooler more than all else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::DateTime;
use plimsoll_core::reading::pooler::{ClientGroup, LoginWait, Sockets};

use super::answer::{Answer, Row, Unusable};

/// Those who hold a pooler's places are found among the largest.
const MAX_GROUPS: usize = 100;

/// Pools of which none has ever got a server; more of them say nothing more.
const MAX_LOGIN_WAITS: usize = 1_000;

/// More backends than Postgres can have.
const MAX_BACKENDS: usize = 262_143;

/// What the groups beyond the largest are together.
const OTHER: &str = "other";

/// A day: nobody waits for longer, but a clock can be set.
const MAX_WAIT_SECONDS: f64 = 86_400.0;

pub(super) const CLIENTS: &[&str] = &[
    "user",
    "database",
    "state",
    "addr",
    "wait",
    "wait_us",
    "connect_time",
    "request_time",
    "application_name",
];

pub(super) const SERVERS: &[&str] = &["database", "addr", "remote_pid"];

/// What was seen just now of both; of the servers, if they could be read.
pub(super) fn sockets(clients: &Answer, servers: Option<&Answer>, console: &str) -> Sockets {
    Sockets {
        age: Duration::ZERO,
        clients: groups(clients, console),
        backends: servers.map(backends).unwrap_or_default(),
        login_waits: login_waits(clients, console),
    }
}

/// An error unless there is something to gather by.
pub(super) fn check_clients(answer: &Answer) -> Result<(), Unusable> {
    answer.must_have(&["user", "database", "state"])
}

/// PgBouncer and its kin say `waiting`; Odyssey `queue`.
fn waits(row: &Row<'_>) -> bool {
    matches!(row.text("state"), Some("waiting" | "queue"))
}

fn groups(answer: &Answer, console: &str) -> Vec<ClientGroup> {
    let mut groups = BTreeMap::<[&str; 4], (u32, u32)>::new();
    for row in answer.rows().filter(|row| row.text("database") != Some(console)) {
        let key = ["application_name", "user", "database", "addr"];
        let counts = groups.entry(key.map(|c| row.text(c).unwrap_or_default())).or_default();
        counts.0 = counts.0.saturating_add(1);
        counts.1 = counts.1.saturating_add(u32::from(waits(&row)));
    }
    let mut groups: Vec<ClientGroup> =
        groups.into_iter().map(|(key, counts)| group(key, counts)).collect();
    groups.sort_by_key(|group| std::cmp::Reverse((group.clients, group.waiting)));
    let rest = groups.split_off(groups.len().min(MAX_GROUPS));
    if !rest.is_empty() {
        let clients = rest.iter().map(|group| group.clients).fold(0, u32::saturating_add);
        let waiting = rest.iter().map(|group| group.waiting).fold(0, u32::saturating_add);
        groups.push(group([OTHER, "", "", ""], (clients, waiting)));
    }
    groups
}

fn group([application, user, database, address]: [&str; 4], counts: (u32, u32)) -> ClientGroup {
    let [application, user, database, address] =
        [application, user, database, address].map(str::to_owned);
    ClientGroup { application, user, database, address, clients: counts.0, waiting: counts.1 }
}

/// Clients that wait and have asked nothing yet: PgBouncer lets nobody in before a server has
/// greeted the pool, and measures no wait of theirs. They came in at `connect_time`; what time it
/// is there now, the console's own client says, whose request this is.
fn login_waits(answer: &Answer, console: &str) -> Vec<LoginWait> {
    let times = |row: Row<'_>, column| row.text(column).and_then(time);
    let at_console = answer.rows().filter(|row| row.text("database") == Some(console));
    let Some(now) = at_console.filter_map(|row| times(row, "request_time")).max() else {
        return Vec::new();
    };
    let mut waits_of = BTreeMap::<(&str, &str), f64>::new();
    for row in answer.rows().filter(waits) {
        let measured = ["wait", "wait_us"].map(|column| row.number::<u64>(column));
        let Some(since) = times(row, "connect_time") else { continue };
        if measured.iter().any(|part| !matches!(part, Ok(Some(0)))) {
            continue;
        }
        let seconds = now.duration_since(since).as_secs_f64().clamp(0.0, MAX_WAIT_SECONDS);
        let pool = (row.text("database").unwrap_or_default(), row.text("user").unwrap_or_default());
        let longest = waits_of.entry(pool).or_insert(0.0);
        *longest = longest.max(seconds);
    }
    let waits = waits_of.into_iter().take(MAX_LOGIN_WAITS).map(|((database, user), seconds)| {
        LoginWait { database: database.to_owned(), user: user.to_owned(), seconds }
    });
    waits.collect()
}

/// `2026-11-20 09:34:38 UTC`, in the pooler's own zone, which is that of all its times.
fn time(text: &str) -> Option<DateTime> {
    text.get(..19)?.parse().ok()
}

/// Of servers that are reached over TCP: the pid came with the cancel key. Over a Unix socket it is
/// that of the postmaster, which listens there.
fn backends(answer: &Answer) -> Vec<i32> {
    let over_tcp =
        answer.rows().filter(|row| !row.text("addr").is_some_and(|a| a.starts_with("unix")));
    let pids = over_tcp.filter_map(|row| row.number::<i32>("remote_pid").ok().flatten());
    let pids: BTreeSet<i32> = pids.filter(|pid| *pid > 0).collect();
    pids.into_iter().take(MAX_BACKENDS).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::super::answer::table;
    use super::*;

    /// As 1.18 lists them, cut to some columns: the third waits for a greeting.
    const LISTED: &str =
        "type|user|database|state|addr|connect_time|request_time|wait|wait_us|application_name
C|app|shop|active|10.0.0.1|2026-11-20 09:34:38 UTC|2026-11-20 09:40:00 UTC|0|0|web
C|app|shop|waiting|10.0.0.1|2026-11-20 09:34:38 UTC|2026-11-20 09:40:00 UTC|1|250|web
C|late|stalled|waiting|10.0.0.2|2026-11-20 09:39:30 UTC|2026-11-20 09:39:30 UTC|0|0|
C|stats|pgbouncer|active|127.0.0.1|2026-11-20 09:00:00 UTC|2026-11-20 09:40:12 UTC|0|51|plimsoll";

    fn of(text: &str) -> Sockets {
        sockets(&table(CLIENTS, text), None, "pgbouncer")
    }

    #[test]
    fn clients_that_are_alike_are_one_group_and_the_largest_come_first() {
        let told: Vec<_> = of(LISTED)
            .clients
            .iter()
            .map(|g| {
                format!(
                    "{}/{}@{} from {}: {}, {} wait",
                    g.application, g.user, g.database, g.address, g.clients, g.waiting
                )
            })
            .collect();
        assert_eq!(
            told,
            ["web/app@shop from 10.0.0.1: 2, 1 wait", "/late@stalled from 10.0.0.2: 1, 1 wait"]
        );
    }

    /// Columns as in Odyssey's console.c and pgcat's admin.rs.
    #[test]
    fn who_waits_at_a_look_alike_is_told_by_its_own_word() {
        let odyssey = "type|user|database|state|addr|port|local_addr|local_port|connect_time|request_time|wait|wait_us|ptr|link|remote_pid|tls
C|app|shop|active|10.0.0.1|40001|10.0.0.9|6432|||0|0|c1||0|
C|app|shop|queue|10.0.0.1|40002|10.0.0.9|6432|||0|0|c2||0|
C|app|shop|pending|10.0.0.1|40003|10.0.0.9|6432|||0|0|c3||0|";
        let seen = of(odyssey);
        assert_eq!((seen.clients[0].clients, seen.clients[0].waiting), (3, 1));
        // It says of nobody when he came.
        assert_eq!(seen.login_waits, []);

        let pgcat = "client_id|database|user|application_name|state|transaction_count|query_count|error_count|age_seconds|maxwait|maxwait_us
0x00000001|shop|app|web|waiting|5|5|0|90|1|250
0x00000002|shop|app|web|idle|7|7|0|80|0|0";
        let servers = "server_id|database_name|user|address_id|application_name|state|transaction_count|query_count|bytes_sent|bytes_received|age_seconds
0x00000003|shop|app|shop_shard_0_primary|web|idle|5|5|10|10|80";
        let seen = sockets(&table(CLIENTS, pgcat), Some(&table(SERVERS, servers)), "pgcat");
        assert_eq!((seen.clients[0].application.as_str(), seen.clients[0].clients), ("web", 2));
        assert_eq!((seen.clients[0].waiting, seen.backends), (1, Vec::new()));
    }

    #[test]
    fn many_groups_are_cut_and_their_sums_stay() {
        let mut text = "user|database|state|application_name".to_owned();
        for n in 0..MAX_GROUPS + 20 {
            write!(text, "\nu|d|waiting|app{n}").unwrap();
        }
        text.push_str("\nu|d|active|app7");
        let groups = of(&text).clients;
        assert_eq!(groups.len(), MAX_GROUPS + 1);
        assert_eq!((groups[0].application.as_str(), groups[0].clients), ("app7", 2));
        let last = groups.last().unwrap();
        assert_eq!((last.application.as_str(), last.clients, last.waiting), ("other", 20, 20));
    }

    #[test]
    fn who_waits_for_a_greeting_has_waited_since_he_came() {
        let waits = of(LISTED).login_waits;
        assert_eq!(waits.len(), 1, "{waits:?}");
        assert_eq!((waits[0].database.as_str(), waits[0].user.as_str()), ("stalled", "late"));
        assert!((waits[0].seconds - 42.0).abs() < 1e-9);
        // A pooler that has no times, or no console's client, says nothing of it.
        assert_eq!(of("user|database|state|wait\nlate|stalled|waiting|0").login_waits, []);
        assert_eq!(of(&LISTED.replace("|pgbouncer|", "|other|")).login_waits, []);
        // Clocks that are set, and texts that are none.
        let set = LISTED.replace("2026-11-20 09:39:30", "2026-11-20 09:59:30");
        assert!(of(&set).login_waits[0].seconds.abs() < 1e-9);
        assert_eq!(
            of(&LISTED.replace("2026-11-20 09:39:30", "some time ago, 19 €")).login_waits,
            []
        );
    }

    #[test]
    fn backends_are_those_that_a_cancel_key_told() {
        let answer = table(
            SERVERS,
            "database|addr|remote_pid\nshop|127.0.0.1|77\nshop|unix|1\nshop|::1|-5\nshop|10.0.0.1|x\nshop|10.0.0.1|12\n|10.0.0.1|0",
        );
        assert_eq!(backends(&answer), [12, 77]);
    }
}
