//! One login: from a name to a session, at anything that speaks Postgres' protocol.
//!
//! The way to the server has a deadline of its own; the login itself has none here, because a
//! backend that is stuck in it holds a slot for as long as it is. The source decides how long it
//! waits, and keeps the login until the server has decided it. Only where another host can be tried
//! instead is a silent one left; what it holds of ours is counted.
//!
//! The Postgres source, the probe and the pooler source log in through this.

pub(in crate::collect) mod failure;
mod key;
mod open;
mod password;
mod pooler;
pub(in crate::collect) mod progress;
mod socket;
mod walsender;
mod wary;

use std::future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::pki_types::ServerName;
use tokio_postgres::config::{self, SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use plimsoll_core::settings::PasswordFrom;

use failure::{LoginError, all_failed, chain};
use key::key_pid;
use open::{open, room};
use password::Password;
pub(in crate::collect) use progress::Progress;
pub(in crate::collect) use socket::Ledger;
use socket::Socket;
pub(in crate::collect) use walsender::Way;
use walsender::{Startup, StartupTls};
use wary::Wary;

use super::conninfo::{self, ChannelBinding, ConnInfo, Host, Place, Wanted};
use super::tls::{Checked, Tls, about, prepare};

/// What our sessions are called in `pg_stat_activity`, unless a probe's address says otherwise:
/// then it is counted where the application that it stands for is.
const APPLICATION_NAME: &str = "plimsoll";

/// A lock on a catalog is not waited for longer than this: the next tick tries again, and nobody
/// queues behind us meanwhile.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// What the server's machine is asked for, so that our slot is given back in 25 s when we die
/// without a word: 10 s of silence and three questions, or 25 s without a word that it was heard.
/// In the units of `pg_settings`.
pub const KEEPALIVE: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "25000"),
];

/// What is said where a target turns out to be none.
pub(in crate::collect) const A_POOLER: &str =
    "a pooler answers at this address; a target is the server itself";

/// A login that was not decided after so long is given up: what swallowed it may be a proxy that
/// will never answer. Its socket is still counted.
pub(in crate::collect) const LOGIN_AT_MOST: Duration = Duration::from_mins(15);

/// How long a session that is not wanted gets to say goodbye.
const GOODBYE_AT_MOST: Duration = Duration::from_secs(1);

/// Says what a server is, with the settings of its own.
const KIND: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')";

/// The same, and puts our own setting in place. Never through a pooler: the next client to be given
/// that connection of the pooler's would have it too.
const KIND_AND_OURS: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only'); \
     SET default_transaction_read_only = on";

/// Where a login goes, and who it is that logs in.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::collect) struct Access {
    /// Where the server is, and who we are there.
    pub(in crate::collect) conninfo: ConnInfo,
    /// Where the password is looked up at every login, if not in `conninfo` or around it.
    pub(in crate::collect) password: Option<PasswordFrom>,
    /// After so long the way to the server has failed. The login itself has no deadline here.
    pub(in crate::collect) timeout: Duration,
}

/// What a session is for, and so what is asked of the server at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::collect) enum Purpose {
    /// It polls for as long as it lasts.
    Watch {
        /// As a client backend, or as a walsender.
        way: Way,
        /// The server's own patience with our statements.
        statement_timeout: Duration,
    },
    /// It is a login as an application makes it: with nothing but what the address says.
    Probe,
    /// It is at the admin console of a pooler, which refuses most of what can be asked.
    Console,
}

impl Purpose {
    /// As a client backend, or as a walsender.
    fn way(self) -> Way {
        match self {
            Self::Watch { way, .. } => way,
            Self::Probe | Self::Console => Way::Ordinary,
        }
    }
}

/// A login that succeeded.
pub(in crate::collect) struct Login {
    /// The address of the host that let us in.
    pub(in crate::collect) address: String,
    pub(in crate::collect) client: Client,
    /// As what.
    pub(in crate::collect) way: Way,
    /// The process id that came with the cancel key.
    pub(in crate::collect) key_pid: Option<i32>,
    /// `server_version`, as the server says it without being asked.
    pub(in crate::collect) version: String,
    /// How much of the server's certificate was checked on the way.
    pub(in crate::collect) checked: Checked,
    /// Drives the connection to its end.
    pub(in crate::collect) drive: BoxFuture<'static, Result<(), tokio_postgres::Error>>,
}

