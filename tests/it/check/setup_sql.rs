//! The role that `setup-sql` prints: made on a real server as a client sends it, twice; quiet in a
//! log that takes everything; and with nothing wrong about it.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::collect::conninfo::ConnInfo;
use plimsoll::collect::mailbox::Mailbox;
use plimsoll::collect::postgres::{Source, SourceSettings};
use plimsoll::drill::server::{Mode, Server};
use plimsoll_core::reading::postgres::Observation;
use plimsoll_core::settings::{Fallback, Secret};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;

async fn printed(arguments: &[&str]) -> String {
    let ended = run(&[&["setup-sql"], arguments].concat(), &[]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{}", ended.stdout);
    ended.stdout
}

/// Runs a script as psql does, a statement at a time, with Debian's or the server's own.
async fn psql(server: &Server, script: &str) {
    let mut command = std::process::Command::new("psql");
    command.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname"]);
    command.arg(server.socket_url("postgres", "postgres"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("psql: `apt-get install postgresql-client`");
    let script = script.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A grant that is there already is worth a notice, in other words from 16 on.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_known = |line: &str| {
        let known = ["already a member of role", "already been granted membership"];
        line.is_empty() || known.iter().any(|words| line.contains(words))
    };
    assert!(said.lines().all(is_known), "{said}");
}

/// Everything that is set for a role.
async fn role_of(server: &Server, role: &str) -> String {
    let superuser = server.superuser().await.unwrap();
    let sql = "SELECT concat_ws(' ', rolsuper, rolcreatedb, rolcreaterole, rolreplication,
            rolbypassrls, rolinherit, rolcanlogin, rolconnlimit, rolconfig, (
                SELECT array_agg(roleid::regrole::text ORDER BY roleid::regrole::text)
                FROM pg_auth_members WHERE member = r.oid))
        FROM pg_roles AS r WHERE rolname = $1";
    superuser.query_one(sql, &[&role]).await.unwrap().get(0)
}

#[tokio::test]
async fn scripts() {
    insta::assert_snapshot!(printed(&["--version", "15"]).await, @r"
    -- The role of Plimsoll on PostgreSQL 15. Run it as a superuser; on a managed service as
    -- the administrator's role, where some statements at the end may be refused.

    DO $plimsoll$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'plimsoll') THEN
            CREATE ROLE plimsoll;
        END IF;
    END
    $plimsoll$;

    -- A connection and its successor, a check beside them, and what has not ended yet.
    ALTER ROLE plimsoll LOGIN INHERIT CONNECTION LIMIT 5;

    -- Without a password nobody can log in but where pg_hba.conf asks for none. In psql:
    --   \password plimsoll

    -- To see the sessions of others; without it they are hidden.
    GRANT pg_monitor TO plimsoll;

    -- PostgreSQL 15 keeps no slots for such a role: a connection that is cut while the
    -- server is full does not come back. 16 and later can (pg_use_reserved_connections).

    -- A poll a second would otherwise be millions of lines a week in a server log that takes
    -- statements. These need a superuser, on 15 and later also: GRANT SET ON PARAMETER … TO ….
    ALTER ROLE plimsoll SET log_statement = 'none';
    ALTER ROLE plimsoll SET log_min_duration_statement = '-1';
    ALTER ROLE plimsoll SET log_duration = 'off';
    ALTER ROLE plimsoll SET log_min_duration_sample = '-1';
    ALTER ROLE plimsoll SET log_transaction_sample_rate = '0';
    ALTER ROLE plimsoll SET log_parser_stats = 'off';
    ALTER ROLE plimsoll SET log_planner_stats = 'off';
    ALTER ROLE plimsoll SET log_executor_stats = 'off';
    ALTER ROLE plimsoll SET log_statement_stats = 'off';
    -- Where these libraries are loaded:
    -- ALTER ROLE plimsoll SET auto_explain.log_min_duration = '-1';
    -- ALTER ROLE plimsoll SET pgaudit.log = 'none';
    ");
    let arguments =
        ["--version", "16", "--role", "O'Brien", "--reserved", "--fallback", "replication"];
    insta::assert_snapshot!(printed(&arguments).await, @r#"
    -- The role of Plimsoll on PostgreSQL 16. Run it as a superuser; on a managed service as
    -- the administrator's role, where some statements at the end may be refused.

    DO $plimsoll$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'O''Brien') THEN
            CREATE ROLE "O'Brien";
        END IF;
    END
    $plimsoll$;

    -- A connection and its successor, a check beside them, and what has not ended yet.
    ALTER ROLE "O'Brien" LOGIN INHERIT CONNECTION LIMIT 5;

    -- Without a password nobody can log in but where pg_hba.conf asks for none. In psql:
    --   \password "O'Brien"

    -- To see the sessions of others; without it they are hidden.
    GRANT pg_monitor TO "O'Brien";

    -- To get in again when ordinary slots are gone. It has an effect only while
    -- reserved_connections is above 0, which needs a restart of the server.
    GRANT pg_use_reserved_connections TO "O'Brien";
    ALTER SYSTEM SET reserved_connections = 2;

    -- For `fallback = "replication"`: a replication connection takes no ordinary slot. The
    -- risk: who has this role's password can read every change of every database from
    -- the write-ahead log, copy the whole cluster, and fill the disk with a slot of it.
    -- It also needs a free one of max_wal_senders.
    ALTER ROLE "O'Brien" REPLICATION;

    -- A poll a second would otherwise be millions of lines a week in a server log that takes
    -- statements. These need a superuser, on 15 and later also: GRANT SET ON PARAMETER … TO ….
    ALTER ROLE "O'Brien" SET log_statement = 'none';
    ALTER ROLE "O'Brien" SET log_min_duration_statement = '-1';
    ALTER ROLE "O'Brien" SET log_duration = 'off';
    ALTER ROLE "O'Brien" SET log_min_duration_sample = '-1';
    ALTER ROLE "O'Brien" SET log_transaction_sample_rate = '0';
    ALTER ROLE "O'Brien" SET log_parser_stats = 'off';
    ALTER ROLE "O'Brien" SET log_planner_stats = 'off';
    ALTER ROLE "O'Brien" SET log_executor_stats = 'off';
    ALTER ROLE "O'Brien" SET log_statement_stats = 'off';
    -- Where these libraries are loaded:
    -- ALTER ROLE "O'Brien" SET auto_explain.log_min_duration = '-1';
    -- ALTER ROLE "O'Brien" SET pgaudit.log = 'none';
    "#);
}

#[tokio::test]
async fn a_version_is_asked_for_and_bounded() {
    let server = server(20).await;
    let version = major().to_string();
    let asked = printed(&["--postgres", &url(&server), "--role", "other"]).await;
    assert_eq!(asked, printed(&["--version", &version, "--role", "other"]).await);
    let refused = async |arguments: &[&str], code| {
        let ended = run(&[&["setup-sql"], arguments].concat(), &[("HOME", "/nowhere")]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{}", ended.stderr);
    };
    refused(&["--version", "12"], 2).await;
    refused(&["--version", "16", "--role", "pg_mine"], 2).await;
    refused(&["--postgres", &server.url("nobody", "postgres")], 4).await;
    refused(&[], 3).await;
}

#[tokio::test]
async fn the_role_has_what_it_needs_and_a_second_run_changes_nothing() {
    for name in ["plimsoll", "O'Brien \"the\" $plimsoll$ \\ watcher", "user"] {
        let server = bare_server(20, &[]).await;
        let script = printed(&["--version", &major().to_string(), "--role", name]).await;
        psql(&server, &script).await;
        let made = role_of(&server, name).await;
        let rights = made.split('{').next().unwrap();
        assert_eq!(rights, "f f f f f t t 5 ", "{made}");
        let member =
            if major() < 16 { "{pg_monitor}" } else { "{pg_monitor,pg_use_reserved_connections}" };
        assert!(made.ends_with(member), "{made}");
        psql(&server, &script).await;
        assert_eq!(role_of(&server, name).await, made);
        // Any client can run it, as one text too, and it mends a role that is there.
        let superuser = server.superuser().await.unwrap();
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        execute(&superuser, &format!("ALTER ROLE {quoted} NOLOGIN NOINHERIT CONNECTION LIMIT 1"))
            .await;
        execute(&superuser, &script).await;
        assert_eq!(role_of(&server, name).await, made);
        let seen = check(&server.url(name, "postgres")).await;
        assert_eq!((seen.troubles(), seen.code), (vec![ALWAYS.to_owned()], 0), "{}", seen.json);
    }
}

#[tokio::test]
async fn with_slots_reserved_and_the_server_started_anew_nothing_is_left_to_say() {
    let mut server = bare_server(20, &[]).await;
    let version = major().to_string();
    let script = printed(&["--version", &version, "--reserved", "--fallback", "replication"]).await;
    psql(&server, &script).await;
    assert!(role_of(&server, "plimsoll").await.starts_with("f f f t f t t 5 "));
    server.restart(Mode::Fast).await.unwrap();
    let seen = check(&url(&server)).await;
    let left: &[&str] = if major() < 16 { &[ALWAYS] } else { &[] };
    assert_eq!(
        (seen.troubles().as_slice(), seen.code),
        (left.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().as_slice(), 0)
    );
}

/// What a server logged of what a role did once it was logged in, or was refused.
fn logged(server: &Server, role: &str) -> Vec<String> {
    let of_logins = [
        "connection received",
        "connection authenticated",
        "connection authorized",
        "too many connections for role",
    ];
    let lines = server.log();
    let of_role = lines.lines().filter(|line| line.contains(&format!("[{role}]")));
    let of_work = of_role.filter(|line| !of_logins.iter().any(|words| line.contains(words)));
    of_work.map(str::to_owned).collect()
}

/// Readings of a source as the daemon runs it, while the server logs all that it can.
async fn read(server: &Server, role: &str, readings: u32, fallback: Fallback) {
    let settings = SourceSettings {
        conninfo: ConnInfo::parse(&Secret::new(server.url(role, "postgres"))).unwrap(),
        password: None,
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(5),
        budget: 1.0,
        fallback,
    };
    let mailbox = Mailbox::new();
    let (_trouble, in_trouble) = watch::channel(false);
    let (_settings, told) = watch::channel(Arc::new(settings));
    let source = Source::new(told, mailbox.clone(), in_trouble);
    let mut tasks = JoinSet::new();
    tasks.spawn(source.run(std::future::pending()));
    let reading = async {
        let mut good = 0;
        while good < readings {
            mailbox.arrived().await;
            let outcome = mailbox.take().unwrap().outcome;
            let is_walsender = |seen: &Observation| seen.fallback.is_some();
            let wanted = fallback == Fallback::Replication;
            good += u32::from(outcome.is_ok_and(|seen| is_walsender(&seen) == wanted));
        }
    };
    tokio::time::timeout(crate::daemon::DEADLINE, reading).await.unwrap();
    tasks.shutdown().await;
}

#[tokio::test]
async fn nothing_that_the_role_does_is_logged() {
    let loud = [
        ("log_line_prefix", "[%u] "),
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("log_duration", "on"),
        ("log_min_duration_sample", "0"),
        ("log_transaction_sample_rate", "1"),
        ("log_parser_stats", "on"),
        ("log_planner_stats", "on"),
        ("log_executor_stats", "on"),
        ("log_connections", "on"),
    ];
    let server = bare_server(20, &loud).await;
    let version = major().to_string();
    let script = printed(&["--version", &version, "--fallback", "replication"]).await;
    psql(&server, &script).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "CREATE ROLE loud LOGIN REPLICATION IN ROLE pg_monitor").await;
    // Ten readings are a second of a daemon that is in a hurry. A role that was made without the
    // script shows that the log takes everything.
    read(&server, "loud", 10, Fallback::None).await;
    read(&server, "plimsoll", 30, Fallback::None).await;
    // What it does to check is logged no more than what it does to read.
    let seen = check(&url(&server)).await;
    assert_eq!(seen.grade("statement_log"), "ok");
    let (loud, ours) = (logged(&server, "loud").len(), logged(&server, "plimsoll"));
    eprintln!(
        "lines in the server's log: {loud} of 10 readings without the settings, {} of 30 with",
        ours.len()
    );
    assert!(40 <= loud, "{loud}");
    assert!(ours.is_empty(), "{}", ours.join("\n"));
    // And as a walsender, which a role without ordinary connections is.
    for role in ["loud", "plimsoll"] {
        execute(&superuser, &format!("ALTER ROLE {role} CONNECTION LIMIT 0")).await;
        read(&server, role, 10, Fallback::Replication).await;
    }
    let (louder, ours) = (logged(&server, "loud").len(), logged(&server, "plimsoll"));
    assert!(loud + 10 <= louder, "{loud} {louder}");
    assert!(ours.is_empty(), "{}", ours.join("\n"));
}
