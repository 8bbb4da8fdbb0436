//! Every way in which a password comes to a login, and what is said when it does not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use plimsoll::collect::conninfo::ConnInfo;
use plimsoll::collect::postgres::SourceSettings;
use plimsoll::drill::server::{Mode, Server};
use plimsoll_core::reading::FailureKind;
use plimsoll_core::reading::postgres::Observation;
use plimsoll_core::settings::{PasswordFrom, Secret, ServiceFile, Surroundings};

use super::certificates::reload;
use super::{WATCHER, Watch, execute, server, settings};

async fn server_with_passwords() -> Server {
    let server = server(20, &[]).await;
    change_password(&server, "first-canary").await;
    let hba = "local all postgres trust\nlocal all watcher scram-sha-256\n\
               host all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    let superuser = server.superuser().await.unwrap();
    reload(&superuser).await;
    server
}

async fn change_password(server: &Server, password: &str) {
    let superuser = server.superuser().await.unwrap();
    // Up to 13 it would be stored as MD5.
    let scram = "SET password_encryption = 'scram-sha-256'";
    execute(&superuser, &format!("{scram}; ALTER ROLE watcher PASSWORD '{password}'")).await;
}

fn around(home: &Path, variables: &[(&str, &str)], services: &str) -> Surroundings {
    let variables = variables.iter().map(|(name, v)| ((*name).to_owned(), Secret::new(*v)));
    let text = Ok(Some(Secret::new(services)));
    Surroundings {
        variables: variables.collect::<BTreeMap<_, _>>(),
        home: Some(home.to_owned()),
        service_files: vec![ServiceFile { path: "services".into(), text }],
    }
}

