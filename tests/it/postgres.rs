//! The Postgres source on real servers: what every test of it needs, and the tests by subject.

pub(crate) mod bare;
mod behind;
mod blind;
pub(crate) mod bouncer;
mod certificates;
mod exact;
mod fallback;
mod half_open;
mod hosts;
mod majors;
mod memory;
mod names;
mod openssl;
mod passwords;
mod refused;
mod reserved;
mod silent;
pub(crate) mod tls;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock;
use plimsoll::collect::conninfo::ConnInfo;
use plimsoll::collect::mailbox::{self, Mailbox};
use plimsoll::collect::postgres::{Source, SourceSettings};
use plimsoll::drill::server::{Options, Server, Session};
use plimsoll_core::reading::postgres::Observation;
use plimsoll_core::reading::{Failure, FailureKind, Logins};
use plimsoll_core::settings::{Fallback, Secret};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::major::{self, major};

pub(crate) use self::certificates::reload;

/// Ten times what any of it takes.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// The role that watches.
pub(crate) const WATCHER: &str = "watcher";

/// What a source leaves.
type Delivery = mailbox::Delivery<Observation, Logins>;

/// A source that runs, and what it leaves.
pub(crate) struct Watch {
    mailbox: Mailbox<Observation, Logins>,
    trouble: watch::Sender<bool>,
    settings: watch::Sender<Arc<SourceSettings>>,
    tasks: JoinSet<()>,
}

fn settings(url: &str) -> SourceSettings {
    SourceSettings {
        conninfo: ConnInfo::parse(&Secret::new(url)).unwrap(),
        password: None,
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(500),
        budget: 1.0,
        fallback: Fallback::None,
    }
}

/// The same with more patience than is shipped, for tests that tell one failure from another: on
/// a machine that is busy a server can be silent for a second.
fn patient(url: &str) -> SourceSettings {
    SourceSettings { timeout: Duration::from_secs(20), ..settings(url) }
}

impl Watch {
    fn start(settings: SourceSettings) -> Self {
        let mailbox = Mailbox::new();
        let (trouble, in_trouble) = watch::channel(false);
        let (settings, told) = watch::channel(Arc::new(settings));
        let source = Source::new(told, mailbox.clone(), in_trouble);
        let mut tasks = JoinSet::new();
        tasks.spawn(source.run(std::future::pending()));
        Self { mailbox, trouble, settings, tasks }
    }

    /// Watches the server as a role that may.
    pub(crate) fn of(server: &Server) -> Self {
        Self::start(settings(&server.url(WATCHER, "postgres")))
    }

    /// The next delivery.
    async fn next(&self) -> Delivery {
        tokio::time::timeout(DEADLINE, self.mailbox.arrived()).await.expect("a delivery in time");
        self.mailbox.take().unwrap()
    }

    /// The first delivery of which this holds.
    async fn until(&self, what: &str, mut holds: impl FnMut(&Delivery) -> bool) -> Delivery {
        let deadline = clock::monotonic() + DEADLINE;
        loop {
            let delivery = self.next().await;
            if holds(&delivery) {
                return delivery;
            }
            let last = delivery.outcome.map(|seen| (seen.slots(), seen.groups.clone()));
            assert!(clock::monotonic() < deadline, "waiting for {what}; at last {last:?}");
        }
    }

    /// The next observation; failures before it are passed over.
    pub(crate) async fn seen(&self) -> Observation {
        Arc::unwrap_or_clone(
            self.until("an observation", |d| d.outcome.is_ok()).await.outcome.unwrap(),
        )
    }

    /// An observation of a poll that began after now.
    pub(crate) async fn seen_from_now(&self) -> Observation {
        // One may be under way.
        self.seen().await;
        self.seen().await
    }

