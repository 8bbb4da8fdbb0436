//! One look at a server, for `plimsoll check` and `plimsoll setup-sql`: what the daemon will meet
//! there, as a value. What is good and bad about it is judged in `cli::check`.
//!
//! One login at a time: in a full server, or at one that is stuck, each holds a slot. The session
//! says goodbye, and only then is a fallback tried, where settings ask for one. Unlike the polls it
//! reads catalogs, with the same lock timeout.

mod clocks;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::reading::postgres::Slots;
use plimsoll_core::reading::{Failure, FailureKind};
use plimsoll_core::settings::Fallback;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Error, Row};

pub use self::clocks::Clock;
use super::names::Names;
use super::observe;
use super::rows::Connection;
use super::session::{Ask, Session, TurnError};
use super::text::Text;
use super::{GOODBYE_AT_MOST, SourceSettings};
use crate::collect::conninfo::Place;
pub use crate::collect::login::KEEPALIVE;
use crate::collect::login::{self, A_POOLER, Ledger, Login, failure, login};
pub use crate::collect::tls::Checked;

/// Who we are there, and what that may do.
const ROLE: &str = "
    SELECT r.rolname AS name, r.rolsuper AS is_superuser, r.rolinherit AS inherits,
        r.rolconnlimit::int4 AS connection_limit, r.rolreplication AS has_replication,
        current_database() AS database
    FROM pg_catalog.pg_roles AS r
    WHERE r.rolname = session_user";

/// The predefined roles, and whether we have their rights (USAGE) or are only members (MEMBER).
const MEMBERSHIPS: &str = "
    SELECT r.rolname AS name, pg_has_role(r.oid, 'USAGE') AS has_rights,
        pg_has_role(r.oid, 'MEMBER') AS is_member
    FROM pg_catalog.pg_roles AS r
    WHERE r.rolname IN ('pg_monitor', 'pg_read_all_stats', 'pg_use_reserved_connections')";

/// Our session's settings and where each comes from (guc_tables.c, `GucSource_Names`).
const SETTINGS: &str = "
    SELECT s.name, s.setting, s.source
    FROM pg_catalog.pg_settings AS s
    WHERE s.name LIKE 'log\\_%' OR s.name LIKE 'tcp\\_%' OR s.name LIKE 'auto\\_explain.%'
        OR s.name IN ('track_activities', 'reserved_connections', 'pgaudit.log', 'lc_messages',
            'update_process_title')";

/// Who has a setting of their own for `track_activities`.
const OVERRIDES: &str = "
    SELECT r.rolname AS role, d.datname AS database, split_part(c.setting, '=', 2) AS value
    FROM pg_catalog.pg_db_role_setting AS s
    CROSS JOIN LATERAL unnest(s.setconfig) AS c(setting)
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
    LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
    WHERE c.setting LIKE 'track\\_activities=%'
    ORDER BY 1, 2";

/// Our own connection, as the server sees it.
const WAY: &str = "
    SELECT a.ssl AS is_encrypted, a.sslversion AS tls_version, a.sslcipher AS tls_cipher,
        host(a.client_addr) AS address
    FROM pg_stat_get_activity(pg_backend_pid()) AS a";

/// Sessions that have been idle for at least so many seconds.
const RESTING: &str = "
    SELECT a.application_name AS application, count(*)::int4 AS connections
    FROM pg_stat_get_activity(NULL) AS a
    WHERE a.backend_type = 'client backend' AND a.state = 'idle' AND a.pid <> pg_backend_pid()
        AND statement_timestamp() - a.state_change >= make_interval(secs => $1)
    GROUP BY a.application_name
    ORDER BY 2 DESC, 1";

/// What was seen at a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// `server_version_num`.
    pub version_num: u32,
    /// `server_version`, up to its first space.
    pub version: String,
    /// Who we are there.
    pub role: Role,
    /// How we came there.
    pub way: Way,
    /// The server's clock and ours.
    pub clock: Clock,
    /// Settings of our session by their names; one that is missing does not exist there.
    pub settings: BTreeMap<String, Setting>,
    /// `track_activities` as it is set for roles and databases.
    pub track_activities: Vec<Override>,
    /// Sessions that rest, by application, the most first.
    pub resting: Vec<Resting>,
    /// The slots as the daemon's own poll counts them; or why it cannot.
    pub slots: Result<Slots, Failure>,
    /// Whether the server could be read over a replication connection; `None` if settings do not
    /// ask for that.
    pub fallback: Option<Result<(), Failure>>,
}

