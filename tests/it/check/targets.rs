//! What `check` says of targets.

use plimsoll::drill::server::{Server, Signal};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::pooler::pooler;
use crate::postgres::bouncer::{PGBOUNCERS, bouncer_before};

/// The one that is always there, unless a later major is set up for it.
fn expected(fault: &str) -> Vec<&str> {
    // In the order in which they are shown.
    const ORDER: [&str; 12] = [
        "reach",
        "version",
        "privileges",
        "track_activities",
        "reserved_slots",
        "tls",
        "clock",
        "keepalive",
        "connection_limit",
        "slots",
        "resting_level",
        "statement_log",
    ];
    let mut faults: Vec<&str> = fault.split(", ").chain([ALWAYS]).collect();
    let place = |fault: &&str| ORDER.iter().position(|check| fault.ends_with(check));
    faults.sort_by_key(place);
    faults
}

async fn mended(server: &mut Server, stage: &[&str], fault: &str, code: i32) {
    mends(server, stage, &expected(fault), code).await;
}

#[tokio::test]
async fn a_server_that_is_well_as_text() {
    let server = server(20).await;
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().display().to_string();
    let url = url(&server);
    let ended = run(&["check", "--postgres", &url, "--state-dir", &state_dir], &[]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    // What differs from one run, and one major, to the next.
    let version = ended.stdout.split("version: PostgreSQL ").nth(1).unwrap();
    let version = version.lines().next().unwrap();
    assert_eq!(version.split('.').next(), Some(major().to_string().as_str()));
    let shown = ended
        .stdout
        .replace(&server.port().to_string(), "PORT")
        .replace(&format!("PostgreSQL {version}"), "PostgreSQL VERSION")
        .replace(&state_dir, "STATE");
    let of_majors =
        |line: &&str| !line.contains("reserved_slots:") && !line.starts_with("        ");
    let shown: Vec<&str> = shown.lines().filter(of_majors).collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    settings
      warning  settings: targets: 1; receivers: none, so that nobody is told of anything
    target 127.0.0.1 at 127.0.0.1:PORT
      ok       reach: PostgreSQL itself answers, and no pooler; we are plimsoll
      ok       version: PostgreSQL VERSION
      ok       privileges: plimsoll sees all sessions (pg_monitor)
      ok       track_activities: track_activities is on, and no role or database has it off
      ok       tls: none, within this machine
      ok       clock: the server's clock and ours agree
      ok       keepalive: the server drops us within 25 s when the network is gone
      ok       connection_limit: plimsoll may log in 5 times at once
      ok       slots: 16 of 17 usable slots are free (1 used, one by this check)
      ok       resting_level: at rest the pools hold 0 of 17 usable slots (0 %)
      ok       statement_log: the server does not log our statements
    this machine
      ok       state_dir: STATE can be written
      ok       listen: 127.0.0.1:7546 is an address
    13 ok, 2 warning, 0 wrong
    ");
    // It said goodbye, and left nobody behind.
    let superuser = server.superuser().await.unwrap();
    let gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'plimsoll'";
    until_true(&superuser, gone).await;
    assert!(!server.log().contains("unexpected EOF"), "{}", server.log());
}

#[tokio::test]
async fn what_a_role_lacks_and_the_statement_that_gives_it() {
    let mut server = server(20).await;
    let s = &mut server;
    mended(
        s,
        &["REVOKE pg_monitor FROM plimsoll"],
        "wrong privileges, warning slots, warning resting_level",
        4,
    )
    .await;
    // Up to 14 a member need not inherit.
    let not_inherited: Option<&[&str]> = match major() {
        ..15 => None,
        15 => Some(&["ALTER ROLE plimsoll NOINHERIT"]),
        16.. => Some(&["GRANT pg_monitor TO plimsoll WITH INHERIT FALSE"]),
    };
    if let Some(stage) = not_inherited {
        let hidden = "wrong privileges, warning slots, warning resting_level";
        mended(s, stage, hidden, 4).await;
    } else {
        let superuser = s.superuser().await.unwrap();
        execute(&superuser, "ALTER ROLE plimsoll NOINHERIT").await;
        let seen = check(&url(s)).await;
        assert_eq!((seen.troubles(), seen.code), (vec![ALWAYS.to_owned()], 0));
    }
    mended(s, &["ALTER ROLE plimsoll CONNECTION LIMIT 4"], "warning connection_limit", 0).await;
}

#[tokio::test]
async fn a_role_that_is_none_but_a_reader_of_statistics_is_enough() {
    let server = server(20).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "REVOKE pg_monitor FROM plimsoll; GRANT pg_read_all_stats TO plimsoll")
        .await;
    let seen = check(&url(&server)).await;
    assert_eq!((seen.troubles(), seen.code), (vec![ALWAYS.to_owned()], 0));
}

