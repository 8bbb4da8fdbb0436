//! TLS to a real server, with certificates of an authority of our own.
//!
//! The keys in `tls/` are good for nothing else: the authority's own key was thrown away.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use plimsoll::drill::server::Server;
use plimsoll_core::reading::FailureKind;

use super::certificates::{outcome, reload, server_with};
use super::openssl::{EC, Workshop};
use super::{Watch, execute, server, settings, until_true};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/postgres/tls").join(name)
}

/// Turns TLS on; the watcher may come in with nothing else.
pub(crate) async fn server_with_tls() -> Server {
    let server = server(20, &[]).await;
    let folder = server.data_dir();
    let owner = fs::metadata(&folder).unwrap();
    for name in ["server.crt", "server.key"] {
        let path = folder.join(name);
        fs::copy(fixture(name), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let hba = "local all postgres trust\nhostssl all watcher 127.0.0.1/32 trust\n";
    fs::write(folder.join("pg_hba.conf"), hba).unwrap();
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER SYSTEM SET ssl = on").await;
    execute(&superuser, "SELECT pg_reload_conf()").await;
    until_true(&superuser, "SELECT current_setting('ssl') = 'on'").await;
    server
}

#[tokio::test]
async fn each_sslmode_checks_what_it_promises() {
    let server = server_with_tls().await;
    let start = |host: &str, mode: &str| {
        let port = server.port();
        // The name must resolve the same everywhere.
        let url = format!("host={host} hostaddr=127.0.0.1 port={port} user=watcher {mode}");
        Watch::start(settings(&url))
    };
    let verify = |ca: &str| format!("sslmode=verify-full sslrootcert={}", fixture(ca).display());
    let accepted = [
        ("localhost", "sslmode=prefer".to_owned()),
        ("localhost", "sslmode=require".to_owned()),
        ("no-such-host.invalid", "sslmode=require".to_owned()),
        ("localhost", verify("ca.crt")),
    ];
    for (host, mode) in accepted {
        let delivery = start(host, &mode).next().await;
        assert!(delivery.outcome.is_ok(), "{mode}: {:?}", delivery.outcome);
    }
    // In its words since 14.
    let no_tls = if crate::major::major() < 14 { "SSL off" } else { "no encryption" };
    let refused = [
        ("localhost", "sslmode=disable".to_owned(), no_tls),
        (
            "localhost",
            verify("other-ca.crt"),
            "other-ca.crt; name the certificate of its authority",
        ),
        ("localhost", "sslmode=verify-full".to_owned(), "not of the authorities"),
        ("no-such-host.invalid", verify("ca.crt"), "and not for no-such-host.invalid"),
        ("localhost", verify("missing.crt"), "missing.crt"),
        ("localhost", verify("server.key"), "holds no certificate"),
    ];
    for (host, mode, said) in refused {
        let failure = start(host, &mode).failure(FailureKind::NotAllowed).await;
        assert!(failure.text.contains(said), "{mode}: {failure:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_not_talked_to_where_tls_is_required() {
    let server = server(20, &[]).await;
    let url = format!("{}?sslmode=require", server.url("watcher", "postgres"));
    let failure = Watch::start(settings(&url)).failure(FailureKind::NotAllowed).await;
    assert!(failure.text.contains("server does not support TLS"), "{failure:?}");
}

/// `allow` tries without TLS first and `prefer` with it; each tries the other if `pg_hba.conf`
/// wants it, and no mode that promises TLS does.
#[tokio::test]
async fn allow_and_prefer_do_what_the_server_wants() {
    let server = server_with_tls().await;
    let cases = [
        ("hostssl", [("allow", "tls"), ("prefer", "tls"), ("require", "tls")]),
        (
            "hostnossl",
            [("allow", "plain"), ("prefer", "plain"), ("require", "no pg_hba.conf entry")],
        ),
        ("host", [("allow", "plain"), ("prefer", "tls"), ("disable", "plain")]),
    ];
    for (kind, modes) in cases {
        let hba = format!("local all postgres trust\n{kind} all watcher 127.0.0.1/32 trust\n");
        fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
        let superuser = server.superuser().await.unwrap();
        reload(&superuser).await;
        superuser.close().await;
        for (mode, expected) in modes {
            let seen = outcome(&server, &format!("host=localhost sslmode={mode}")).await;
            assert!(seen.contains(expected), "{kind}, {mode}: {seen}");
        }
    }
    // A wrong password is wrong either way, and is not sent twice.
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER ROLE watcher PASSWORD 'right'").await;
    let hba = "local all postgres trust\nhost all watcher 127.0.0.1/32 scram-sha-256\n";
    fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    reload(&superuser).await;
    let seen = outcome(&server, "host=localhost sslmode=prefer password=canary").await;
    assert_eq!(seen.matches("password authentication failed").count(), 1, "{seen}");
    assert!(!seen.contains("canary"), "{seen}");
}

/// We broke it off ourselves, and said what it needs.
fn is_unbound(seen: &str) {
    assert!(seen.starts_with("not_allowed: "), "{seen}");
    assert!(seen.contains("server did not use channel binding"), "{seen}");
    let needs = "channel_binding=require needs TLS, a password stored as SCRAM, and a certificate \
                 that is signed with a hash (RSA or ECDSA, not ed25519)";
    assert!(seen.contains(needs), "{seen}");
    assert!(!seen.contains("canary"), "{seen}");
}

#[tokio::test]
async fn a_login_without_a_password_or_with_an_old_one_is_not_bound() {
    let server = server_with_tls().await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "SET password_encryption = 'md5'").await;
    execute(&superuser, "ALTER ROLE watcher PASSWORD 'right-canary'").await;
    for method in ["trust", "md5", "password"] {
        let hba = format!("local all postgres trust\nhostssl all watcher 127.0.0.1/32 {method}\n");
        fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
        reload(&superuser).await;
        let login = "host=localhost password=right-canary sslmode=require channel_binding";
        assert_eq!(outcome(&server, &format!("{login}=prefer")).await, "tls", "{method}");
        is_unbound(&outcome(&server, &format!("{login}=require")).await);
    }
}

#[tokio::test]
async fn to_a_certificate_that_is_signed_by_ed25519_nothing_can_be_bound() {
    // What counts is how the certificate is signed, and not what its own key is.
    for (authority, key, is_bound) in [(EC, "ed25519", true), ("ed25519", EC, false)] {
        let workshop = Workshop::new();
        workshop.openssl(&format!(
            "req -new -x509 -nodes -newkey {authority} -keyout root.key -out root.crt -subj /CN=root"
        ));
        workshop.signed("server", "/CN=localhost", key, "subjectAltName=DNS:localhost");
        let hba = "hostssl all watcher 127.0.0.1/32 scram-sha-256";
        let server = server_with(&workshop, "server", hba).await;
        let superuser = server.superuser().await.unwrap();
        execute(&superuser, "SET password_encryption = 'scram-sha-256'").await;
        execute(&superuser, "ALTER ROLE watcher PASSWORD 'right-canary'").await;
        superuser.close().await;
        let login = "host=localhost password=right-canary sslmode=require channel_binding";
        assert_eq!(outcome(&server, &format!("{login}=prefer")).await, "tls", "{authority}");
        let seen = outcome(&server, &format!("{login}=require")).await;
        if is_bound {
            assert_eq!(seen, "tls", "{authority}");
        } else {
            is_unbound(&seen);
        }
    }
}

#[tokio::test]
async fn a_password_is_bound_to_its_connection() {
    let server = server_with_tls().await;
    let superuser = server.superuser().await.unwrap();
    // Up to 13 it would be stored as MD5.
    execute(&superuser, "SET password_encryption = 'scram-sha-256'").await;
    execute(&superuser, "ALTER ROLE watcher PASSWORD 'right-canary'").await;
    let hba = "local all postgres trust\nlocal all watcher scram-sha-256\n\
               host all watcher 127.0.0.1/32 scram-sha-256\n";
    fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    reload(&superuser).await;
    superuser.close().await;
    let login = |more: &str| format!("host=localhost password=right-canary {more}");
    for binding in ["disable", "prefer", "require"] {
        let more = format!("sslmode=require channel_binding={binding}");
        assert_eq!(outcome(&server, &login(&more)).await, "tls", "{binding}");
    }
    is_unbound(&outcome(&server, &login("sslmode=disable channel_binding=require")).await);
    // There is no TLS on a socket, so that nothing can be bound to it; sslmode is ignored there.
    let socket = |binding: &str| {
        let (folder, port) = (server.socket_dir().display(), server.port());
        let text = format!(
            "host={folder} port={port} user=watcher password=right-canary sslmode=require \
             channel_binding={binding}"
        );
        Watch::start(settings(&text))
    };
    assert!(socket("prefer").next().await.outcome.is_ok());
    let failure = socket("require").failure(FailureKind::NotAllowed).await;
    assert!(failure.text.contains("channel_binding=require needs TLS"), "{failure:?}");
}

/// A server before 17 cannot take TLS without being asked for it.
#[tokio::test]
async fn direct_tls_is_for_17_and_newer() {
    let server = server_with_tls().await;
    let seen = outcome(&server, "host=localhost sslmode=require sslnegotiation=direct").await;
    if crate::major::major() < 17 {
        assert!(seen.contains("sslnegotiation=direct needs PostgreSQL 17"), "{seen}");
    } else {
        assert_eq!(seen, "tls");
    }
}