/// The role that we logged in as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// The database that we are in.
    pub database: String,
    /// It may do everything.
    pub is_superuser: bool,
    /// It has the rights of roles that it becomes a member of, unless the grant says otherwise.
    pub inherits: bool,
    /// `CONNECTION LIMIT`; −1 is none.
    pub connection_limit: i32,
    /// The REPLICATION attribute.
    pub has_replication: bool,
    /// Its place in the predefined roles; one that is missing does not exist in this version.
    pub memberships: BTreeMap<String, Membership>,
}

/// How far a role belongs to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Membership {
    /// Not at all.
    None,
    /// It is a member and does not inherit.
    WithoutRights,
    /// It has the rights.
    Full,
}

/// The connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// What lies between.
    pub link: Link,
    /// Version and cipher of TLS, if there is any.
    pub tls: Option<(String, String)>,
    /// How much of the server's certificate was checked.
    pub checked: Checked,
}

/// What lies between us and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A Unix socket.
    Socket,
    /// TCP within one machine.
    Loopback,
    /// TCP over a network.
    Network,
}

/// A setting of our session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// In its base unit.
    pub value: String,
    /// `pg_settings.source`.
    pub source: String,
}

/// A setting of a role, a database, or a role in a database; of all roles where both are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The role.
    pub role: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// As it was written.
    pub value: String,
}

/// Sessions of one application that rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resting {
    /// `application_name`.
    pub application: String,
    /// How many.
    pub connections: u32,
}

impl Inspection {
    /// The major version.
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// The value of a setting, if it exists there.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(|setting| setting.value.as_str())
    }

    /// The place in a predefined role; `None` for one that does not exist there.
    pub fn membership(&self, role: &str) -> Option<Membership> {
        self.role.memberships.get(role).copied()
    }
}

/// Looks at a server, once. Sessions that have been idle for `rest` count as resting.
///
/// # Errors
/// Why it could not be looked at, in the words in which the daemon would say it.
pub async fn inspect(settings: Arc<SourceSettings>, rest: Duration) -> Result<Inspection, Failure> {
    let Visit { entered, first, drive } = Visit::begin(&settings).await?;
    let patience = settings.timeout * 2;
    let looking = look(entered, first, &settings, rest);
    let seen = tokio::time::timeout(patience, looking).await;
    drive.end().await;
    let mut seen = seen.unwrap_or_else(|_| Err(silence(UNANSWERED, patience)))?;
    // The first session has gone: there is never a second one beside it.
    if settings.fallback == Fallback::Replication {
        seen.fallback = Some(try_fallback(&settings).await);
    }
    Ok(seen)
}

/// Tries the fallback: `pg_hba.conf` and the number of walsenders are known to the server alone.
async fn try_fallback(settings: &Arc<SourceSettings>) -> Result<(), Failure> {
    let (login, drive) = enter(settings, login::Way::Replication).await?;
    let patience = settings.timeout * 2;
    let connection = Connection::new(login.client, login.way);
    let polling = slots(Session::new(0, connection, login.key_pid, &login.version));
    let polled = tokio::time::timeout(patience, polling).await;
    drive.end().await;
    polled.unwrap_or_else(|_| Err(silence(UNANSWERED, patience))).map(drop)
}

/// The major version of a server.
///
/// # Errors
/// As [`inspect`].
pub async fn major(settings: Arc<SourceSettings>) -> Result<u32, Failure> {
    let Visit { entered, first, drive } = Visit::begin(&settings).await?;
    drop(entered);
    drive.end().await;
    Ok(first.version_num / 10_000)
}

/// The role and the database that an address names; without a role it is the user's own.
pub fn names_of(settings: &SourceSettings) -> (Option<&str>, &str) {
    (settings.conninfo.user.as_deref(), &settings.conninfo.dbname)
}

/// A session that was begun.
struct Visit {
    entered: Entered,
    first: First,
    drive: Drive,
}

/// What drives a session to its end.
struct Drive(JoinSet<()>);

impl Drive {
    /// Waits for the goodbye to be said; the client is dropped before.
    async fn end(mut self) {
        let gone = async { while self.0.join_next().await.is_some() {} };
        drop(tokio::time::timeout(GOODBYE_AT_MOST, gone).await);
    }
}

