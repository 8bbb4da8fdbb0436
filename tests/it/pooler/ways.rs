//! Ways in: TCP, TLS, Unix socket, SCRAM; who is let in, and who is not.

use std::path::Path;

use super::*;

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/postgres/tls").join(name)
}

fn with(options: &mut Options, settings: &[(&str, &str)]) {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    options.settings.extend(settings.iter().map(own));
}

/// The database is the console's unless the address names another.
#[tokio::test]
async fn an_address_may_leave_out_the_console_s_name() {
    let bouncer = bouncer(options(Vec::new())).await;
    let port = bouncer.port();
    for url in [
        bouncer.url("stats", "pgbouncer"),
        bouncer.url("admin", "pgbouncer"),
        format!("postgresql://stats@127.0.0.1:{port}"),
        format!("host=127.0.0.1 port={port} user=stats target_session_attrs=read-write"),
        bouncer.socket_url("stats", "pgbouncer"),
    ] {
        let watched = Watched::start(&told(&url));
        let seen = watched.next().await.outcome;
        assert!(seen.is_ok(), "{url}: {seen:?}");
        watched.end().await;
    }
}

#[tokio::test]
async fn a_password_is_sent_as_scram() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(Vec::new());
    with(&mut options, &[("auth_type", "scram-sha-256")]);
    options.passwords.push(("stats".to_owned(), "canary-1".to_owned()));
    let bouncer = bouncer(options).await;
    let told = |password: &str| PoolerSettings {
        password: Some(password_file(folder.path(), password)),
        ..told(&bouncer.url("stats", "pgbouncer"))
    };
    let watched = Watched::start(&told("canary-1"));
    assert!(watched.next().await.outcome.is_ok());
    let failure = Watched::start(&told("canary-2")).fails(FailureKind::NotAllowed).await;
    assert!(
        failure.text.contains("stats_users") && !failure.text.contains("canary"),
        "{failure:?}"
    );
    let none = Watched::start(&super::told(&bouncer.url("stats", "pgbouncer")));
    let failure = none.fails(FailureKind::NotAllowed).await;
    assert!(failure.text.contains("asks for a password"), "{failure:?}");
}

#[tokio::test]
async fn tls_is_as_for_every_address() {
    let mut bouncer = bouncer(options(Vec::new())).await;
    let read = |name: &str| std::fs::read(fixture(name)).unwrap();
    let certificate = bouncer.put("server.crt", &read("server.crt")).unwrap();
    let key = bouncer.put("server.key", &read("server.key")).unwrap();
    bouncer.stop().await.unwrap();
    bouncer
        .reload(|options| {
            let shown = |path: &Path| path.display().to_string();
            let (certificate, key) = (shown(&certificate), shown(&key));
            with(
                options,
                &[
                    ("client_tls_sslmode", "require"),
                    ("client_tls_cert_file", &certificate),
                    ("client_tls_key_file", &key),
                ],
            );
        })
        .unwrap();
    bouncer.start_again().await.unwrap();
    let place = format!("host=localhost hostaddr=127.0.0.1 port={} user=stats", bouncer.port());
    let ca = fixture("ca.crt").display().to_string();
    for mode in ["sslmode=require".to_owned(), format!("sslmode=verify-full sslrootcert={ca}")] {
        let watched = Watched::start(&told(&format!("{place} {mode}")));
        let seen = watched.next().await.outcome;
        assert!(seen.is_ok(), "{mode}: {seen:?}");
    }
    let other = fixture("other-ca.crt").display().to_string();
    let refused = format!("{place} sslmode=verify-full sslrootcert={other}");
    Watched::start(&told(&refused)).fails(FailureKind::NotAllowed).await;
    let plain = Watched::start(&told(&format!("{place} sslmode=disable"))).failure().await;
    assert!(matches!(plain.kind, FailureKind::NotAllowed | FailureKind::Unsupported), "{plain:?}");
}

/// Nobody is let in but those who may look, and nobody else is asked for often.
#[tokio::test]
async fn one_who_may_not_look_is_told_what_to_do() {
    let server = server(20).await;
    let bouncer = bouncer(options(vec![database("shop", &server, "")])).await;
    let began = clock::monotonic();
    let watched = Watched::start(&told(&bouncer.url("app", "pgbouncer")));
    let failure = watched.fails(FailureKind::NotAllowed).await;
    assert!(failure.text.contains("stats_users"), "{failure:?}");
    // The same is said at each tick, and a login is made once a second at most.
    for _ in 0..40 {
        assert_eq!(watched.failure().await, failure);
    }
    let seconds = (clock::monotonic() - began).as_secs();
    let asked = bouncer.log().matches("login failed: db=pgbouncer user=app").count()
        + bouncer.log().matches("not allowed").count();
    assert!(asked as u64 <= 2 * (seconds + 1), "{asked} in {seconds} s: {}", bouncer.log());
    let nobody = Watched::start(&told(&bouncer.url("nobody", "pgbouncer"))).failure().await;
    assert_eq!(nobody.kind, FailureKind::NotAllowed, "{nobody:?}");
}

/// What answers is a server, or a database behind the pooler: no console, and no slot is held.
#[tokio::test]
async fn a_server_at_that_address_is_said_to_be_one() {
    let server = server(20).await;
    let superuser = server.superuser().await.unwrap();
    for url in [server.url("app", "pgbouncer"), server.url("app", "postgres")] {
        is_no_console(&url).await;
    }
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'plimsoll'";
    let left = async {
        while superuser.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, left).await.expect("no session is left at the server");
    let bouncer = bouncer(options(vec![database("shop", &server, "")])).await;
    is_no_console(&bouncer.url("app", "shop")).await;
    let missing = Watched::start(&told(&bouncer.url("stats", "no_such"))).failure().await;
    assert_eq!(missing.kind, FailureKind::Unsupported, "{missing:?}");
}

async fn is_no_console(url: &str) {
    let watched = Watched::start(&told(url));
    let failure = watched.fails(FailureKind::Unsupported).await;
    assert!(failure.text.contains("admin console"), "{url}: {failure:?}");
    watched.end().await;
}