impl Login {
    /// Asks over the simple protocol, while nobody else drives the connection.
    pub(in crate::collect) async fn ask(
        &mut self,
        statement: &str,
    ) -> Result<Vec<SimpleQueryMessage>, tokio_postgres::Error> {
        let mut asked = pin!(self.client.simple_query(statement));
        let ended = tokio::select! {
            biased;
            answer = &mut asked => return answer,
            ended = &mut self.drive => ended,
        };
        // What was said last and then closed is still on its way to us, and says more than that it
        // was closed. Without its driver the connection answers at once.
        self.drive = Box::pin(future::ready(Ok(())));
        match (asked.await, ended) {
            (Err(answer), Err(ended)) if answer.as_db_error().is_none() => Err(ended),
            (answer, _) => answer,
        }
    }

    /// Leaves, as the protocol has it; a server that does not even take that finds us gone.
    pub(in crate::collect) async fn say_goodbye(self) {
        drop(self.client);
        drop(tokio::time::timeout(GOODBYE_AT_MOST, self.drive).await);
    }
}

/// Logs in, at the first host that is what was asked for.
pub(in crate::collect) async fn login(
    access: Access,
    ledger: Ledger,
    progress: Arc<Progress>,
    purpose: Purpose,
) -> Result<Login, LoginError> {
    let info = &access.conninfo;
    let attempt = Attempt {
        password: Password::of(&access).await?,
        tls: tls(info).await?,
        user: info.user.clone().or_else(|| whoami::username().ok()).unwrap_or_default(),
        access: &access,
        ledger,
        progress,
        purpose,
    };
    let mut hosts: Vec<&Host> = info.hosts.iter().collect();
    if info.at_random {
        fastrand::shuffle(&mut hosts);
    }
    let mut failures = Vec::new();
    if info.wanted == Wanted::PreferStandby && hosts.len() > 1 {
        if let Some(login) = attempt.at_each(&hosts, Wanted::Standby, false, &mut failures).await {
            return Ok(login);
        }
        let is_other = |failure: &LoginError| matches!(failure, LoginError::OtherKind { .. });
        let is_decided = failures.last().is_some_and(LoginError::is_decided);
        if is_decided || !failures.iter().any(is_other) {
            return Err(all_failed(failures));
        }
        // One of another kind is there after all.
        failures.clear();
    }
    let login = attempt.at_each(&hosts, info.wanted, true, &mut failures).await;
    login.ok_or_else(|| all_failed(failures))
}

/// All that a login needs, wherever it leads to.
struct Attempt<'a> {
    access: &'a Access,
    password: Password,
    tls: Option<Tls>,
    /// For `.pgpass`.
    user: String,
    ledger: Ledger,
    progress: Arc<Progress>,
    purpose: Purpose,
}

/// With TLS or without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encryption {
    Plain,
    /// Plain if the server has none.
    TlsIfOffered,
    Tls,
}