#[tokio::test]
async fn track_activities_of_the_server_of_roles_and_of_databases() {
    let mut server = server(20).await;
    let s = &mut server;
    let role = ["ALTER ROLE app SET track_activities = off"];
    mended(s, &role, "warning track_activities", 0).await;
    let both = [
        "CREATE ROLE \"O'Brien\"",
        "CREATE DATABASE \"my shop\"",
        "ALTER ROLE \"O'Brien\" IN DATABASE \"my shop\" SET track_activities = 'n'",
        "ALTER DATABASE \"my shop\" SET track_activities = false",
    ];
    mended(s, &both, "warning track_activities", 0).await;
    let blind = "wrong track_activities, warning slots, warning resting_level";
    let ours = ["ALTER ROLE plimsoll SET track_activities = 0"];
    mended(s, &ours, blind, 4).await;
    let all = ["ALTER ROLE ALL SET track_activities = off"];
    mended(s, &all, blind, 4).await;
    let everywhere = ["ALTER SYSTEM SET track_activities = off", "SELECT pg_reload_conf()"];
    mended(s, &everywhere, blind, 4).await;
}

#[tokio::test]
async fn both_halves_of_the_right_to_reserved_slots() {
    let mut server = server(20).await;
    if major() < 16 {
        let seen = check(&url(&server)).await;
        let finding = seen.finding("reserved_slots");
        assert_eq!(finding["statements"].as_array().unwrap().len(), 0);
        assert!(finding["hint"].as_str().unwrap().contains("fallback = \"replication\""));
        return;
    }
    let seen = check(&url(&server)).await;
    let finding = seen.finding("reserved_slots");
    assert_eq!(finding["statements"].as_array().unwrap().len(), 2, "{finding}");
    assert_eq!(finding["needs_restart"], true);
    mends(&mut server, &[], &[ALWAYS], 0).await;
    // One half alone is none.
    let revoke = ["REVOKE pg_use_reserved_connections FROM plimsoll"];
    mends(&mut server, &revoke, &[ALWAYS], 0).await;
    // And it is what it is said to be: the last slots are ours.
    let usable = 20 - 3 - 2;
    let _sessions = fill(&server, "payment-api", usable).await;
    let seen = check(&url(&server)).await;
    assert_eq!((seen.grade("reserved_slots"), seen.grade("slots"), seen.code), ("ok", "wrong", 4));
}

#[tokio::test]
async fn statements_that_the_server_logs() {
    let mut server = server(20).await;
    let s = &mut server;
    let log = |name: &str, value: &str| format!("ALTER SYSTEM SET {name} = '{value}'");
    let everything = [
        log("log_statement", "all"),
        log("log_min_duration_statement", "0"),
        log("log_duration", "on"),
        log("log_min_duration_sample", "0"),
        log("log_transaction_sample_rate", "0.5"),
        log("log_planner_stats", "on"),
        "SELECT pg_reload_conf()".to_owned(),
    ];
    let everything: Vec<&str> = everything.iter().map(String::as_str).collect();
    mended(s, &everything, "warning statement_log", 0).await;
    let here = ["ALTER ROLE plimsoll IN DATABASE postgres SET log_statement = 'all'"];
    mended(s, &here, "warning statement_log", 0).await;
}

#[tokio::test]
async fn a_loaded_auto_explain_is_seen() {
    let settings = [("session_preload_libraries", "auto_explain")];
    let mut server = bare_server(20, &settings).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor CONNECTION LIMIT 5").await;
    drop(superuser);
    let stage = ["ALTER SYSTEM SET auto_explain.log_min_duration = 0", "SELECT pg_reload_conf()"];
    mended(&mut server, &stage, "warning statement_log", 0).await;
}

#[tokio::test]
async fn limits_that_are_used_up() {
    let mut server = server(20).await;
    let none = ["ALTER ROLE plimsoll CONNECTION LIMIT 0"];
    mends(&mut server, &none, &["wrong reach"], 4).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER DATABASE postgres CONNECTION LIMIT 0").await;
    let seen = check(&url(&server)).await;
    let finding = seen.finding("reach");
    assert!(finding["text"].as_str().unwrap().contains("database's CONNECTION LIMIT"), "{finding}");
    assert_eq!(seen.code, 4);
}

