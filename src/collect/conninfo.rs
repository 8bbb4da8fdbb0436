//! Connection strings as Postgres users write them: a URL or `key=value` pairs, and what they leave
//! to a service file, the `PG…` variables and `.pgpass`.
//!
//! Settings call [`ConnInfo::parse_in`] to check what the operator wrote; the Postgres source logs
//! in with the result. No error shows any part of the text but the names of known parameters: a
//! password with an unescaped `@` or `?` can stand anywhere in it.
//!
//! Nothing is read from disk here. Service files come in with the surroundings, the password file
//! and the certificates are read by the login, which may find others in them tomorrow.

mod hosts;
mod parameters;
pub(super) mod passfile;
mod service;
mod syntax;
mod tls;

use std::path::{Path, PathBuf};

use plimsoll_core::settings::{Secret, Surroundings};

pub(super) use self::hosts::{Host, Place};
use self::parameters::{Parameters, gather};
pub(super) use self::tls::{KeyFile, Roots, SslMode, TlsSettings};

/// Where a target is, and how to log in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// At least one; several are tried in this order, unless at random.
    pub(super) hosts: Vec<Host>,
    /// Without one, the name of the user that runs Plimsoll.
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    /// Where the password is looked up if there is none.
    pub(super) passfile: Option<PathBuf>,
    pub(super) dbname: String,
    /// What the operator wants set at login; our own settings come after it.
    pub(super) options: Option<String>,
    pub(super) tls: TlsSettings,
    pub(super) channel_binding: ChannelBinding,
    pub(super) wanted: Wanted,
    /// `load_balance_hosts=random`.
    pub(super) at_random: bool,
    /// What a probe calls itself; all else of ours has one name, whatever stands here.
    pub(super) application: Option<String>,
}

/// Whether a password's exchange must be bound to the TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// Which of several servers is meant: `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Any,
    /// Not in recovery, and transactions write by default.
    ReadWrite,
    ReadOnly,
    /// Not in recovery.
    Primary,
    Standby,
    /// A standby if any host is one.
    PreferStandby,
}

