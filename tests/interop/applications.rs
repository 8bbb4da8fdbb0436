//! Real applications in Go, Python and JavaScript, each with a pool on a real Postgres, read as
//! they show themselves to Prometheus. `scripts/applications` puts them together.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use plimsoll::drill::server::{Options, Server};
use plimsoll_core::reading::app_pool::{Max, Observation, Pool};

use crate::prometheus::ask;
use crate::root;
use crate::world::World;

/// A running application.
struct Application {
    child: Child,
    address: SocketAddr,
}

impl Application {
    fn start(command: &mut Command, url: &str) -> Self {
        command.arg(url).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/applications"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().parse();
        let address = address.unwrap_or_else(|_| panic!("{command:?} printed {line:?}"));
        Self { child, address }
    }

    fn ask(&self, path: &str) {
        let (status, body) = ask(self.address, path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // It may have ended; then both of these fail and nothing is lost.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Where `scripts/applications` puts them.
fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache")
    } else {
        set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").unwrap().join(".cache"))
    };
    cache.join("plimsoll/applications")
}

fn source(name: &str) -> PathBuf {
    root().join("tests/interop/applications").join(name)
}

/// The one pool of the one instance.
fn pool(seen: &Observation) -> Option<&Pool> {
    let [instance] = seen.instances.as_slice() else { panic!("{seen:?}") };
    instance.pools.as_ref().ok()?.first()
}

/// Lends all of it out, gives all of it back; what is seen in between is as `full` says.
async fn check(command: &mut Command, preset: &str, full: impl Fn(&Pool) -> bool) {
    let server = Server::start(Options::default()).await.unwrap();
    // Go encrypts unless it is told otherwise.
    let url = format!("{}?sslmode=disable", server.url("postgres", "postgres"));
    let application = Application::start(command, &url);
    application.ask("/borrow");
    let world = World::start(&format!(
        "scrape = [\"http://{}/metrics\"]\ninterval = \"200ms\"",
        application.address
    ));
    let seen = world
        .until(|seen| pool(seen).is_some_and(|pool| pool.in_use == Some(5) && full(pool)))
        .await;
    assert_eq!(pool(&seen).unwrap().preset, preset);
    application.ask("/release");
    // The instrumentation of JavaScript counts when a connection is taken, not when it is given
    // back: the last one that waited is still lent out there.
    let is_back = |pool: &Pool| pool.in_use.is_some_and(|in_use| in_use <= 1);
    world.until(|seen| pool(seen).is_some_and(is_back)).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_with_database_sql() {
    check(&mut Command::new(cache().join("go")), "go_sql", |pool| {
        pool.name == "payment"
            && (pool.idle, pool.max, pool.waiting) == (Some(0), Max::Of(5), None)
            && pool.waits_total == Some(2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_with_sqlalchemy_and_opentelemetry() {
    let mut python = Command::new(cache().join("python/bin/python"));
    python.arg(source("python/application.py"));
    // It shows no maximum and nobody who waits.
    check(&mut python, "opentelemetry_old", |pool| {
        (pool.max, pool.waiting) == (Max::Unknown, None)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript_with_pg_and_opentelemetry() {
    let mut node = Command::new("node");
    node.arg(source("node/application.js")).env("NODE_PATH", cache().join("node/node_modules"));
    // It shows no maximum, and who waits as it was when a connection was last taken.
    check(&mut node, "opentelemetry", |pool| {
        (pool.idle, pool.max) == (Some(0), Max::Unknown) && pool.waiting.is_some()
    })
    .await;
}