#[tokio::test]
async fn a_full_server_is_a_finding_too() {
    let server = server(20).await;
    let sessions = fill(&server, "payment-api", 17).await;
    let seen = check(&url(&server)).await;
    assert_eq!((seen.troubles(), seen.code), (vec!["wrong reach".to_owned()], 4));
    let finding = seen.finding("reach");
    let text = finding["text"].as_str().unwrap();
    assert!(text.starts_with("no slot was left for this check: "), "{text}");
    assert!(finding["hint"].as_str().unwrap().contains("end sessions"), "{finding}");
    drop(sessions);
    let well = |seen: &Checked| seen.code == 0;
    until_checked(&server, well).await;
}

#[tokio::test]
async fn pools_that_hold_too_much_at_rest_are_told_before_they_page_nobody() {
    let server = server(20).await;
    let _large = fill(&server, "payment-api", 9).await;
    let _small = fill(&server, "report", 3).await;
    let seen = check(&url(&server)).await;
    let finding = seen.finding("resting_level");
    insta::assert_snapshot!(
        finding["text"].as_str().unwrap(),
        @"at rest the pools hold 12 of 17 usable slots (71 %; payment-api 9, report 3): the warning line is 80 %, clear_below 70 %: a warning would never clear"
    );
    assert_eq!((seen.grade("resting_level"), seen.code), ("warning", 0));
    // The same sessions have not been idle for an hour.
    let seen = check_in(&["--postgres", &url(&server), "--idle-for", "1h"], &[]).await;
    let finding = seen.finding("resting_level");
    let nothing = "at rest the pools hold 0 of 17 usable slots (0 %)";
    assert_eq!((finding["text"].as_str().unwrap(), seen.code), (nothing, 0));
    // With a line above what rests, as is hinted, it would clear.
    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = format!(
        "[[targets]]\nname = \"db\"\npostgres = \"{}\"\n[targets.rules.slots]\nwarning = \
         {{ above = 0.81, clear_below = 0.76 }}\n",
        url(&server)
    );
    std::fs::write(file.path(), settings).unwrap();
    let seen = check_with(&["--config", file.path().to_str().unwrap()]).await;
    assert_eq!(seen.grade("resting_level"), "ok", "{}", seen.json);
}

#[tokio::test]
async fn ways_there() {
    let server = server(20).await;
    let seen = check(&server.socket_url("plimsoll", "postgres")).await;
    assert_eq!((seen.grade("keepalive"), seen.grade("tls"), seen.code), ("ok", "ok", 0));
    let text = seen.finding("keepalive")["text"].as_str().unwrap();
    assert!(text.starts_with("a Unix socket"), "{text}");
    // Over TCP the server has what we asked for.
    let seen = check(&url(&server)).await;
    let text = seen.finding("keepalive")["text"].as_str().unwrap();
    assert!(text.contains("25 s"), "{text}");
}

#[tokio::test]
async fn every_check_is_documented_and_nothing_else() {
    let page = include_str!("../../../docs/check.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let documented: Vec<&str> = rows.map(|(check, _)| check).collect();
    let server = server(20).await;
    let seen = super::fallback::check_with_fallback(&server).await;
    let shown: Vec<&str> =
        seen.findings().iter().map(|finding| finding["check"].as_str().unwrap()).collect();
    // The last ones are of sources beside the server, each of which is seen in `sources`.
    let beside = ["log", "probe", "pooler", "app_pool", "overcommit"];
    assert_eq!(documented, [shown, beside.to_vec()].concat());
    assert_eq!(seen.json["version"], "1");
}

#[tokio::test]
async fn who_is_not_there_or_not_let_in() {
    let mut server = server(20).await;
    let wrong = |seen: &Checked, words: &str| {
        assert_eq!((seen.troubles(), seen.code), (vec!["wrong reach".to_owned()], 4));
        let text = seen.finding("reach")["text"].as_str().unwrap();
        assert!(text.contains(words), "{text}");
    };
    wrong(&check(&server.url("nobody", "postgres")).await, "role \"nobody\" does not exist");
    wrong(&check(&server.url("plimsoll", "nowhere")).await, "\"nowhere\" does not exist");
    wrong(&check(&format!("{}?sslmode=require", url(&server))).await, "does not support TLS");
    server.stop(super::Mode::Immediate).await.unwrap();
    wrong(&check(&url(&server)).await, "refused");
}

#[tokio::test]
async fn at_a_server_that_hangs_one_login_is_tried_and_no_second() {
    let server = server(20).await;
    server.signal_postmaster(Signal::STOP).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = format!(
        "[poll]\ntimeout = \"200ms\"\n[[targets]]\nname = \"db\"\npostgres = \"{}\"\n",
        url(&server)
    );
    std::fs::write(file.path(), settings).unwrap();
    let seen = check_with(&["--config", file.path().to_str().unwrap()]).await;
    server.signal_postmaster(Signal::CONT).unwrap();
    assert_eq!((seen.troubles(), seen.code), (vec!["wrong reach".to_owned()], 4));
    let text = seen.finding("reach")["text"].as_str().unwrap();
    assert!(text.contains("was not answered"), "{text}");

    // What counts connections instead of answering them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut accepted = Vec::new();
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => accepted.push(stream),
                // All have gone.
                true = async { all_ended(&mut accepted).await } => return accepted.len(),
            }
        }
    });
    let settings = format!(
        "[poll]\ntimeout = \"200ms\"\n[[targets]]\nname = \"db\"\npostgres = \
         \"postgresql://plimsoll@{address}/postgres\"\n"
    );
    std::fs::write(file.path(), settings).unwrap();
    let seen = check_with(&["--config", file.path().to_str().unwrap()]).await;
    assert_eq!(seen.code, 4);
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), 1);
}

