//! TLS to a real server, with certificates of an authority of our own.
//!
//! The keys in `tls/` are good for nothing else: the authority's own key was thrown away.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use plimsoll::drill::server::Server;
use plimsoll_core::reading::FailureKind;

use super::{Watch, execute, server, settings, until_true};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/postgres/tls").join(name)
}

/// Turns TLS on; the watcher may come in with nothing else.
async fn server_with_tls() -> Server {
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
        ("localhost", verify("other-ca.crt"), "UnknownIssuer"),
        ("localhost", "sslmode=verify-full".to_owned(), "UnknownIssuer"),
        ("no-such-host.invalid", verify("ca.crt"), "not valid for name"),
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
