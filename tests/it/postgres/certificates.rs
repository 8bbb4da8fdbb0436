//! Which certificates are taken in which `sslmode`, and what is said of those that are not: each
//! recipe as it is found in the PostgreSQL manual and in the wild, made by `openssl`, on a real
//! server.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use plimsoll::drill::server::{Mode, Server, Session};
use plimsoll_core::reading::FailureKind;

use super::openssl::{EC, Workshop, only_for_owner};
use super::{Watch, execute, our_backends, server, settings, until_true};

/// Copies a file into the server's folder, for the server's eyes only.
pub(super) fn put(server: &Server, from: &Path, name: &str) {
    let folder = server.data_dir();
    let owner = fs::metadata(&folder).unwrap();
    let path = folder.join(name);
    fs::copy(from, &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

/// Turns TLS on, with a certificate of the workshop.
pub(super) async fn server_with(workshop: &Workshop, certificate: &str, hba: &str) -> Server {
    let server = server(20, &[]).await;
    put(&server, &workshop.path(&format!("{certificate}.crt")), "server.crt");
    put(&server, &workshop.path(&format!("{certificate}.key")), "server.key");
    if workshop.path("client-root.crt").exists() {
        put(&server, &workshop.path("client-root.crt"), "client-root.crt");
    }
    let hba = format!("local all postgres trust\n{hba}\n");
    fs::write(server.data_dir().join("pg_hba.conf"), hba).unwrap();
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER SYSTEM SET ssl = on").await;
    if workshop.path("client-root.crt").exists() {
        execute(&superuser, "ALTER SYSTEM SET ssl_ca_file = 'client-root.crt'").await;
    }
    execute(&superuser, "SELECT pg_reload_conf()").await;
    until_true(&superuser, "SELECT current_setting('ssl') = 'on'").await;
    superuser.close().await;
    server
}

/// Returns when the postmaster reads by its files as they are now. It begins no login while it
/// reads them, and tells its sessions.
pub(crate) async fn reload(superuser: &Session) {
    let sql = "SELECT pg_conf_load_time()::text, pg_reload_conf()";
    let before: String = superuser.query_one(sql, &[]).await.unwrap().get(0);
    until_true(superuser, &format!("SELECT pg_conf_load_time() > '{before}'")).await;
}

/// `tls` or `plain` as the server sees it, or what is said.
pub(super) async fn outcome(server: &Server, login: &str) -> String {
    let text = format!("hostaddr=127.0.0.1 port={} user=watcher {login}", server.port());
    let watch = Watch::start(settings(&text));
    match watch.next().await.outcome {
        Ok(_) => {
            let superuser = server.superuser().await.unwrap();
            let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = $1";
            let pid = our_backends(&superuser).await[0];
            let tls: bool = superuser.query_one(sql, &[&pid]).await.unwrap().get(0);
            drop(watch);
            let gone = "SELECT count(*) = 0 FROM pg_stat_activity \
                        WHERE application_name = 'plimsoll'";
            until_true(&superuser, gone).await;
            if tls { "tls".to_owned() } else { "plain".to_owned() }
        }
        Err(failure) => format!("{}: {}", failure.kind.word(), failure.text),
    }
}

const HBA: &str = "host all watcher 127.0.0.1/32 trust";

#[tokio::test]
async fn each_recipe_for_a_certificate_in_each_sslmode() {
    let workshop = Workshop::new();
    workshop.authority("root");
    workshop.authority("other");
    workshop.signed("good", "/CN=localhost", EC, "subjectAltName=DNS:localhost");
    workshop.signed("edwards", "/CN=localhost", "ed25519", "subjectAltName=DNS:localhost");
    workshop.signed("manual", "/CN=localhost", EC, "");
    workshop.signed("only-cn", "/CN=localhost", EC, "basicConstraints=CA:FALSE");
    workshop.signed("elsewhere", "/CN=x", EC, "subjectAltName=DNS:db.example,DNS:db2.example");
    workshop.signed(
        "for-clients",
        "/CN=localhost",
        EC,
        "subjectAltName=DNS:localhost\nextendedKeyUsage=clientAuth",
    );
    // The manual's first recipe, and the same with what rustls wants.
    let own = "req -new -x509 -nodes -days 30 -subj /CN=localhost -newkey";
    workshop.openssl(&format!("{own} {EC} -keyout self-ca.key -out self-ca.crt"));
    workshop.openssl(&format!(
        "{own} {EC} -keyout self.key -out self.crt -addext basicConstraints=critical,CA:FALSE \
         -addext subjectAltName=DNS:localhost"
    ));
    // From OpenSSL 3.2 on that recipe makes certificates of version 3; still without the name.
    let made = workshop.openssl("x509 -in manual.crt -noout -text");
    let old = "is of X.509 version 1, which says of nobody what it may be used for; issue it again";
    let no_name = "has no subjectAltName, and a name in the subject does not count; issue it again \
                   with subjectAltName=DNS:localhost";
    let is_old = made.contains("Version: 1");
    let authority = "shows the certificate of an authority as its own; issue it again";
    let clients = "is not for servers; issue it again with extendedKeyUsage=serverAuth";
    let names = "is for db.example, db2.example and not for localhost; connect by one of its names";
    let unknown = "name the certificate of its authority in sslrootcert";
    let prefer_old = if is_old { "plain" } else { "tls" };
    let (require_old, ca_old, full_old) =
        if is_old { (old, old, old) } else { ("tls", "tls", no_name) };
    // certificate, roots, then: prefer, require without roots, require with them, verify-ca,
    // verify-full.
    let table = [
        ("good", "root", ["tls", "tls", "tls", "tls", "tls"]),
        ("edwards", "root", ["tls", "tls", "tls", "tls", "tls"]),
        ("self", "self", ["tls", "tls", "tls", "tls", "tls"]),
        ("manual", "root", [prefer_old, require_old, ca_old, ca_old, full_old]),
        ("only-cn", "root", ["tls", "tls", "tls", "tls", no_name]),
        ("elsewhere", "root", ["tls", "tls", "tls", "tls", names]),
        ("self-ca", "self-ca", ["tls", "tls", authority, authority, authority]),
        ("for-clients", "root", ["tls", "tls", clients, clients, clients]),
        ("good", "other", ["tls", "tls", unknown, unknown, unknown]),
        // That the name does not count excuses nothing else.
        ("elsewhere", "other", ["tls", "tls", unknown, unknown, unknown]),
    ];
    for (certificate, roots, expected) in table {
        let server = server_with(&workshop, certificate, HBA).await;
        let roots = format!("sslrootcert={}", workshop.path(&format!("{roots}.crt")).display());
        let modes = [
            "sslmode=prefer".to_owned(),
            "sslmode=require".to_owned(),
            format!("sslmode=require {roots}"),
            format!("sslmode=verify-ca {roots}"),
            format!("sslmode=verify-full {roots}"),
        ];
        for (mode, expected) in modes.iter().zip(expected) {
            let seen = outcome(&server, &format!("host=localhost {mode}")).await;
            let is_it = match expected {
                "tls" | "plain" => seen == expected,
                said => seen.starts_with("not_allowed: ") && seen.contains(said),
            };
            assert!(is_it, "{certificate}, {mode}: expected {expected}, seen {seen}");
        }
        // Neither of these has anything to do with a certificate here.
        assert_eq!(outcome(&server, "host=localhost sslmode=disable").await, "plain");
        assert_eq!(outcome(&server, "host=localhost sslmode=allow").await, "plain");
    }
}

/// The name is not looked at by `verify-ca`, and may be one that no certificate can have.
#[tokio::test]
async fn a_name_counts_for_verify_full_only() {
    let workshop = Workshop::new();
    workshop.authority("root");
    workshop.signed("good", "/CN=x", EC, "subjectAltName=DNS:localhost,IP:127.0.0.1");
    let server = server_with(&workshop, "good", HBA).await;
    let root = format!("sslrootcert={}", workshop.path("root.crt").display());
    for host in ["host=no-such-host.invalid", "host=my_db", "host='no name'"] {
        assert_eq!(outcome(&server, &format!("{host} sslmode=verify-ca {root}")).await, "tls");
        let seen = outcome(&server, &format!("{host} sslmode=verify-full {root}")).await;
        assert!(seen.starts_with("not_allowed: "), "{host}: {seen}");
    }
    // An address is a name like any other, if the certificate has it.
    assert_eq!(outcome(&server, &format!("sslmode=verify-full {root}")).await, "tls");
}

/// A user's own files are used if they are there, as libpq does.
#[tokio::test]
async fn what_the_manual_puts_into_the_home_folder_is_used() {
    let workshop = Workshop::new();
    workshop.authority("root");
    workshop.signed("good", "/CN=x", EC, "subjectAltName=DNS:localhost");
    let server = server_with(&workshop, "good", HBA).await;
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".postgresql");
    fs::create_dir(&folder).unwrap();
    let at_home = |mode: &str| {
        let text = format!(
            "host=localhost hostaddr=127.0.0.1 port={} user=watcher sslmode={mode}",
            server.port()
        );
        let around = plimsoll_core::settings::Surroundings {
            home: Some(home.path().to_owned()),
            ..Default::default()
        };
        let text = plimsoll_core::settings::Secret::new(text);
        let conninfo = super::ConnInfo::parse_in(&text, &around).unwrap();
        Watch::start(super::SourceSettings { conninfo, ..settings("host=db") })
    };
    let said = |outcome: Result<_, super::Failure>| outcome.map(drop).unwrap_err().text;
    assert!(at_home("require").next().await.outcome.is_ok());
    let missing = said(at_home("verify-ca").next().await.outcome);
    assert!(
        missing.contains("sslmode=verify-ca needs the certificate of an authority"),
        "{missing}"
    );
    fs::copy(workshop.path("root.crt"), folder.join("root.crt")).unwrap();
    for mode in ["require", "verify-ca", "verify-full"] {
        let outcome = at_home(mode).next().await.outcome;
        assert!(outcome.is_ok(), "{mode}: {outcome:?}");
    }
    workshop.authority("other");
    fs::copy(workshop.path("other.crt"), folder.join("root.crt")).unwrap();
    for mode in ["require", "verify-ca", "verify-full"] {
        let said = said(at_home(mode).next().await.outcome);
        assert!(said.contains("root.crt; name the certificate of its authority"), "{mode}: {said}");
    }
    assert!(at_home("prefer").next().await.outcome.is_ok());
}

/// What a change of authorities is: the server shows what it was given by the next one, and the file
/// of roots follows. Nobody tells us.
#[tokio::test]
async fn the_file_of_roots_is_read_again_at_every_login() {
    let workshop = Workshop::new();
    workshop.authority("root");
    workshop.authority("next");
    workshop.signed("good", "/CN=x", EC, "subjectAltName=DNS:localhost");
    workshop.openssl(
        "x509 -req -in good.csr -days 30 -CA next.crt -CAkey next.key -CAcreateserial \
         -out moved.crt -extfile extensions",
    );
    let trusted = workshop.path("trusted.crt");
    fs::copy(workshop.path("root.crt"), &trusted).unwrap();
    let mut server = server_with(&workshop, "good", HBA).await;
    let text = format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=watcher sslmode=verify-full sslrootcert={}",
        server.port(),
        trusted.display()
    );
    let watch = Watch::start(settings(&text));
    let before = watch.seen().await.server.started_at;
    put(&server, &workshop.path("moved.crt"), "server.crt");
    server.restart(Mode::Fast).await.unwrap();
    let failure = watch.failure(FailureKind::NotAllowed).await;
    let unknown = "trusted.crt; name the certificate of its authority";
    assert!(failure.text.contains(unknown), "{failure:?}");
    fs::copy(workshop.path("next.crt"), &trusted).unwrap();
    assert!(before < watch.seen().await.server.started_at);
}