fn from(text: &str, around: &Surroundings, password: Option<PasswordFrom>) -> SourceSettings {
    let conninfo = ConnInfo::parse_in(&Secret::new(text), around).unwrap();
    SourceSettings { conninfo, password, ..settings("host=db") }
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_password_comes_in_each_way() {
    let server = server_with_passwords().await;
    let home = tempfile::tempdir().unwrap();
    let empty = around(home.path(), &[], "");
    let port = server.port();
    let place = format!("host=127.0.0.1 port={port} user={WATCHER}");
    let file = home.path().join("password");
    write(&file, "first-canary\n", 0o600);
    let script = home.path().join("token.sh");
    write(&script, "#!/bin/sh\necho \"$1\"\n", 0o700);
    let command = vec![Secret::new(script.to_str().unwrap()), Secret::new("first-canary")];
    let of_env = around(home.path(), &[("PGPASSWORD", "first-canary")], "");
    let service =
        format!("[s]\nhost=127.0.0.1\nport={port}\nuser={WATCHER}\npassword=first-canary\n");
    let of_service = around(home.path(), &[], &service);
    let ways = [
        from(&format!("postgresql://{WATCHER}:first-canary@127.0.0.1:{port}"), &empty, None),
        from(&format!("{place} password=first-canary"), &empty, None),
        from(&place, &empty, Some(PasswordFrom::File(file))),
        from(&place, &empty, Some(PasswordFrom::Command(command))),
        from(&place, &of_env, None),
        from("service=s", &of_service, None),
    ];
    for way in ways {
        let outcome = Watch::start(way.clone()).next().await.outcome;
        assert!(outcome.is_ok(), "{way:?}: {outcome:?}");
    }
    // Everything from the surroundings, and nothing else.
    let port = port.to_string();
    let variables = [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", port.as_str()),
        ("PGUSER", WATCHER),
        ("PGPASSWORD", "first-canary"),
    ];
    let all = from("", &around(home.path(), &variables, ""), None);
    assert!(Watch::start(all).next().await.outcome.is_ok());
}

/// What tokens of managed services do: the old one is refused, the next is there already.
#[tokio::test]
async fn what_rotates_is_looked_up_at_every_login() {
    let mut server = server_with_passwords().await;
    let home = tempfile::tempdir().unwrap();
    let (token, passfile) = (home.path().join("token"), home.path().join(".pgpass"));
    let place = format!("host=127.0.0.1 port={} user={WATCHER}", server.port());
    let command = ["cat", token.to_str().unwrap()].map(Secret::new).to_vec();
    let surroundings = around(home.path(), &[], "");
    let write_both = |password: &str| {
        write(&token, &format!("{password}\n"), 0o600);
        let line = format!("127.0.0.1:{}:*:{WATCHER}:{password}\n", server.port());
        write(&passfile, &line, 0o600);
    };
    write_both("first-canary");
    let watches = [
        Watch::start(from(&place, &surroundings, Some(PasswordFrom::Command(command)))),
        Watch::start(from(&place, &surroundings, None)),
    ];
    let mut before = None;
    for watch in &watches {
        before = Some(watch.seen().await.server.started_at);
    }
    change_password(&server, "second-canary").await;
    write_both("second-canary");
    server.restart(Mode::Fast).await.unwrap();
    for watch in &watches {
        let is_new = |seen: &Observation| before < Some(seen.server.started_at);
        watch.until("the next login", |d| d.outcome.as_deref().is_ok_and(is_new)).await;
    }
}

#[tokio::test]
async fn a_password_file_of_libpq_is_used_only_if_nobody_else_may_read_it() {
    let server = server_with_passwords().await;
    let home = tempfile::tempdir().unwrap();
    let passfile = home.path().join(".pgpass");
    let surroundings = around(home.path(), &[], "");
    let place = format!("host=127.0.0.1 port={} user={WATCHER}", server.port());
    let said = async || {
        let watch = Watch::start(from(&place, &surroundings, None));
        let failure = watch.failure(FailureKind::NotAllowed).await;
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        failure.text
    };
    let missing = said().await;
    assert!(missing.contains("the server asks for a password; set password_file"), "{missing}");
    write(&passfile, "*:*:*:*:first-canary", 0o640);
    let open = said().await;
    assert!(open.contains(".pgpass was not used: others may read it; chmod 0600"), "{open}");
    write(&passfile, "other:*:*:*:first-canary", 0o600);
    let other = said().await;
    assert!(other.contains("has none for this host, port, database and user"), "{other}");
    write(&passfile, "127.0.0.1:*:*:*:wrong-canary", 0o600);
    let wrong = said().await;
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    write(&passfile, "127.0.0.1:*:postgres:watcher:first-canary", 0o600);
    assert!(Watch::start(from(&place, &surroundings, None)).next().await.outcome.is_ok());
    // A socket is called by its folder, here where it is not libpq's own.
    let folder = server.socket_dir().display();
    let socket = format!("host={folder} port={} user={WATCHER}", server.port());
    write(&passfile, &format!("{folder}:*:*:*:first-canary"), 0o600);
    let outcome = Watch::start(from(&socket, &surroundings, None)).next().await.outcome;
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test]
async fn a_program_that_gives_no_password_is_said_so() {
    let server = server_with_passwords().await;
    let home = tempfile::tempdir().unwrap();
    let place = format!("host=127.0.0.1 port={} user={WATCHER}", server.port());
    let surroundings = around(home.path(), &[], "");
    let cases = [
        (
            "echo 'the session has expired' >&2; exit 255",
            "exit status: 255: the session has expired",
        ),
        ("echo canary; echo canary >&2; exit 1", "it repeats what it printed"),
        ("echo wrong-canary", "password authentication failed"),
    ];
    for (script, expected) in cases {
        let command = ["/bin/sh", "-c", script].map(Secret::new).to_vec();
        let way = from(&place, &surroundings, Some(PasswordFrom::Command(command)));
        let failure = Watch::start(way).failure(FailureKind::NotAllowed).await;
        assert!(failure.text.contains(expected), "{failure:?}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}
