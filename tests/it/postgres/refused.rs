//! Logins that a server refuses, and roles that it lets see nothing: each with what to do.

use plimsoll::collect::conninfo::ConnInfo;
use plimsoll::collect::postgres::SourceSettings;
use plimsoll::drill::server::Server;
use plimsoll_core::reading::{FailureKind, Refusal};
use plimsoll_core::settings::{PasswordFrom, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{WATCHER, Watch, execute, server, settings};
use crate::pooler::pooler;

async fn require_passwords(server: &Server) {
    let superuser = server.superuser().await.unwrap();
    // 13 would still make it an MD5 one.
    execute(&superuser, "SET password_encryption = 'scram-sha-256'").await;
    execute(&superuser, "ALTER ROLE watcher PASSWORD 'right-canary'").await;
    let hba = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    execute(&superuser, "SELECT pg_reload_conf()").await;
}

#[tokio::test]
async fn a_wrong_password_is_not_allowed_and_not_shown() {
    let server = server(20, &[]).await;
    require_passwords(&server).await;
    let url = server.url("watcher:wrong-canary", "postgres").replace("%3A", ":");
    let watch = Watch::start(settings(&url));
    let failure = watch.failure(FailureKind::NotAllowed).await;
    assert_eq!(failure.sqlstate.as_deref(), Some("28P01"));
    assert!(failure.text.contains("password authentication failed"), "{failure:?}");
    assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    let watch = Watch::start(settings(&server.url(WATCHER, "postgres")));
    let failure = watch.failure(FailureKind::NotAllowed).await;
    assert!(failure.text.contains("the server asks for a password"), "{failure:?}");
}

#[tokio::test]
async fn a_password_file_is_read_at_every_login() {
    let server = server(20, &[]).await;
    require_passwords(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let conninfo = ConnInfo::parse(&Secret::new(server.url(WATCHER, "postgres"))).unwrap();
    let password = Some(PasswordFrom::File(file.clone()));
    let start = SourceSettings { conninfo, password, ..settings("postgresql://db") };
    let watch = Watch::start(start);
    let failure = watch.failure(FailureKind::NotAllowed).await;
    assert!(failure.text.contains(file.to_str().unwrap()), "{failure:?}");
    std::fs::write(&file, "wrong-canary\n").unwrap();
    let wrong = |f: &plimsoll_core::reading::Failure| f.sqlstate.as_deref() == Some("28P01");
    let said = watch.until("28P01", |d| d.outcome.as_ref().is_err_and(wrong)).await;
    assert!(!format!("{said:?}").contains("canary"), "{said:?}");
    std::fs::write(&file, "right-canary\r\nand more\n").unwrap();
    watch.seen().await;
}

#[tokio::test]
async fn a_role_without_pg_monitor_is_told_how_to_get_it() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let watch = Watch::start(settings(&server.url("app", "postgres")));
    let delivery = watch.next().await;
    let failure = delivery.outcome.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotAllowed);
    assert!(failure.text.ends_with("run: GRANT pg_monitor TO \"app\";"), "{failure:?}");
    // The statement that is said is the one that helps.
    let fix = failure.text.split_once("run: ").unwrap().1;
    execute(&superuser, fix).await;
    assert_eq!(watch.seen().await.slots().used, 2);
}

#[tokio::test]
async fn a_server_that_tracks_nothing_is_told_how_to_track() {
    let server = server(20, &[("track_activities", "off")]).await;
    let watch = Watch::of(&server);
    let failure = watch.failure(FailureKind::NotAllowed).await;
    assert!(failure.text.contains("track_activities = on"), "{failure:?}");
}

#[tokio::test]
async fn each_refusal_for_want_of_a_connection_has_its_own_reason() {
    let server = server(12, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let _other = server.connect(WATCHER, "postgres").await.unwrap();
    let reason = async |expected: Refusal| {
        let watch = Watch::of(&server);
        let delivery = watch.next().await;
        let failure = delivery.outcome.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused(expected), "{failure:?}");
        assert_eq!(delivery.happened.refused[0].reason, expected);
    };
    execute(&superuser, "ALTER ROLE watcher CONNECTION LIMIT 1").await;
    reason(Refusal::RoleLimit).await;
    execute(&superuser, "ALTER ROLE watcher CONNECTION LIMIT -1").await;
    execute(&superuser, "ALTER DATABASE postgres CONNECTION LIMIT 2").await;
    reason(Refusal::DatabaseLimit).await;
    execute(&superuser, "ALTER DATABASE postgres CONNECTION LIMIT -1").await;
    let _held = server.fill("postgres", "admin", 7).await.unwrap();
    reason(Refusal::ReservedForSuperusers).await;
    // The backend of the refused login may hold its slot for a moment longer.
    let mut more = Vec::new();
    let filling = async {
        while more.len() < 3 {
            more.extend(server.connect("postgres", "postgres").await);
        }
    };
    tokio::time::timeout(super::DEADLINE, filling).await.unwrap();
    reason(Refusal::AllSlotsTaken).await;
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_not_allowed() {
    let server = server(20, &[]).await;
    let watch = Watch::start(settings(&server.url(WATCHER, "nowhere")));
    let failure = watch.failure(FailureKind::NotAllowed).await;
    assert_eq!(failure.sqlstate.as_deref(), Some("3D000"));
}

#[tokio::test]
async fn a_pooler_in_the_way_is_found_by_the_key_of_the_backend() {
    let server = server(20, &[]).await;
    for mode in ["disable", "prefer"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(pooler(server.port(), listener));
        let url = format!("postgresql://watcher@{address}/postgres?sslmode={mode}");
        let watch = Watch::start(settings(&url));
        let failure = watch.failure(FailureKind::Unsupported).await;
        assert!(failure.text.starts_with("a pooler answers"), "{failure:?}");
    }
}

/// Lets everybody in as the server does, and is gone: a proxy whose server is.
async fn lets_in_and_closes(port: u16, listener: TcpListener) {
    const READY: &[u8] = b"Z\0\0\0\x05I";
    while let Ok((mut client, _)) = listener.accept().await {
        let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut startup = vec![0; 4096];
        let count = client.read(&mut startup).await.unwrap();
        server.write_all(&startup[..count]).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(READY) && server.read_buf(&mut said).await.unwrap() > 0 {}
        client.write_all(&said).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_lets_us_in_and_is_gone_is_said_to_be_stopped() {
    let server = server(20, &[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(lets_in_and_closes(server.port(), listener));
    let watch = Watch::start(settings(&format!("postgresql://watcher@{address}/?sslmode=disable")));
    for _ in 0..2 {
        let failure = watch.failure(FailureKind::Stopped).await;
        let expected = "the connection was lost before a poll was answered";
        assert!(failure.text.starts_with(expected), "{failure:?}");
    }
}
