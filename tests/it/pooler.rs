//! What stands between a client and a server that is not its own: a stand-in that passes everything
//! on, and real PgBouncers, read at their console. What every test of those needs, and the tests by
//! subject.

mod bad;
mod limits;
mod releases;
mod shared;
mod trouble;
mod waits;
mod ways;

use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock;
use plimsoll::collect::SideSource;
use plimsoll::collect::mailbox::{Delivery, Mailbox};
use plimsoll::collect::pooler::PoolerSource;
use plimsoll::drill::bouncer::{Bouncer, DEFAULT_RELEASE, Options};
use plimsoll::drill::server::{Options as ServerOptions, Server, Session};
use plimsoll_core::reading::pooler::{Observation, Pool};
use plimsoll_core::reading::{Failure, FailureKind};
use plimsoll_core::settings::{PasswordFrom, PoolerSettings, Secret, Surroundings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::major;

/// Ten times what any of it takes.
const DEADLINE: Duration = Duration::from_mins(1);

/// Names the release of PgBouncer that the tests of this run are for.
const RELEASE_VARIABLE: &str = "PLIMSOLL_TEST_PGBOUNCER";

/// The release of this run: `make test` takes one, `make test-matrix` each that a suite has.
pub(crate) fn release() -> String {
    std::env::var(RELEASE_VARIABLE).unwrap_or_else(|_| DEFAULT_RELEASE.to_owned())
}

/// Whether the release of this run is this one or later.
fn has(major: u32, minor: u32) -> bool {
    let release = release();
    let (own_major, own_minor) = release.split_once('.').unwrap();
    (major, minor) <= (own_major.parse().unwrap(), own_minor.parse().unwrap())
}

/// A server with an application's role.
async fn server(max_connections: u32) -> Server {
    let options = ServerOptions { max_connections, ..ServerOptions::default() };
    major::start(options, "CREATE ROLE app LOGIN; CREATE ROLE batch LOGIN").await
}

/// The line of `[databases]` that calls the server's database `postgres` by this name.
fn database(name: &str, server: &Server, more: &str) -> String {
    format!("{name} = host=127.0.0.1 port={} dbname=postgres {more}", server.port())
}

/// Of this run's release.
fn options(databases: Vec<String>) -> Options {
    // Who is trusted is still one of the list.
    let passwords = vec![("batch".to_owned(), String::new())];
    Options { release: Some(release()), databases, passwords, ..Options::default() }
}

async fn bouncer(options: Options) -> Bouncer {
    Bouncer::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

/// A client of a pooler, at this database.
async fn client(bouncer: &Bouncer, user: &str, database: &str) -> Session {
    let mut login: tokio_postgres::Config = bouncer.url(user, database).parse().unwrap();
    Session::open(login.application_name("shop-api")).await.unwrap()
}

fn told(url: &str) -> PoolerSettings {
    PoolerSettings {
        name: "pooler".to_owned(),
        url: Secret::new(url),
        password: None,
        interval: Duration::from_millis(50),
        // On a machine that is busy a pooler can be silent for a second.
        timeout: Duration::from_secs(10),
    }
}

/// A source that runs, and what it leaves.
struct Watched {
    mailbox: Mailbox<Observation>,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

impl Watched {
    fn start(told: &PoolerSettings) -> Self {
        let source = PoolerSource::of(told, &Surroundings::default()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mailbox = Mailbox::new();
        let mut tasks = JoinSet::new();
        let stopped = async move { drop(stopped.await) };
        tasks.spawn(source.run(mailbox.clone(), stopped));
        Self { mailbox, stop: Some(stop), tasks }
    }

    /// Looks as a member of `stats_users`.
    fn of(bouncer: &Bouncer) -> Self {
        Self::start(&told(&bouncer.url("stats", "pgbouncer")))
    }

    async fn next(&self) -> Delivery<Observation> {
        tokio::time::timeout(DEADLINE, self.mailbox.arrived()).await.expect("a delivery in time");
        self.mailbox.take().unwrap()
    }

    /// The first delivery of which this holds.
    async fn until(
        &self,
        what: &str,
        mut holds: impl FnMut(&Delivery<Observation>) -> bool,
    ) -> Delivery<Observation> {
        let deadline = clock::monotonic() + DEADLINE;
        loop {
            let delivery = self.next().await;
            if holds(&delivery) {
                return delivery;
            }
            let last = delivery.outcome;
            assert!(clock::monotonic() < deadline, "waiting for {what}; at last {last:#?}");
        }
    }

    /// The first observation of which this holds.
    async fn seen(&self, what: &str, mut holds: impl FnMut(&Observation) -> bool) -> Observation {
        let is_it = |d: &Delivery<Observation>| d.outcome.as_ref().is_ok_and(|seen| holds(seen));
        Arc::unwrap_or_clone(self.until(what, is_it).await.outcome.unwrap())
    }

    /// The first failure.
    async fn failure(&self) -> Failure {
        self.until("a failure", |d| d.outcome.is_err()).await.outcome.unwrap_err()
    }

    /// The first delivery, which is a failure of this kind.
    async fn fails(&self, kind: FailureKind) -> Failure {
        let failure = self.next().await.outcome.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure:?}");
        failure
    }

    /// Ends it, as a reload does, and returns when it has.
    async fn end(mut self) {
        drop(self.stop.take());
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

/// The pool of this database and user.
fn pool<'a>(seen: &'a Observation, database: &str, user: &str) -> Option<&'a Pool> {
    seen.pools.iter().find(|pool| pool.database == database && pool.user == user)
}

/// From a file, as an operator would.
fn password_file(folder: &std::path::Path, password: &str) -> PasswordFrom {
    let path = folder.join("password");
    std::fs::write(&path, password).unwrap();
    PasswordFrom::File(path)
}

/// Passes everything on, but changes the process id in the backend's key, as every pooler does that
/// gives a client a connection of somebody else's.
pub(crate) async fn pooler(port: u16, listener: TcpListener) {
    // The message is as long as this on every server that speaks protocol 3.0.
    const KEY: &[u8] = b"K\0\0\0\x0c";
    let (mut client, _) = listener.accept().await.unwrap();
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let back = async {
        let mut bytes = vec![0; 65_536];
        loop {
            let count = from_server.read(&mut bytes).await.unwrap_or(0);
            if count == 0 {
                return;
            }
            let key = bytes[..count].windows(KEY.len()).position(|window| window == KEY);
            if let Some(at) = key {
                bytes[at + KEY.len() + 3] ^= 1;
            }
            to_client.write_all(&bytes[..count]).await.unwrap();
        }
    };
    tokio::select! {
        () = back => {}
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
    }
}