    /// The next failure of this kind.
    async fn failure(&self, kind: FailureKind) -> Failure {
        let is_it = |d: &Delivery| d.outcome.as_ref().is_err_and(|f: &Failure| f.kind == kind);
        self.until(kind.word(), is_it).await.outcome.unwrap_err()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

/// A server with the role that watches and one that does not.
pub(crate) async fn server(max_connections: u32, settings: &[(&str, &str)]) -> Server {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let settings = settings.iter().map(own).collect();
    let options = Options { max_connections, settings, ..Options::default() };
    let roles = "CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher; CREATE ROLE app LOGIN";
    major::start(options, roles).await
}

pub(crate) async fn execute(session: &Session, sql: &str) {
    session.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Waits until a query that gives one boolean gives true.
pub(crate) async fn until_true(session: &Session, sql: &str) {
    let deadline = clock::monotonic() + DEADLINE;
    while !session.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(clock::monotonic() < deadline, "waiting for {sql}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The pids of our backends that `pg_stat_activity` shows.
async fn our_backends(session: &Session) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_get_activity(NULL) WHERE application_name = 'plimsoll'";
    session.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// So many sockets that a process of this machine has open lead to a port.
pub(crate) fn sockets_to(port: u16) -> usize {
    // The remote address and the inode are the third and the tenth column. What has been closed
    // has no inode, though the kernel keeps it until the other side closes its end as well; and a
    // table that changes while it is read has a line more than once.
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let inode = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns[2].ends_with(&port) && columns[9] != "0").then(|| columns[9].to_owned())
    };
    table.lines().skip(1).filter_map(inode).collect::<BTreeSet<_>>().len()
}

/// The processes of a server; logins under way are among them, and in no view.
pub(crate) fn processes(server: &Server) -> BTreeSet<i32> {
    let postmaster = server.pid().unwrap();
    let mut children = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name may hold spaces and brackets: state and parent come after the last bracket.
        let after = stat.rsplit_once(") ").map(|(_, after)| after).unwrap_or_default();
        let mut fields = after.split(' ');
        let (state, parent) = (fields.next(), fields.next().and_then(|p| p.parse().ok()));
        if parent == Some(postmaster) && state != Some("Z") {
            children.insert(pid);
        }
    }
    children
}

#[tokio::test]
async fn a_source_says_which_server_it_reads_and_what_that_costs() {
    let server = server(20, &[]).await;
    let watch = Watch::of(&server);
    let delivery = watch.next().await;
    assert!(delivery.happened.tried);
    assert_eq!(delivery.happened.refused, []);
    assert_eq!(delivery.rhythm, Duration::from_millis(100));
    let seen = delivery.outcome.unwrap();
    assert_eq!(seen.server.version_num / 10_000, major());
    let version = format!("{}.", major());
    assert!(seen.server.version.starts_with(&version), "{}", seen.server.version);
    assert!(seen.server.system_identifier.is_some());
    assert!(!seen.server.in_recovery);
    assert!(seen.server.started_at < seen.server.clock);
    let limits = seen.limits;
    let limits = (limits.max_connections, limits.superuser_reserved, limits.reserved);
    assert_eq!(limits, (20, 3, 0));
    assert_eq!(seen.superusers, ["postgres"]);
    let logging = seen.logging.as_deref().unwrap();
    assert_eq!(
        (logging.line_prefix.as_str(), logging.destination.as_str()),
        ("%m [%p] ", "stderr")
    );
    assert!(logging.process_titles);
    let databases: Vec<_> = seen.counters.iter().map(|c| &*c.database).collect();
    assert_eq!(databases.len(), 3, "{databases:?}");
    assert!(databases.contains(&"postgres") && databases.contains(&"template0"));
    // Counters of sessions came with 14.
    assert!(seen.counters.iter().all(|c| c.sessions.is_some() == (14 <= major())));
    assert!(seen.cost.server_seconds > 0.0 && seen.cost.server_seconds < seen.cost.poll_seconds);
    let types: Vec<_> = seen.other_backends.iter().map(|b| b.backend_type.as_str()).collect();
    assert!(types.contains(&"checkpointer"), "{types:?}");
    let ours = &seen.groups[0];
    assert_eq!((&*ours.role, &*ours.application), (WATCHER, "plimsoll"));
    assert_eq!((&*ours.address, ours.connections), ("127.0.0.1", 1));
}

#[tokio::test]
async fn a_stopped_source_gives_its_slot_back() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let mailbox = Mailbox::new();
    let (_trouble, in_trouble) = watch::channel(false);
    let url = server.socket_url(WATCHER, "postgres");
    let (_settings, told) = watch::channel(Arc::new(settings(&url)));
    let source = Source::new(told, mailbox.clone(), in_trouble);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut tasks = JoinSet::new();
    tasks.spawn(source.run(async { drop(stopped.await) }));
    mailbox.arrived().await;
    assert_eq!(our_backends(&superuser).await.len(), 1);
    drop(stop);
    tasks.join_next().await.unwrap().unwrap();
    let gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'plimsoll'";
    until_true(&superuser, gone).await;
    // It said goodbye: the server has nothing to complain about.
    assert!(!server.log().contains("unexpected EOF"), "{}", server.log());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn beside_the_server_a_poll_costs_what_the_kernel_says() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let watch = Watch::start(patient(&server.url(WATCHER, "postgres")));
    let has_account =
        |d: &Delivery| d.outcome.as_deref().is_ok_and(|seen| seen.cost.processor_seconds.is_some());
    watch.until("an account", has_account).await;
    let backend = our_backends(&superuser).await[0];
    let taken = || {
        let text = std::fs::read_to_string(format!("/proc/{backend}/schedstat")).unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
    };
    let before = taken();
    let mut said = 0.0;
    for _ in 0..20 {
        said += watch.seen().await.cost.processor_seconds.expect("an account");
    }
    // One poll more or less may be in it, and one that nobody took out of the mailbox is not.
    let taken = taken() - before;
    assert!(taken / 2.0 < said && said < taken * 1.5, "{said} of {taken}");
}

#[tokio::test]
async fn trouble_and_a_busy_server_raise_the_budget() {
    let server = server(20, &[]).await;
    let cheap = SourceSettings { budget: 0.01, ..settings(&server.url(WATCHER, "postgres")) };
    let watch = Watch::start(cheap);
    let near = |seen: &Observation, ratio: f64| (seen.cost.budget_ratio - ratio).abs() < 1e-9;
    assert!(near(&watch.seen().await, 0.01));
    watch.trouble.send_replace(true);
    watch.until("trouble", |d| d.outcome.as_deref().is_ok_and(|seen| near(seen, 0.1))).await;
    watch.trouble.send_replace(false);
    watch.until("no trouble", |d| d.outcome.as_deref().is_ok_and(|seen| near(seen, 0.01))).await;
    let _holders = server.fill("app", "payment-api", 12).await.unwrap();
    watch.until("a busy server", |d| d.outcome.as_deref().is_ok_and(|seen| near(seen, 0.1))).await;
}

#[tokio::test]
async fn new_settings_in_a_full_server_keep_the_connection_until_its_successor_is_in() {
    let server = server(20, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let watch = Watch::of(&server);
    watch.until("a reading", |d| d.outcome.is_ok()).await;
    let before = our_backends(&superuser).await;
    let free = 17 - 2;
    let sessions = server.fill("app", "payment-api", free).await.unwrap();
    let full = |d: &Delivery| d.outcome.as_deref().is_ok_and(|o| o.slots().free == 0);
    watch.until("a full server", full).await;

    // What is set at login changes: a new one is needed. It is refused, and readings go on.
    let mut other = settings(&server.url(WATCHER, "postgres"));
    other.timeout *= 2;
    watch.settings.send_replace(Arc::new(other));
    watch.until("a refused login", |d| !d.happened.refused.is_empty()).await;
    watch.until("a reading all the same", full).await;
    assert_eq!(our_backends(&superuser).await, before);

    drop(sessions);
    let renewed = async {
        while our_backends(&superuser).await == before {
            watch.next().await;
        }
    };
    tokio::time::timeout(DEADLINE, renewed).await.expect("a new connection");
    watch.until("a reading", |d| d.outcome.is_ok()).await;
}