/// Whether there was a connection and each was closed by its client.
async fn all_ended(streams: &mut [TcpStream]) -> bool {
    if streams.is_empty() {
        return std::future::pending().await;
    }
    for stream in streams {
        let mut said = Vec::new();
        drop(stream.read_to_end(&mut said).await);
    }
    true
}

#[tokio::test]
async fn a_pooler_in_the_way_is_no_target() {
    let server = server(20).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(pooler(server.port(), listener));
    let seen = check(&format!("postgresql://plimsoll@{address}/postgres")).await;
    let finding = seen.finding("reach");
    assert!(finding["text"].as_str().unwrap().starts_with("a pooler answers"), "{finding}");
    assert_eq!(seen.code, 4);
}

#[tokio::test]
async fn a_pgbouncer_in_the_way_is_no_target() {
    let server = server(20).await;
    for (ignored, mode) in PGBOUNCERS {
        let bouncer = bouncer_before(&server, "plimsoll", ignored, mode).await;
        for time in ["first", "second"] {
            if time == "second" {
                // What a client that was killed leaves in a connection that the pooler keeps: its
                // statements, by the names that ours have.
                let login = bouncer.url("plimsoll", "postgres").parse().unwrap();
                let client = Session::open(&login).await.unwrap();
                for number in 0..3 {
                    execute(&client, &format!("PREPARE s{number} AS SELECT 1")).await;
                }
            }
            let seen = check(&bouncer.url("plimsoll", "postgres")).await;
            let finding = seen.finding("reach");
            let text = finding["text"].as_str().unwrap();
            let case = format!("{time}, {mode}, {ignored:?}: {finding}");
            assert!(text.contains("a pooler answers at this address"), "{case}");
            assert!(finding["hint"].as_str().unwrap().contains("not PgBouncer"), "{case}");
            assert_eq!((seen.troubles(), seen.code), (vec!["wrong reach".to_owned()], 4));
        }
    }
}

#[tokio::test]
async fn several_targets_and_one_of_them() {
    let server = server(20).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = format!(
        "[[targets]]\nname = \"gone\"\npostgres = \"postgresql://plimsoll@127.0.0.1:1/postgres\"\n\
         [[targets]]\nname = \"db\"\npostgres = \"{}\"\n",
        url(&server)
    );
    std::fs::write(file.path(), settings).unwrap();
    let config = file.path().to_str().unwrap();
    let seen = check_with(&["--config", config]).await;
    let targets = seen.json["targets"].as_array().unwrap();
    let names: Vec<_> = targets.iter().map(|target| target["name"].as_str().unwrap()).collect();
    assert_eq!((names, seen.code), (vec!["gone", "db"], 4));
    let seen = check_with(&["--config", config, "--target", "db"]).await;
    assert_eq!((seen.troubles(), seen.code), (vec![ALWAYS.to_owned()], 0));
    let none = ["check", "--config", config, "--target", "none", "--state-dir", "/nowhere"];
    let ended = run(&none, &[]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert_eq!(ended.stderr, "error: --target: no target is called none\n");
}