/// What is wrong with a connection string, or with what surrounds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnInfoError {
    /// Nothing in it, and nothing around it that says where the server is.
    #[error(
        "is empty, and no PGHOST or PGSERVICE says where the server is; expected \
         postgresql://user@host:5432/postgres"
    )]
    Empty,
    /// A URL that cannot be taken apart.
    #[error("is no connection URL: {0}")]
    Url(&'static str),
    /// `key=value` pairs that cannot be taken apart.
    #[error("is neither a URL nor key=value pairs: {0}")]
    Pairs(&'static str),
    /// A parameter that does not exist; it may be a part of a password, and is not shown.
    #[error("has an unknown parameter, number {position}{}", suggestion(*.meant))]
    UnknownParameter {
        /// Its place among the parameters, from 1.
        position: usize,
        /// The parameter that is spelled like it.
        meant: Option<&'static str>,
    },
    /// A parameter of libpq that this program does not understand.
    #[error("sets {parameter}{origin}, which is not supported")]
    Unsupported {
        /// Which.
        parameter: &'static str,
        /// Where it comes from, if not from the text: in brackets, with a space before them.
        origin: String,
    },
    /// A parameter with a value that it cannot have.
    #[error("has a {parameter}{origin} that cannot be used; expected {expected}")]
    Value {
        /// Which.
        parameter: &'static str,
        /// Where it comes from, as above.
        origin: String,
        /// What it can be.
        expected: &'static str,
    },
    /// Lists of hosts, addresses and ports that do not fit each other.
    #[error("lists {hosts} hosts and {others} {what}; expected one for each host")]
    Lists {
        /// So many hosts.
        hosts: usize,
        /// What does not fit: `ports`, `addresses`.
        what: &'static str,
        /// So many of those.
        others: usize,
    },
    /// More hosts than anybody has.
    #[error("lists more than {} hosts; a target is one server and its stand-ins", hosts::MAX_HOSTS)]
    TooManyHosts,
    /// A service that cannot be used. The sentence names files and lines, and nothing in them.
    #[error("{0}")]
    Service(String),
}

fn suggestion(meant: Option<&str>) -> String {
    meant.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

const DEFAULT_DATABASE: &str = "postgres";

/// The database that is PgBouncer's admin console.
const CONSOLE: &str = "pgbouncer";

/// Where libpq keeps what a user has for it, below the home folder.
const USER_FOLDER: &str = ".postgresql";

impl ConnInfo {
    /// Reads a connection string for itself: no file and no variable adds to it.
    pub fn parse(text: &Secret) -> Result<Self, ConnInfoError> {
        Self::parse_in(text, &Surroundings::default())
    }

    /// Reads a connection string. What it leaves out is taken from its service, then from the
    /// variables, then from the defaults, as in libpq.
    pub fn parse_in(text: &Secret, around: &Surroundings) -> Result<Self, ConnInfoError> {
        Self::parse_for(text, around, DEFAULT_DATABASE)
    }

    /// Reads the address of a pooler's admin console, which is the database `pgbouncer` unless it
    /// names another. A console is neither a primary nor a standby: what is asked of that is left.
    pub fn parse_console(text: &Secret, around: &Surroundings) -> Result<Self, ConnInfoError> {
        let info = Self::parse_for(text, around, CONSOLE)?;
        Ok(Self { wanted: Wanted::Any, ..info })
    }

    fn parse_for(
        text: &Secret,
        around: &Surroundings,
        default_database: &str,
    ) -> Result<Self, ConnInfoError> {
        let text = text.expose().trim();
        let url = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
        let pairs = match url {
            Some(rest) => syntax::url_pairs(rest)?,
            None if text.contains("://") => {
                return Err(ConnInfoError::Url("it begins with postgresql:// or postgres://"));
            }
            None => syntax::key_value_pairs(text)?,
        };
        let parameters = gather(&pairs, around)?;
        let says_where = ["host", "hostaddr", "service"].iter().any(|key| parameters.has(key));
        if text.is_empty() && !says_where {
            return Err(ConnInfoError::Empty);
        }
        Self::from_parameters(&parameters, around.home.as_deref(), default_database)
    }

    fn from_parameters(
        given: &Parameters,
        home: Option<&Path>,
        default_database: &str,
    ) -> Result<Self, ConnInfoError> {
        let user_folder = home.map(|home| home.join(USER_FOLDER));
        let passfile = given.get("passfile").map(PathBuf::from);
        Ok(Self {
            hosts: hosts::hosts(given)?,
            user: given.get("user").map(str::to_owned),
            password: given.get("password").map(Secret::new),
            passfile: passfile.or_else(|| home.map(|home| home.join(".pgpass"))),
            dbname: given.get("dbname").unwrap_or(default_database).to_owned(),
            options: given.get("options").map(str::to_owned),
            tls: tls::settings(given, user_folder.as_deref())?,
            channel_binding: given.one_of(
                "channel_binding",
                "disable, prefer or require",
                ChannelBinding::Prefer,
                |value| match value {
                    "disable" => Some(ChannelBinding::Disable),
                    "prefer" => Some(ChannelBinding::Prefer),
                    "require" => Some(ChannelBinding::Require),
                    _ => None,
                },
            )?,
            wanted: given.one_of("target_session_attrs", Wanted::ALL, Wanted::Any, Wanted::read)?,
            at_random: given.one_of("load_balance_hosts", "disable or random", false, |value| {
                match value {
                    "disable" => Some(false),
                    "random" => Some(true),
                    _ => None,
                }
            })?,
            application: given.get("application_name").map(str::to_owned),
        })
    }

    /// Who logs in, if anything says so.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The address for people: `host:port`, or the path of the socket; several with commas.
    pub fn address(&self) -> String {
        let addresses: Vec<String> = self.hosts.iter().map(Host::address).collect();
        addresses.join(",")
    }

    /// The name of a target that was given none: its first host, `localhost` for a socket.
    pub fn default_name(&self) -> String {
        match self.hosts.first().map(|host| &host.place) {
            Some(Place::Tcp { host, .. }) => host.clone(),
            Some(Place::Socket(_)) | None => "localhost".to_owned(),
        }
    }
}

impl Wanted {
    const ALL: &str = "any, read-write, read-only, primary, standby or prefer-standby";

    fn read(value: &str) -> Option<Self> {
        Some(match value {
            "any" => Self::Any,
            "read-write" => Self::ReadWrite,
            "read-only" => Self::ReadOnly,
            "primary" => Self::Primary,
            "standby" => Self::Standby,
            "prefer-standby" => Self::PreferStandby,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