/// A login that succeeded, without what drives it.
struct Entered {
    client: Client,
    way: login::Way,
    key_pid: Option<i32>,
    version: String,
    checked: Checked,
}

/// Logs in, once.
async fn enter(
    settings: &Arc<SourceSettings>,
    way: login::Way,
) -> Result<(Entered, Drive), Failure> {
    let patience = settings.timeout * 2;
    let login = login(settings.access(), Ledger::of(1), Arc::default(), settings.purpose(way));
    let login = tokio::time::timeout(patience, login).await;
    let login = login.map_err(|_| silence("the login was not answered", patience))?;
    let Login { client, way, key_pid, version, checked, drive, .. } =
        login.map_err(|error| error.failure())?;
    let mut driving = JoinSet::new();
    driving.spawn(async move { drop(drive.await) });
    Ok((Entered { client, way, key_pid, version, checked }, Drive(driving)))
}

/// What is asked before all else.
struct First {
    pid: i32,
    version_num: u32,
    version: String,
}

impl Visit {
    async fn begin(settings: &Arc<SourceSettings>) -> Result<Self, Failure> {
        let patience = settings.timeout * 2;
        let (entered, drive) = enter(settings, login::Way::Ordinary).await?;
        let first = tokio::time::timeout(patience, First::ask(&entered.client)).await;
        let first = first.unwrap_or_else(|_| Err(silence("nothing was answered", patience)));
        match first {
            Ok(first) => Ok(Self { entered, first, drive }),
            Err(error) => {
                drop(entered);
                drive.end().await;
                Err(error)
            }
        }
    }
}

impl First {
    async fn ask(client: &Client) -> Result<Self, Failure> {
        let asking = async {
            // Names come as they are stored; what is not UTF-8 must not fail.
            client.batch_execute("SET client_encoding = 'SQL_ASCII'").await?;
            let sql = "SELECT pg_backend_pid() AS pid,
                current_setting('server_version_num')::int4 AS version_num,
                current_setting('server_version') AS version";
            let row = client.query_one(sql, &[]).await?;
            let version = text(&row, "version")?.unwrap_or_default();
            Ok::<_, Error>(Self {
                pid: row.try_get("pid")?,
                version_num: u32::try_from(row.try_get::<_, i32>("version_num")?).unwrap_or(0),
                version: version.split(' ').next().unwrap_or_default().to_owned(),
            })
        };
        asking.await.map_err(|error| failure::of_statement(&error, "asking for the version"))
    }
}

async fn look(
    entered: Entered,
    first: First,
    settings: &SourceSettings,
    rest: Duration,
) -> Result<Inspection, Failure> {
    let Entered { client, key_pid, checked, .. } = entered;
    if key_pid.is_some_and(|pid| pid != first.pid) {
        return Err(Failure {
            kind: FailureKind::Unsupported,
            text: A_POOLER.to_owned(),
            sqlstate: None,
        });
    }
    let said = |error: Error| failure::of_statement(&error, "inspecting the server");
    let seen = Seen::read(&client, rest).await.map_err(said)?;
    // Last, since the session takes the client: the daemon's own poll, and what it makes of it.
    let connection = Connection::new(client, login::Way::Ordinary);
    let slots = slots(Session::new(0, connection, key_pid, &first.version)).await;
    let is_loopback = |text: &str| text.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    // Which of several hosts answered is not known: all of them must be this machine's.
    let mut hosts = settings.conninfo.hosts.iter();
    let is_here = hosts.all(|host| match &host.place {
        Place::Tcp { host, .. } => is_loopback(host),
        Place::Socket(_) => true,
    });
    let link = match seen.address.as_deref() {
        None => Link::Socket,
        Some(address) if is_here || is_loopback(address) => Link::Loopback,
        Some(_) => Link::Network,
    };
    Ok(Inspection {
        version_num: first.version_num,
        version: first.version,
        role: seen.role,
        way: Way { link, tls: seen.tls, checked },
        clock: seen.clock,
        settings: seen.settings,
        track_activities: seen.track_activities,
        resting: seen.resting,
        slots,
        fallback: None,
    })
}

