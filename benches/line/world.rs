//! A server with so many sessions, of which 85 % are idle, 10 % active and 5 % idle in a
//! transaction: what a pooled application looks like.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};
use plimsoll::drill::daemon::Daemon;
use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::drill::scenario::TargetPart;
use plimsoll::drill::server::{Options, Server, Session};
use tokio::task::JoinSet;

use super::parameters::Parameters;
use super::{Failure, Measured, machine};

/// The name of the target.
pub(super) const TARGET: &str = "bench";

/// A backend with its catalog caches takes about 1.5 MiB; with some more for everything else.
const BYTES_A_BACKEND: u64 = 2 << 20;

/// What is left to everybody else.
const BYTES_LEFT: u64 = 1 << 30;

/// Logins that are under way at once.
const LOGINS_AT_ONCE: usize = 16;

const ROLES: usize = 5;
const APPLICATIONS: usize = 12;

/// A server and its sessions.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) superuser: Session,
    _idle: Vec<Session>,
    _active: JoinSet<()>,
}

impl World {
    /// Whether this machine has the memory for so many backends; if not, why.
    pub(super) fn fits(backends: usize) -> Result<(), String> {
        let (wanted, have) =
            (backends as u64 * BYTES_A_BACKEND + BYTES_LEFT, machine::memory_available());
        if wanted <= have {
            return Ok(());
        }
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        Err(format!(
            "{backends} backends want {:.1} GiB, and {:.1} GiB are available",
            gib(wanted),
            gib(have)
        ))
    }

    /// A server with so many sessions, and with room for as many again and more: above half of
    /// the slots the budget would be tenfold. Without autovacuum, so that every child of the
    /// postmaster that ends is a backend that somebody opened.
    pub(super) async fn start(backends: usize, more: &[(&str, &str)]) -> Measured<Self> {
        let mut settings = vec![("autovacuum".to_owned(), "off".to_owned())];
        settings.extend(more.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        let max_connections = u32::try_from(backends * 22 / 10 + 60)?;
        let server =
            Server::start(Options { max_connections, settings, ..Options::default() }).await?;
        let superuser = server.superuser().await?;
        for role in 0..ROLES {
            superuser.batch_execute(&format!("CREATE ROLE app{role} LOGIN")).await?;
        }
        superuser
            .batch_execute(
                "CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor CONNECTION LIMIT 5; \
                 CREATE ROLE exporter LOGIN IN ROLE pg_monitor; \
                 CREATE ROLE bench LOGIN IN ROLE pg_monitor",
            )
            .await?;
        let opened = stream::iter(0..backends).map(|nth| open(&server, nth));
        let mut opened = opened.buffer_unordered(LOGINS_AT_ONCE);
        let (mut idle, mut active) = (Vec::new(), JoinSet::new());
        while let Some(session) = opened.next().await {
            match session? {
                (session, true) => {
                    active.spawn(async move {
                        // It ends with the server, or with us.
                        drop(session.batch_execute("SELECT pg_sleep(1000000)").await);
                    });
                }
                (session, false) => idle.push(session),
            }
        }
        drop(opened);
        Ok(Self { server, superuser, _idle: idle, _active: active })
    }

    /// The process ids of the backends of this role or application.
    pub(super) async fn backends_of(&self, column: &str, name: &str) -> Measured<Vec<i32>> {
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE {column} = $1 ORDER BY pid");
        let rows = self.superuser.query(&sql, &[&name]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The one backend of Plimsoll.
    pub(super) async fn our_backend(&self) -> Measured<i32> {
        let pids = self.backends_of("application_name", "plimsoll").await?;
        pids.first().copied().ok_or_else(|| Failure::from("Plimsoll has no backend"))
    }
}

/// The session of this number; whether it is one that works.
async fn open(server: &Server, nth: usize) -> Measured<(Session, bool)> {
    let mut login = server.login(&format!("app{}", nth % ROLES), "postgres");
    login.application_name(format!("service-{}", nth % APPLICATIONS));
    let session = Session::open(&login).await?;
    // Of twenty sessions two work, one is idle in a transaction, the others are idle. What they
    // ran last has the length of a usual statement.
    let order = "SELECT c.relname, c.relkind, a.attname, a.atttypid FROM pg_class AS c \
                 JOIN pg_attribute AS a ON a.attrelid = c.oid WHERE c.relname = 'orders' AND a.attnum > 0";
    match nth % 20 {
        0 | 10 => return Ok((session, true)),
        5 => session.batch_execute(&format!("BEGIN; {order}")).await?,
        _ => session.batch_execute(order).await?,
    }
    Ok((session, false))
}

/// The real program, watching this server, and a receiver for its pages.
pub(super) async fn watched(
    parameters: &Parameters,
    server: &Server,
    more: &str,
) -> Measured<(Daemon, Receiver)> {
    let receiver = Receiver::start(Behaviour::status(200)).await?;
    let target = TargetPart {
        name: TARGET.to_owned(),
        role: "plimsoll".to_owned(),
        labels: BTreeMap::new(),
    };
    let url = server.url("plimsoll", "postgres");
    let program = parameters.program()?;
    let daemon = Daemon::start_with(program, &target, &url, &receiver.url(), more).await?;
    Ok((daemon, receiver))
}
