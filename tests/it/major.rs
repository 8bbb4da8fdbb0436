//! Which major of PostgreSQL the tests of servers run on: one a run, named by a variable.
//!
//! `make test` runs them on one, `make test-matrix` on each that is supported. Where majors differ,
//! the test says what is expected of each; none is left out.

use plimsoll::drill::server::{Options, Server};

/// The variable that names it.
const VARIABLE: &str = "PLIMSOLL_TEST_MAJOR";

/// What runs where nothing is named.
const DEFAULT: u32 = 15;

/// The major of this run.
pub(crate) fn major() -> u32 {
    match std::env::var(VARIABLE) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{VARIABLE}={text} is no number")),
        Err(_) => DEFAULT,
    }
}

/// Starts a server of this run's major, and runs a script on it as the superuser.
pub(crate) async fn start(options: Options, script: &str) -> Server {
    let options = Options { major: Some(major()), ..options };
    let server = Server::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    let superuser = server.superuser().await.unwrap();
    // What answers is what was asked for, whatever the programs' folder is called.
    let sql = "SELECT current_setting('server_version_num')::int4 / 10000";
    let answers: i32 = superuser.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(u32::try_from(answers).unwrap(), major());
    superuser.batch_execute(script).await.unwrap_or_else(|error| panic!("{script}: {error:?}"));
    superuser.close().await;
    server
}
