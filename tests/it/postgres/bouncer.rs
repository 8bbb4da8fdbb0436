//! A real PgBouncer where the server should be: whatever it makes of our login, it is said what
//! answers. What is read of a pooler that settings name as one is in `pooler`.

use plimsoll::drill::bouncer::{Bouncer, Options};
use plimsoll::drill::server::Server;
use plimsoll_core::reading::FailureKind;

use super::{WATCHER, Watch, patient, server};
use crate::pooler;

/// What it ignores of a login, and when it takes a connection to the server back.
pub(crate) const PGBOUNCERS: [(Option<&str>, &str); 4] = [
    (None, "transaction"),
    (Some("options, extra_float_digits"), "session"),
    (Some("options, extra_float_digits"), "transaction"),
    (Some("options, extra_float_digits"), "statement"),
];

/// A PgBouncer that lets this role through to a server, without a password.
pub(crate) async fn bouncer_before(
    server: &Server,
    role: &str,
    ignored: Option<&str>,
    mode: &str,
) -> Bouncer {
    let ignored = ignored.map(|names| ("ignore_startup_parameters", names));
    let settings = [("pool_mode", mode)].into_iter().chain(ignored);
    let options = Options {
        release: Some(pooler::release()),
        databases: vec![format!("* = host=127.0.0.1 port={}", server.port())],
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        passwords: vec![(role.to_owned(), String::new())],
        ..Options::default()
    };
    Bouncer::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn a_pgbouncer_is_no_server_and_is_said_to_be_none() {
    let server = server(20, &[]).await;
    for (ignored, mode) in PGBOUNCERS {
        let bouncer = bouncer_before(&server, WATCHER, ignored, mode).await;
        for time in ["first", "second"] {
            let watch = Watch::start(patient(&bouncer.url(WATCHER, "postgres")));
            // Neither the first tick nor a later one says anything else.
            for _ in 0..3 {
                let failure = watch.next().await.outcome.unwrap_err();
                let case = format!("{time}, {mode}, {ignored:?}: {failure:?}");
                assert_eq!(failure.kind, FailureKind::Unsupported, "{case}");
                let said = "a pooler answers at this address; a target is the server itself";
                assert!(failure.text.contains(said), "{case}");
            }
        }
    }
}