/// One pass of the poll, judged as the daemon judges it.
async fn slots(session: Session) -> Result<Slots, Failure> {
    let ask = Ask { names: true, names_if_unknown: false, counters: None };
    let turn = Arc::new(session).turn(Arc::new(Names::default()), ask).await;
    let (identity, pass) = turn.outcome.map_err(|error| match error {
        TurnError::Failed(failure) => failure,
        TurnError::Lost(text) => Failure { kind: FailureKind::Stopped, text, sqlstate: None },
    })?;
    if let Some(failure) = observe::distrust(&pass.facts, &pass.activity) {
        return Err(failure);
    }
    let names = turn.names.and_then(Result::ok).unwrap_or_default();
    let cost = plimsoll_core::reading::postgres::Cost {
        poll_seconds: 0.0,
        server_seconds: pass.server_seconds,
        processor_seconds: None,
        budget_ratio: 0.0,
        next_after_seconds: 0.0,
    };
    let known = observe::Known { names: &names, counters: &[], counters_age: Duration::ZERO };
    let seen = observe::observation(identity, pass.facts, &pass.activity, known, None, cost);
    Ok(seen.slots())
}

/// All rows.
struct Seen {
    role: Role,
    settings: BTreeMap<String, Setting>,
    track_activities: Vec<Override>,
    resting: Vec<Resting>,
    tls: Option<(String, String)>,
    address: Option<String>,
    clock: Clock,
}

impl Seen {
    async fn read(client: &Client, rest: Duration) -> Result<Self, Error> {
        let role = client.query_one(ROLE, &[]).await?;
        let memberships = client.query(MEMBERSHIPS, &[]).await?;
        let settings = client.query(SETTINGS, &[]).await?;
        let overrides = client.query(OVERRIDES, &[]).await?;
        let resting = client.query(RESTING, &[&rest.as_secs_f64()]).await?;
        let way = client.query_one(WAY, &[]).await?;
        let tls = if way.try_get::<_, Option<bool>>("is_encrypted")? == Some(true) {
            let part = |column: &str| Ok::<_, Error>(text(&way, column)?.unwrap_or_default());
            Some((part("tls_version")?, part("tls_cipher")?))
        } else {
            None
        };
        Ok(Self {
            role: role_of(&role, &memberships)?,
            settings: settings.iter().map(setting).collect::<Result<_, _>>()?,
            track_activities: overrides.iter().map(override_of).collect::<Result<_, _>>()?,
            resting: resting.iter().map(resting_of).collect::<Result<_, _>>()?,
            tls,
            address: text(&way, "address")?,
            clock: Clock::read(client).await?,
        })
    }
}

fn text(row: &Row, column: &str) -> Result<Option<String>, Error> {
    Ok(row.try_get::<_, Option<Text<'_>>>(column)?.map(|text| text.0.into_owned()))
}

fn role_of(row: &Row, memberships: &[Row]) -> Result<Role, Error> {
    let membership = |row: &Row| {
        let place = match (row.try_get("has_rights")?, row.try_get("is_member")?) {
            (true, _) => Membership::Full,
            (false, true) => Membership::WithoutRights,
            (false, false) => Membership::None,
        };
        Ok::<_, Error>((text(row, "name")?.unwrap_or_default(), place))
    };
    Ok(Role {
        name: text(row, "name")?.unwrap_or_default(),
        database: text(row, "database")?.unwrap_or_default(),
        is_superuser: row.try_get("is_superuser")?,
        inherits: row.try_get("inherits")?,
        connection_limit: row.try_get("connection_limit")?,
        has_replication: row.try_get("has_replication")?,
        memberships: memberships.iter().map(membership).collect::<Result<_, _>>()?,
    })
}

fn setting(row: &Row) -> Result<(String, Setting), Error> {
    let part = |column: &str| Ok::<_, Error>(text(row, column)?.unwrap_or_default());
    Ok((part("name")?, Setting { value: part("setting")?, source: part("source")? }))
}

fn override_of(row: &Row) -> Result<Override, Error> {
    Ok(Override {
        role: text(row, "role")?,
        database: text(row, "database")?,
        value: text(row, "value")?.unwrap_or_default(),
    })
}

fn resting_of(row: &Row) -> Result<Resting, Error> {
    Ok(Resting {
        application: text(row, "application")?.unwrap_or_default(),
        connections: u32::try_from(row.try_get::<_, i32>("connections")?).unwrap_or(0),
    })
}

/// A question that a deadline ended.
const UNANSWERED: &str = "what was asked was not answered";

fn silence(what: &str, patience: Duration) -> Failure {
    let text = format!("{what} in {} s", patience.as_secs_f64());
    Failure { kind: FailureKind::TooSlow, text, sqlstate: None }
}
