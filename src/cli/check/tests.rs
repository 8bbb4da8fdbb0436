//! What is said of what was seen: a table, without a server.

use std::time::Duration;

use plimsoll_core::judge::rule::{Level, Levels, Threshold};
use plimsoll_core::reading::postgres::{Limits, Slots};
use plimsoll_core::reading::{Failure, FailureKind, Refusal};

use super::finding::{Finding, Findings, Grade, Subject};
use super::target::{Wanted, find, unseen};
use crate::cli::Exit;
use crate::collect::postgres::inspect::{
    Checked, Clock, Inspection, KEEPALIVE, Link, Membership, Override, Resting, Role, Setting, Way,
};

fn wanted() -> Wanted {
    let level = |above, clear_below| Level {
        threshold: Threshold::Ratio { above, clear_below },
        hold: Duration::ZERO,
        keep_firing_for: Duration::ZERO,
    };
    let levels = Levels { warning: Some(level(0.8, 0.7)), critical: Some(level(0.9, 0.8)) };
    Wanted { levels: Some(levels), rest: Duration::from_mins(1) }
}

/// A server on which everything is as it should be.
fn well() -> Inspection {
    let settings = [
        ("track_activities", "on"),
        ("reserved_connections", "2"),
        ("log_statement", "none"),
        ("log_min_duration_statement", "-1"),
        ("log_min_duration_sample", "-1"),
        ("log_statement_sample_rate", "1"),
        ("log_transaction_sample_rate", "0"),
        ("log_duration", "off"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "25000"),
    ];
    let setting = |(name, value): (&str, &str)| {
        let source = "configuration file".to_owned();
        (name.to_owned(), Setting { value: value.to_owned(), source })
    };
    let full = |name: &str| (name.to_owned(), Membership::Full);
    let limits = Limits { max_connections: 102, superuser_reserved: 3, reserved: 2 };
    Inspection {
        version_num: 160_014,
        version: "16.14".to_owned(),
        role: Role {
            name: "plimsoll".to_owned(),
            database: "postgres".to_owned(),
            is_superuser: false,
            inherits: true,
            connection_limit: 5,
            has_replication: false,
            memberships: ["pg_monitor", "pg_read_all_stats", "pg_use_reserved_connections"]
                .map(full)
                .into(),
        },
        way: Way {
            link: Link::Network,
            tls: Some(("TLSv1.3".to_owned(), "TLS_AES_256_GCM_SHA384".to_owned())),
            checked: Checked::AuthorityAndName,
        },
        clock: Clock { ahead_seconds: 0.02, error_seconds: 0.005 },
        settings: settings.map(setting).into(),
        track_activities: Vec::new(),
        resting: Vec::new(),
        slots: Ok(Slots::new(limits, 20)),
        fallback: None,
    }
}

fn set(seen: &mut Inspection, name: &str, value: &str, source: &str) {
    let setting = Setting { value: value.to_owned(), source: source.to_owned() };
    seen.settings.insert(name.to_owned(), setting);
}

/// What is said of a server that differs from one that is well: only what is not ok.
fn said(change: impl FnOnce(&mut Inspection)) -> String {
    let mut seen = well();
    change(&mut seen);
    let findings = find(&wanted(), &seen);
    let bad = findings.iter().filter(|finding| finding.grade != Grade::Ok);
    bad.map(Finding::to_string).collect()
}