impl Attempt<'_> {
    /// One host after another; none if all fail, or one has decided.
    async fn at_each(
        &self,
        hosts: &[&Host],
        wanted: Wanted,
        is_last_pass: bool,
        failures: &mut Vec<LoginError>,
    ) -> Option<Login> {
        let share = self.access.timeout / u32::try_from(hosts.len()).unwrap_or(u32::MAX).max(1);
        for (index, host) in hosts.iter().enumerate() {
            let attempt = self.at(host, share, wanted);
            // The last one is waited for until the server decides: see the source.
            let is_last = is_last_pass && index + 1 == hosts.len();
            let attempted = if is_last {
                attempt.await
            } else {
                tokio::time::timeout(share, attempt).await.unwrap_or_else(|_| {
                    let (address, seconds) = (host.address(), share.as_secs_f64());
                    Err(LoginError::Silent { address, seconds })
                })
            };
            match attempted {
                Ok(login) => return Some(login),
                Err(error) => failures.push(error),
            }
            if failures.last().is_some_and(LoginError::is_decided) {
                break;
            }
        }
        None
    }

    /// At one host, in the ways that `sslmode` allows, on one socket after another.
    async fn at(&self, host: &Host, share: Duration, wanted: Wanted) -> Result<Login, LoginError> {
        let mut failures: Vec<LoginError> = Vec::new();
        for encryption in self.encryptions(host) {
            let handshook = AtomicBool::new(false);
            match self.once(host, *encryption, share, &handshook).await {
                Ok(login) => return self.only_if(host, login, wanted).await,
                Err(error) => {
                    let with_tls = handshook.load(Ordering::Relaxed);
                    let other_way_may_do = match encryption {
                        Encryption::Plain => error.is_of_hba(),
                        Encryption::TlsIfOffered => {
                            with_tls && (error.is_of_hba() || error.is_of_handshake())
                        }
                        Encryption::Tls => false,
                    };
                    failures.push(error);
                    if !other_way_may_do {
                        break;
                    }
                }
            }
        }
        Err(all_failed(failures))
    }

    /// Postgres has no TLS on a Unix socket, and libpq ignores sslmode there.
    fn encryptions(&self, host: &Host) -> &'static [Encryption] {
        if matches!(host.place, Place::Socket(_)) {
            return &[Encryption::Plain];
        }
        match self.access.conninfo.tls.mode {
            conninfo::SslMode::Disable => &[Encryption::Plain],
            conninfo::SslMode::Allow => &[Encryption::Plain, Encryption::Tls],
            conninfo::SslMode::Prefer => &[Encryption::TlsIfOffered, Encryption::Plain],
            conninfo::SslMode::Require
            | conninfo::SslMode::VerifyCa
            | conninfo::SslMode::VerifyFull => &[Encryption::Tls],
        }
    }

    async fn once(
        &self,
        host: &Host,
        encryption: Encryption,
        share: Duration,
        handshook: &AtomicBool,
    ) -> Result<Login, LoginError> {
        let config = self.config(host, encryption);
        let way = self.purpose.way();
        let ledger = self.ledger.at(host.address());
        room(host, share, &ledger).await?;
        self.progress.note_attempt();
        let socket = open(host, share, &ledger).await?;
        self.progress.note_reached();
        let let_in = socket.let_in();
        let socket = Startup::new(socket, way);
        let tls = self.tls.as_ref().filter(|_| encryption != Encryption::Plain);
        let failed = |source| self.failed(host, tls, source);
        let version = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let (client, version, drive): (_, _, BoxFuture<'static, _>) = if let Some(tls) = tls {
            let connect = MakeTlsConnect::<Startup<Socket>>::make_tls_connect(
                &mut tls.make.clone(),
                server_name(host, tls.checked),
            );
            let connect = connect.expect("making a rustls connector cannot fail");
            let noted = Wary(Noted { connect, begun: handshook });
            let noted = StartupTls { tls: noted, way, progress: Arc::clone(&self.progress) };
            let (client, connection) = config.connect_raw(socket, noted).await.map_err(failed)?;
            (client, version(connection.parameter("server_version")), Box::pin(connection))
        } else {
            let (client, connection) = config.connect_raw(socket, NoTls).await.map_err(failed)?;
            (client, version(connection.parameter("server_version")), Box::pin(connection))
        };
        self.progress.note_let_in();
        // What a probe asks for is answered with a few bytes: it goes on hearing little.
        let_in.store(self.purpose != Purpose::Probe, Ordering::Relaxed);
        let key_pid = key_pid(&client).await;
        let checked = tls.map_or(Checked::Nothing, |tls| tls.checked);
        Ok(Login { address: host.address(), client, way, key_pid, version, checked, drive })
    }

    /// The login, if the server is of the kind that is wanted; else it is left politely.
    async fn only_if(
        &self,
        host: &Host,
        mut login: Login,
        wanted: Wanted,
    ) -> Result<Login, LoginError> {
        if wanted == Wanted::Any {
            return Ok(login);
        }
        let ask = match self.purpose {
            Purpose::Watch { .. } => KIND_AND_OURS,
            Purpose::Probe | Purpose::Console => KIND,
        };
        let answer = login.ask(ask).await.map_err(|source| self.failed(host, None, source))?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((row.get(0) == Some("t"), row.get(1))),
            _ => None,
        });
        let (is_standby, read_only) = row.unwrap_or((false, None));
        let writes = !is_standby && read_only == Some("off");
        let is_wanted = match wanted {
            Wanted::Any | Wanted::PreferStandby => true,
            Wanted::ReadWrite => writes,
            Wanted::ReadOnly => !writes,
            Wanted::Primary => !is_standby,
            Wanted::Standby => is_standby,
        };
        if is_wanted {
            return Ok(login);
        }
        login.say_goodbye().await;
        let found = match (is_standby, writes) {
            (true, _) => "a standby",
            (false, true) => "a primary",
            (false, false) => "a primary that is read-only",
        };
        Err(LoginError::OtherKind { address: host.address(), found })
    }

    /// What the driver says, in words that help.
    fn failed(&self, host: &Host, tls: Option<&Tls>, source: tokio_postgres::Error) -> LoginError {
        let mut said = chain(&source);
        let name = server_name(host, Checked::AuthorityAndName);
        let of_tls = tls.and_then(|tls| about(&source, name, &tls.authorities));
        if let Some(sentence) = of_tls {
            said = sentence;
        } else if said.contains("password missing") {
            said = format!("the server asks for a password; {}", self.password.why_none());
        } else if said.contains("channel binding") {
            said.push_str(
                "; channel_binding=require needs TLS, a password stored as SCRAM, and a \
                 certificate that is signed with a hash (RSA or ECDSA, not ed25519)",
            );
        } else if said.contains("unsupported startup parameter")
            && matches!(self.purpose, Purpose::Watch { .. })
        {
            // PgBouncer's words (client.c); a server knows all that we ask for.
            said = format!("{A_POOLER}: {said}");
        } else if self.access.conninfo.tls.direct && source.as_db_error().is_none() {
            said.push_str("; sslnegotiation=direct needs PostgreSQL 17");
        }
        LoginError::Login { address: host.address(), said, source }
    }

    fn config(&self, host: &Host, encryption: Encryption) -> Config {
        let info = &self.access.conninfo;
        let mut config = Config::new();
        if let Some(user) = &info.user {
            config.user(user.as_str());
        }
        if let Some(password) = self.password.at(host, info, &self.user) {
            config.password(password);
        }
        let application = match self.purpose {
            Purpose::Probe => info.application.as_deref().unwrap_or(APPLICATION_NAME),
            Purpose::Watch { .. } | Purpose::Console => APPLICATION_NAME,
        };
        config.dbname(info.dbname.as_str()).application_name(application);
        let options = match self.purpose {
            Purpose::Watch { statement_timeout, .. } => {
                // Else the server's own setting could not be seen; it is set as soon as it was.
                let read_only = !matches!(info.wanted, Wanted::ReadWrite | Wanted::ReadOnly);
                Some(options(info.options.as_deref(), statement_timeout, read_only))
            }
            Purpose::Probe => info.options.clone(),
            // PgBouncer ends a session that asks for any.
            Purpose::Console => None,
        };
        if let Some(options) = options {
            config.options(options);
        }
        config
            .channel_binding(match info.channel_binding {
                ChannelBinding::Disable => config::ChannelBinding::Disable,
                ChannelBinding::Prefer => config::ChannelBinding::Prefer,
                ChannelBinding::Require => config::ChannelBinding::Require,
            })
            .ssl_mode(match encryption {
                Encryption::Plain => SslMode::Disable,
                Encryption::TlsIfOffered => SslMode::Prefer,
                Encryption::Tls => SslMode::Require,
            });
        if info.tls.direct && encryption == Encryption::Tls {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        config
    }
}