#[tokio::test]
async fn a_certificate_of_ours_is_shown_and_its_key_kept_secret() {
    let workshop = Workshop::new();
    workshop.authority("root");
    workshop.signed("good", "/CN=x", EC, "subjectAltName=DNS:localhost");
    workshop.signed("watcher", "/CN=watcher", EC, "basicConstraints=CA:FALSE");
    workshop.signed("app", "/CN=app", EC, "basicConstraints=CA:FALSE");
    workshop.openssl(
        "req -new -x509 -nodes -days 30 -subj /CN=watcher -newkey ec -pkeyopt \
                      ec_paramgen_curve:prime256v1 -keyout stranger.key -out stranger.crt",
    );
    workshop.openssl("ec -in watcher.key -aes128 -passout pass:canary -out locked.key");
    workshop.openssl("pkcs8 -topk8 -in watcher.key -passout pass:canary -out sealed.key");
    fs::copy(workshop.path("root.crt"), workshop.path("client-root.crt")).unwrap();
    let hba = "hostssl all watcher 127.0.0.1/32 trust clientcert=verify-full";
    let server = server_with(&workshop, "good", hba).await;
    for key in ["watcher.key", "app.key", "stranger.key", "locked.key", "sealed.key"] {
        only_for_owner(&workshop.path(key));
    }
    let login = |certificate: &str, key: &str| {
        let (certificate, key) = (workshop.path(certificate), workshop.path(key));
        format!(
            "host=localhost sslmode=verify-full sslrootcert={} sslcert={} sslkey={}",
            workshop.path("root.crt").display(),
            certificate.display(),
            key.display()
        )
    };
    assert_eq!(outcome(&server, &login("watcher.crt", "watcher.key")).await, "tls");
    let open = workshop.path("open.key");
    fs::copy(workshop.path("watcher.key"), &open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    let none = format!(
        "host=localhost sslmode=verify-full sslrootcert={}",
        workshop.path("root.crt").display()
    );
    let cases = [
        (none, "valid client certificate"),
        (login("app.crt", "app.key"), "authentication failed for user"),
        (login("stranger.crt", "stranger.key"), "does not know the authority of our certificate"),
        (login("watcher.crt", "app.key"), "cannot be used: its key is another's"),
        (login("watcher.crt", "open.key"), "open.key may be read by others; chmod 0600 it"),
        (login("watcher.crt", "missing.key"), "missing.key is not there"),
        (login("missing.crt", "watcher.key"), "reading the certificates in"),
        (login("watcher.key", "watcher.key"), "watcher.key holds no certificate"),
        (login("watcher.crt", "watcher.crt"), "watcher.crt may be read by others"),
        (login("watcher.crt", "sealed.key"), "is encrypted, and there is nobody to ask"),
        (login("watcher.crt", "locked.key"), "the private key"),
    ];
    let key = fs::read_to_string(workshop.path("watcher.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for (login, expected) in cases {
        let seen = outcome(&server, &login).await;
        assert!(seen.starts_with("not_allowed: "), "{login}: {seen}");
        assert!(seen.contains(expected), "{login}: {seen}");
        assert!(!seen.contains(secret) && !seen.contains("canary"), "{seen}");
    }
}