#[test]
fn a_server_that_is_well() {
    assert_eq!(said(|_| ()), "");
    let all: String = find(&wanted(), &well()).iter().map(Finding::to_string).collect();
    insta::assert_snapshot!(all, @r"
    ok       reach: PostgreSQL itself answers, and no pooler; we are plimsoll
    ok       version: PostgreSQL 16.14
    ok       privileges: plimsoll sees all sessions (pg_monitor)
    ok       track_activities: track_activities is on, and no role or database has it off
    ok       reserved_slots: plimsoll gets in when ordinary slots are gone: 2 are reserved for pg_use_reserved_connections
    ok       tls: TLSv1.3 (TLS_AES_256_GCM_SHA384), and the certificate is checked
    ok       clock: the server's clock and ours agree
    ok       keepalive: the server drops us within 25 s when the network is gone
    ok       connection_limit: plimsoll may log in 5 times at once
    ok       slots: 77 of 97 usable slots are free (20 used, one by this check)
    ok       resting_level: at rest the pools hold 0 of 97 usable slots (0 %)
    ok       statement_log: the server does not log our statements
    ");
}

#[test]
fn versions() {
    insta::assert_snapshot!(said(|seen| {
        seen.version_num = 190_000;
        seen.version = "19beta1".to_owned();
    }), @r"
    warning  version: PostgreSQL 19beta1 is newer than any that was tested (up to 18)
               hint: see whether there is a newer Plimsoll
    ");
}

#[test]
fn privileges() {
    let monitor = |seen: &mut Inspection, monitor, stats| {
        seen.role.memberships.insert("pg_monitor".to_owned(), monitor);
        seen.role.memberships.insert("pg_read_all_stats".to_owned(), stats);
    };
    assert_eq!(said(|seen| monitor(seen, Membership::None, Membership::Full)), "");
    insta::assert_snapshot!(said(|seen| {
        seen.role.name = "o\"brien".to_owned();
        monitor(seen, Membership::None, Membership::None);
    }), @r#"
    wrong    privileges: o"brien is no member of pg_monitor: others' sessions are hidden
               run: GRANT pg_monitor TO "o""brien";
    "#);
    let not_inherited = |version| {
        said(|seen| {
            seen.version_num = version;
            seen.role.inherits = false;
            monitor(seen, Membership::WithoutRights, Membership::WithoutRights);
        })
    };
    // Reserved slots are asked for from 16 on, and are not what this is about.
    assert!(!not_inherited(140_000).contains("privileges"));
    insta::assert_snapshot!(not_inherited(160_000), @r"
    wrong    privileges: plimsoll is a member of pg_monitor and does not have its rights
               run: GRANT pg_monitor TO plimsoll WITH INHERIT TRUE;
    ");
    insta::assert_snapshot!(not_inherited(150_000), @r"
    wrong    privileges: plimsoll is a member of pg_monitor and does not have its rights
               run: ALTER ROLE plimsoll INHERIT;
    ");
    insta::assert_snapshot!(said(|seen| seen.role.is_superuser = true), @r"
    warning  privileges: plimsoll is a superuser: far more than reading needs
               hint: `plimsoll setup-sql` prints a role that may read and nothing else
    ");
}

#[test]
fn track_activities() {
    let of = |role: Option<&str>, database: Option<&str>, value: &str| Override {
        role: role.map(str::to_owned),
        database: database.map(str::to_owned),
        value: value.to_owned(),
    };
    insta::assert_snapshot!(said(|seen| {
        seen.track_activities = vec![
            of(Some("app"), None, "off"),
            of(Some("Report"), Some("shop"), "FALSE"),
            of(None, Some("batch"), "n"),
            of(None, None, "0"),
            of(Some("fine"), None, "on"),
            of(Some("fine too"), None, "true"),
        ];
    }), @r#"
    warning  track_activities: track_activities is off for role app, role Report in database shop, database batch, all roles: what these sessions do is not shown
               run: ALTER ROLE app RESET track_activities;
               run: ALTER ROLE "Report" IN DATABASE shop RESET track_activities;
               run: ALTER DATABASE batch RESET track_activities;
               run: ALTER ROLE ALL RESET track_activities;
               hint: sessions that are logged in keep it until they log in again
    "#);
    let ours = |source: &str| {
        said(|seen| {
            set(seen, "track_activities", "off", source);
            if source == "user" {
                seen.track_activities = vec![of(Some("plimsoll"), None, "off")];
            }
        })
    };
    insta::assert_snapshot!(ours("configuration file"), @r"
    wrong    track_activities: track_activities is off for our own session: nothing can be read
               run: ALTER SYSTEM SET track_activities = on;
               run: SELECT pg_reload_conf();
    ");
    insta::assert_snapshot!(ours("command line"), @r"
    wrong    track_activities: track_activities is off for our own session: nothing can be read
               hint: the server was started with -c track_activities=off: take that out
    ");
    insta::assert_snapshot!(ours("user"), @r"
    wrong    track_activities: track_activities is off for our own session: nothing can be read
               run: ALTER ROLE plimsoll RESET track_activities;
    ");
    insta::assert_snapshot!(ours("client"), @r"
    wrong    track_activities: track_activities is off for our own session: nothing can be read
               hint: `options` of the address set it: take that out
    ");
}

#[test]
fn both_halves_of_the_right_to_reserved_slots() {
    const ROLE: &str = "pg_use_reserved_connections";
    let none = |seen: &mut Inspection| {
        seen.role.memberships.insert(ROLE.to_owned(), Membership::None);
    };
    let no_slots = |seen: &mut Inspection| set(seen, "reserved_connections", "0", "default");
    insta::assert_snapshot!(said(none), @r"
    warning  reserved_slots: a connection that is cut does not come back while the server is full: plimsoll has not the rights of pg_use_reserved_connections
               run: GRANT pg_use_reserved_connections TO plimsoll;
    ");
    insta::assert_snapshot!(said(no_slots), @r"
    warning  reserved_slots: a connection that is cut does not come back while the server is full: reserved_connections is 0
               run: ALTER SYSTEM SET reserved_connections = 2;
               then start the server anew
    ");
    insta::assert_snapshot!(said(|seen| {
        none(seen);
        no_slots(seen);
        seen.role.inherits = false;
    }), @r"
    warning  reserved_slots: a connection that is cut does not come back while the server is full: plimsoll has not the rights of pg_use_reserved_connections, and reserved_connections is 0
               run: GRANT pg_use_reserved_connections TO plimsoll WITH INHERIT TRUE;
               run: ALTER SYSTEM SET reserved_connections = 2;
               then start the server anew
    ");
    insta::assert_snapshot!(said(|seen| {
        seen.version_num = 150_018;
        seen.role.memberships.remove(ROLE);
    }), @r#"
    warning  reserved_slots: PostgreSQL 15 has no slots that a role like plimsoll could use when all others are taken
               hint: the kept connection goes on in a full server, but one that is cut does not come back. Ways: `fallback = "replication"` for this target (ALTER ROLE … REPLICATION), or a superuser
    "#);
}

#[test]
fn a_fallback_is_worth_what_was_tried() {
    let tried = |kind, sqlstate: &str, text: &str| {
        let failure = Failure { kind, text: text.to_owned(), sqlstate: Some(sqlstate.to_owned()) };
        said(|seen| seen.fallback = Some(Err(failure)))
    };
    insta::assert_snapshot!(tried(FailureKind::NotAllowed, "42501", "permission denied"), @r"
    warning  fallback: a replication connection does not get in: permission denied
               run: ALTER ROLE plimsoll REPLICATION;
               hint: with it the role can copy the whole cluster: see docs/operations.md first
    ");
    insta::assert_snapshot!(tried(FailureKind::NotAllowed, "28000", "no pg_hba.conf entry"), @r"
    warning  fallback: a replication connection does not get in: no pg_hba.conf entry
               hint: pg_hba.conf lets it in by a line that names the database or `all`; lines for `replication` are for other connections
    ");
    let none_free = FailureKind::Refused(Refusal::WalSenders);
    insta::assert_snapshot!(tried(none_free, "53300", "exceeds max_wal_senders"), @r"
    warning  fallback: a replication connection does not get in: exceeds max_wal_senders
               hint: no walsender is free: raise max_wal_senders, with wal_level above minimal, and start the server anew
    ");
    insta::assert_snapshot!(tried(FailureKind::TooSlow, "57014", "not answered"), @r"
    warning  fallback: a replication connection does not get in: not answered
    ");
    // With it nobody needs slots that are reserved.
    let mut seen = well();
    seen.fallback = Some(Ok(()));
    seen.role.memberships.remove("pg_use_reserved_connections");
    let findings = find(&wanted(), &seen);
    assert!(findings.iter().all(|finding| finding.grade == Grade::Ok));
    let all: String = findings.iter().map(Finding::to_string).collect();
    assert!(all.contains("ok       fallback: a replication connection gets in"), "{all}");
}

#[test]
fn ways() {
    insta::assert_snapshot!(said(|seen| seen.way.tls = None), @r"
    warning  tls: none, over a network: everybody on the way reads along
               hint: sslmode=verify-full in the address, with sslrootcert for an authority of your own
    ");
    let ok = |change: &dyn Fn(&mut Inspection)| assert_eq!(said(change), "");
    ok(&|seen| (seen.way.tls, seen.way.link) = (None, Link::Loopback));
    ok(&|seen| {
        (seen.way.tls, seen.way.link) = (None, Link::Socket);
        // As on a Unix socket.
        for name in ["idle", "interval", "count"] {
            set(seen, &format!("tcp_keepalives_{name}"), "0", "client");
        }
        set(seen, "tcp_user_timeout", "0", "client");
    });
    let of_tls = |checked| {
        let mut seen = well();
        seen.way.checked = checked;
        let findings = find(&wanted(), &seen);
        findings.iter().filter(|f| f.check == "tls").map(Finding::to_string).collect::<String>()
    };
    insta::assert_snapshot!(of_tls(Checked::Nothing), @r"
    ok       tls: TLSv1.3 (TLS_AES_256_GCM_SHA384), but the certificate is not checked
               hint: sslmode=verify-full in the address, with sslrootcert for an authority of your own
    ");
    insta::assert_snapshot!(of_tls(Checked::Authority), @r"
    ok       tls: TLSv1.3 (TLS_AES_256_GCM_SHA384), and the certificate is checked, but not which host it is for
               hint: sslmode=verify-full in the address, with sslrootcert for an authority of your own
    ");
    insta::assert_snapshot!(said(|seen| {
        set(seen, "tcp_user_timeout", "0", "client");
        seen.settings.remove("tcp_keepalives_count");
    }), @r"
    warning  keepalive: the server's machine does not take tcp_keepalives_count, tcp_user_timeout
               hint: after a network failure our slots there are given back late: keep CONNECTION LIMIT at 5 or more
    ");
    // It has some, and not ours: those of the operating system.
    for (name, asked) in KEEPALIVE {
        let said = said(|seen| set(seen, name, "7200", "default"));
        let expected = format!("does not take {name} (it is 7200, not {asked})\n");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn clocks() {
    let off = |ahead_seconds, error_seconds| {
        said(|seen| seen.clock = Clock { ahead_seconds, error_seconds })
    };
    assert_eq!(off(1.9, 0.01) + &off(-4.0, 3.0), "");
    insta::assert_snapshot!(off(90.04, 0.2), @r"
    warning  clock: the server's clock is 90.0 s (± 0.2 s) ahead of ours
               hint: let both follow the same time (NTP): nothing fires because of it, but messages hold times of both
    ");
    insta::assert_snapshot!(off(-3600.0, 0.01), @r"
    warning  clock: the server's clock is 3600.0 s (± 0.0 s) behind ours
               hint: let both follow the same time (NTP): nothing fires because of it, but messages hold times of both
    ");
}

#[test]
fn limits_of_the_role() {
    assert_eq!(said(|seen| seen.role.connection_limit = -1), "");
    insta::assert_snapshot!(said(|seen| seen.role.connection_limit = 4), @r"
    warning  connection_limit: plimsoll may log in 4 times at once, and needs up to 5: a connection and its successor, this check, and what the server has not ended yet
               run: ALTER ROLE plimsoll CONNECTION LIMIT 5;
    ");
}

#[test]
fn slots_and_pools_at_rest() {
    let resting = |parts: &[(&str, u32)]| {
        let of = |(name, connections): &(&str, u32)| Resting {
            application: (*name).to_owned(),
            connections: *connections,
        };
        let parts: Vec<_> = parts.iter().map(of).collect();
        said(|seen| seen.resting = parts)
    };
    // 67 of 97 are 69 %.
    assert_eq!(resting(&[("payment-api", 67)]), "");
    insta::assert_snapshot!(resting(&[("payment-api", 40), ("", 28)]), @r"
    warning  resting_level: at rest the pools hold 68 of 97 usable slots (70 %; payment-api 40, without a name 28): the warning line is 80 %, clear_below 70 %: a warning would never clear
               hint: make the pools smaller; or lay the line of this target above what rests: [targets.rules.slots] warning = { above = 0.80, clear_below = 0.75 }; sessions idle for 1m or longer count as resting
    ");
    let many = ["a", "b", "c", "d", "e", "f", "g"].map(|name| (name, 12));
    insta::assert_snapshot!(resting(&many), @r"
    warning  resting_level: at rest the pools hold 84 of 97 usable slots (87 %; a 12, b 12, c 12, d 12, e 12, others 24): the warning line is 80 %, clear_below 70 %: a warning fires all the time
               hint: make the pools smaller: what they hold leaves no room to see trouble in; sessions idle for 1m or longer count as resting
    ");
    insta::assert_snapshot!(said(|seen| {
        let limits = Limits { max_connections: 50, superuser_reserved: 3, reserved: 0 };
        seen.slots = Ok(Slots::new(limits, 48));
    }), @r"
    wrong    slots: the server is full: -1 of 47 usable slots are free (48 used, one by this check)
               hint: ordinary logins are refused now; pg_stat_activity says who holds the slots
    ");
    insta::assert_snapshot!(said(|seen| {
        let kind = FailureKind::Blocked;
        let text = "blocked by a lock on a system catalog".to_owned();
        seen.slots = Err(Failure { kind, text, sqlstate: None });
    }), @r"
    wrong    slots: cannot be read: blocked by a lock on a system catalog
    warning  resting_level: not known: slots cannot be read
    ");
}

#[test]
fn what_the_server_logs_of_us() {
    let loud = |settings: &[(&str, &str)]| {
        said(|seen| settings.iter().for_each(|(name, value)| set(seen, name, value, "default")))
    };
    for quiet in [
        ("log_statement", "mod"),
        ("log_min_duration_statement", "1000"),
        ("auto_explain.log_min_duration", "250"),
        ("pgaudit.log", "ddl, write"),
    ] {
        assert_eq!(loud(&[quiet]), "", "{quiet:?}");
    }
    // Asked for, and no statement is taken.
    let sample = ("log_min_duration_sample", "0");
    assert_eq!(loud(&[sample, ("log_statement_sample_rate", "0")]), "");
    insta::assert_snapshot!(loud(&[
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("log_duration", "on"),
        sample,
        ("log_transaction_sample_rate", "0.01"),
        ("log_executor_stats", "on"),
        ("auto_explain.log_min_duration", "0"),
        ("pgaudit.log", "ddl, READ"),
    ]), @r"
    warning  statement_log: the server logs our statements (log_statement = all, log_min_duration_statement = 0, log_duration = on, log_min_duration_sample = 0, log_transaction_sample_rate = 0.01, log_executor_stats = on, auto_explain.log_min_duration = 0, pgaudit.log = ddl, READ): with a poll a second some millions of lines a week
               run: ALTER ROLE plimsoll SET log_statement = 'none';
               run: ALTER ROLE plimsoll SET log_min_duration_statement = '-1';
               run: ALTER ROLE plimsoll SET log_duration = 'off';
               run: ALTER ROLE plimsoll SET log_min_duration_sample = '-1';
               run: ALTER ROLE plimsoll SET log_transaction_sample_rate = '0';
               run: ALTER ROLE plimsoll SET log_executor_stats = 'off';
               run: ALTER ROLE plimsoll SET auto_explain.log_min_duration = '-1';
               run: ALTER ROLE plimsoll SET pgaudit.log = 'none';
    ");
    insta::assert_snapshot!(said(|seen| {
        set(seen, "log_statement", "all", "database user");
        set(seen, "log_duration", "on", "client");
    }), @r"
    warning  statement_log: the server logs our statements (log_statement = all, log_duration = on): with a poll a second some millions of lines a week
               run: ALTER ROLE plimsoll IN DATABASE postgres SET log_statement = 'none';
               hint: `options` of the address set it: take that out
    ");
}

#[test]
fn a_server_that_cannot_be_seen() {
    let failed = |kind| {
        let failure = Failure { kind, text: "the server's words".to_owned(), sqlstate: None };
        unseen(Some("plimsoll"), "postgres", &failure).to_string()
    };
    let kinds = [
        FailureKind::Refused(Refusal::AllSlotsTaken),
        FailureKind::Refused(Refusal::ReservedForRole),
        FailureKind::Refused(Refusal::RoleLimit),
        FailureKind::Refused(Refusal::DatabaseLimit),
        FailureKind::Stopped,
        FailureKind::Starting,
        FailureKind::Unreachable,
        FailureKind::TooSlow,
        FailureKind::NotAllowed,
        FailureKind::Unsupported,
    ];
    insta::assert_snapshot!(kinds.map(failed).concat(), @r#"
    wrong    reach: no slot was left for this check: the server's words
               hint: end sessions that are not needed, as a superuser. For the next time: reserved_connections and pg_use_reserved_connections on 16 and later, `fallback = "replication"` on any version
    wrong    reach: no slot was left for this check: the server's words
               run: GRANT pg_use_reserved_connections TO plimsoll;
               hint: then a reserved slot will do; pg_stat_activity says who holds the others
    wrong    reach: the role's CONNECTION LIMIT is used up: the server's words
               run: ALTER ROLE plimsoll CONNECTION LIMIT 5;
    wrong    reach: the database's CONNECTION LIMIT is used up: the server's words
               hint: raise it (ALTER DATABASE postgres CONNECTION LIMIT …), or name another database in the address: any will do
    wrong    reach: the server's words
               hint: is the server up, and is this its host and port?
    wrong    reach: the server's words
    wrong    reach: the server's words
               hint: is the host's name right, and does every firewall let us through?
    wrong    reach: the server's words
               hint: no second login was tried; `poll.timeout` says how long one may take
    wrong    reach: the server's words
               hint: password, certificate, pg_hba.conf and the role decide this; `plimsoll setup-sql` prints the role
    wrong    reach: the server's words
               hint: a target is PostgreSQL itself, 13 or later: not PgBouncer, RDS Proxy, Supavisor or a host with -pooler in its name
    "#);
    // Who the user is that runs this is not known here, so no statement names it.
    let kind = FailureKind::Refused(Refusal::RoleLimit);
    let failure = Failure { kind, text: String::new(), sqlstate: None };
    assert_eq!(unseen(None, "postgres", &failure).statements, Vec::<String>::new());
}

#[test]
fn how_it_ends_and_how_it_is_shown() {
    let subject = |grade| {
        let finding = Finding::new("reach", grade, "a name\u{1b}[2J\nwrong: of two lines");
        let (name, address) = ("db".to_owned(), "127.0.0.1:5432".to_owned());
        vec![Subject { name, address, findings: vec![finding.run("SELECT 1;")] }]
    };
    let end = |settings: Grade, target: Grade, receiver: Grade, machine: Grade| {
        let one = |grade| vec![Finding::new("it", grade, "so")];
        let findings =
            Findings::new(one(settings), subject(target), subject(receiver), one(machine));
        findings.exit()
    };
    let (ok, warning, wrong) = (Grade::Ok, Grade::Warning, Grade::Wrong);
    assert_eq!(end(ok, ok, ok, ok), Exit::Fine);
    assert_eq!(end(warning, warning, warning, warning), Exit::Fine);
    assert_eq!(end(ok, ok, wrong, ok), Exit::Failure);
    assert_eq!(end(ok, ok, ok, wrong), Exit::Failure);
    assert_eq!(end(ok, wrong, wrong, wrong), Exit::Target);
    assert_eq!(end(wrong, wrong, wrong, wrong), Exit::Settings);

    let shown = Findings::new(Vec::new(), subject(wrong), Vec::new(), Vec::new());
    insta::assert_snapshot!(shown, @r"
    target db at 127.0.0.1:5432
      wrong    reach: a name�[2J�wrong: of two lines
                 run: SELECT 1;
    0 ok, 0 warning, 1 wrong
    ");
    insta::assert_snapshot!(shown.json(), @r#"
    {
      "version": "1",
      "summary": {
        "ok": 0,
        "warning": 0,
        "wrong": 1
      },
      "settings": [],
      "targets": [
        {
          "name": "db",
          "address": "127.0.0.1:5432",
          "findings": [
            {
              "check": "reach",
              "grade": "wrong",
              "text": "a name\u001b[2J\nwrong: of two lines",
              "hint": null,
              "statements": [
                "SELECT 1;"
              ],
              "needs_restart": false
            }
          ]
        }
      ],
      "receivers": [],
      "machine": []
    }
    "#);
}