/// The name that the server's certificate is for, and that it is told in the handshake. Where
/// nobody looks at it, one that cannot be a server's name does not stand in the way.
fn server_name(host: &Host, checked: Checked) -> &str {
    let any_will_do = checked != Checked::AuthorityAndName;
    match &host.place {
        Place::Tcp { host, .. } if any_will_do && ServerName::try_from(host.as_str()).is_err() => {
            "0.0.0.0"
        }
        Place::Tcp { host, .. } => host,
        Place::Socket(_) => "localhost",
    }
}

/// TLS, if any of the hosts may be asked for it. Certificates are read from disk, away from the
/// other tasks.
async fn tls(info: &ConnInfo) -> Result<Option<Tls>, LoginError> {
    if info.hosts.iter().all(|host| matches!(host.place, Place::Socket(_))) {
        return Ok(None);
    }
    let settings = info.tls.clone();
    match tokio::task::spawn_blocking(move || prepare(&settings)).await {
        Ok(prepared) => Ok(prepared?),
        Err(join) => std::panic::resume_unwind(join.into_panic()),
    }
}

/// Notes that the server has agreed to TLS.
struct Noted<'a, C> {
    connect: C,
    begun: &'a AtomicBool,
}

impl<S, C: TlsConnect<S>> TlsConnect<S> for Noted<'_, C> {
    type Stream = C::Stream;
    type Error = C::Error;
    type Future = C::Future;

    fn connect(self, stream: S) -> Self::Future {
        self.begun.store(true, Ordering::Relaxed);
        self.connect.connect(stream)
    }
}

/// What every session of ours has from its first statement on, stronger than what is set for the
/// role or the database. Our own comes last and wins.
fn options(theirs: Option<&str>, statement_timeout: Duration, read_only: bool) -> String {
    let ours = [
        ("statement_timeout", statement_timeout.as_millis().to_string()),
        ("lock_timeout", LOCK_TIMEOUT.as_millis().to_string()),
        // With room for the statements of thousands of sessions; else they go through a file.
        ("work_mem", "32MB".to_owned()),
        // Names are not looked up anywhere else, whatever a role's search_path says.
        ("search_path", "pg_catalog".to_owned()),
        // Compiling a poll costs more than any poll.
        ("jit", "off".to_owned()),
        // Planning again would look into catalogs that may be locked.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
    ];
    let keepalive = KEEPALIVE.map(|(name, value)| (name, value.to_owned()));
    let ours = ours.into_iter().chain(keepalive).map(|(name, value)| format!("-c {name}={value}"));
    let read_only = read_only.then_some("-c default_transaction_read_only=on");
    let ours = ours.chain(read_only.map(str::to_owned));
    let all: Vec<String> = theirs.map(str::to_owned).into_iter().chain(ours).collect();
    all.join(" ")
}
