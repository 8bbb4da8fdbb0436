//! Connection strings as Postgres users write them: a URL, or `key=value` pairs.
//!
//! Settings call [`ConnInfo::parse`] to check what the operator wrote; the Postgres source logs in
//! with the result. No error shows any part of the text but the names of known parameters: a
//! password with an unescaped `@` or `?` can stand anywhere in it.

mod syntax;

use std::net::IpAddr;
use std::path::PathBuf;

use plimsoll_core::settings::Secret;

use self::syntax::Pair;

/// Where a target is, and how to log in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    pub(super) place: Place,
    pub(super) port: u16,
    /// Without one, the name of the user that runs Plimsoll.
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) dbname: String,
    /// What the operator wants set at login; our own settings come after it.
    pub(super) options: Option<String>,
    pub(super) tls: TlsMode,
    pub(super) channel_binding_required: bool,
}

/// What answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A host name, or an address as text; `address` saves the name from being resolved.
    Tcp { host: String, address: Option<IpAddr> },
    /// The folder of a Unix socket.
    Socket(PathBuf),
}

/// How much of TLS is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TlsMode {
    /// None.
    Disable,
    /// If the server has it; its certificate is not checked.
    Prefer,
    /// Or no login; the certificate is not checked.
    Require,
    /// The certificate must be of a known authority, or of those in a file, and for this host.
    VerifyFull { roots: Option<PathBuf> },
}

/// What is wrong with a connection string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnInfoError {
    /// Nothing in it.
    #[error("is empty; expected postgresql://user@host:5432/postgres")]
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
    #[error("sets {0}, which is not supported")]
    Unsupported(&'static str),
    /// A parameter with a value that it cannot have.
    #[error("has a {parameter} that cannot be used; expected {expected}")]
    Value {
        /// Which.
        parameter: &'static str,
        /// What it can be.
        expected: &'static str,
    },
    /// More than one server.
    #[error("names several hosts; a target is one server: make a target of each")]
    SeveralHosts,
}

fn suggestion(meant: Option<&str>) -> String {
    meant.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// The parameters that are understood.
const KNOWN: [&str; 18] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "options",
    "sslmode",
    "sslrootcert",
    "channel_binding",
    "gssencmode",
    "target_session_attrs",
    // Set by ourselves, whatever the connection string says.
    "application_name",
    "fallback_application_name",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
];

/// Parameters of libpq whose absence would change who or what is talked to.
const UNSUPPORTED: [&str; 9] = [
    "service",
    "passfile",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslnegotiation",
    "requirepeer",
    "replication",
];

const SSLMODES: &str = "disable, prefer, require or verify-full";
const DEFAULT_PORT: u16 = 5432;
/// Where Debian's libpq looks for a socket.
const DEFAULT_SOCKET_FOLDER: &str = "/var/run/postgresql";
const DEFAULT_DATABASE: &str = "postgres";

impl ConnInfo {
    /// Reads a connection string.
    pub fn parse(text: &Secret) -> Result<Self, ConnInfoError> {
        let text = text.expose().trim();
        if text.is_empty() {
            return Err(ConnInfoError::Empty);
        }
        let url = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
        let pairs = match url {
            Some(rest) => syntax::url_pairs(rest)?,
            None if text.contains("://") => {
                return Err(ConnInfoError::Url("it begins with postgresql:// or postgres://"));
            }
            None => syntax::key_value_pairs(text)?,
        };
        Self::from_pairs(&pairs)
    }

    fn from_pairs(pairs: &[Pair]) -> Result<Self, ConnInfoError> {
        for (index, (key, _)) in pairs.iter().enumerate() {
            check_key(key, index + 1)?;
        }
        // The last one wins, and an empty value is none, as in libpq.
        let get = |key: &str| {
            let last = pairs.iter().rev().find(|(name, _)| name == key);
            last.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        if [get("host"), get("hostaddr"), get("port")].iter().flatten().any(|v| v.contains(',')) {
            return Err(ConnInfoError::SeveralHosts);
        }
        check_ignored(get("gssencmode"), get("target_session_attrs"))?;
        let place = place(get("host"), get("hostaddr"))?;
        let tls = tls_mode(&place, get("sslmode"), get("sslrootcert"))?;
        let channel_binding_required = match get("channel_binding") {
            None | Some("prefer" | "disable") => false,
            Some("require") => true,
            Some(_) => return Err(value("channel_binding", "disable, prefer or require")),
        };
        Ok(Self {
            place,
            port: get("port").map_or(Ok(DEFAULT_PORT), port)?,
            user: get("user").map(str::to_owned),
            password: get("password").map(Secret::new),
            dbname: get("dbname").unwrap_or(DEFAULT_DATABASE).to_owned(),
            options: get("options").map(str::to_owned),
            tls,
            channel_binding_required,
        })
    }

    /// The address for people: `host:port`, or the path of the socket.
    pub fn address(&self) -> String {
        let port = self.port;
        match &self.place {
            Place::Tcp { host, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp { host, .. } => format!("{host}:{port}"),
            Place::Socket(folder) => self.socket_path(folder).display().to_string(),
        }
    }

    /// The name of a target that was given none: its host, `localhost` for a socket.
    pub fn default_name(&self) -> String {
        match &self.place {
            Place::Tcp { host, .. } => host.clone(),
            Place::Socket(_) => "localhost".to_owned(),
        }
    }

    pub(super) fn socket_path(&self, folder: &std::path::Path) -> PathBuf {
        folder.join(format!(".s.PGSQL.{}", self.port))
    }
}

fn value(parameter: &'static str, expected: &'static str) -> ConnInfoError {
    ConnInfoError::Value { parameter, expected }
}

fn check_key(key: &str, position: usize) -> Result<(), ConnInfoError> {
    if KNOWN.contains(&key) {
        return Ok(());
    }
    if let Some(unsupported) = UNSUPPORTED.iter().find(|name| **name == key) {
        return Err(ConnInfoError::Unsupported(unsupported));
    }
    let plain: String = key.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let meant = match plain.as_str() {
        "database" | "db" => Some("dbname"),
        "username" => Some("user"),
        "pass" | "passwd" => Some("password"),
        "ssl" | "tls" => Some("sslmode"),
        _ => KNOWN.into_iter().find(|name| name.replace('_', "") == plain),
    };
    Err(ConnInfoError::UnknownParameter { position, meant })
}

/// Parameters that are accepted where they ask for what is done anyway.
fn check_ignored(gss: Option<&str>, attributes: Option<&str>) -> Result<(), ConnInfoError> {
    if !matches!(gss, None | Some("disable" | "prefer")) {
        return Err(value("gssencmode", "disable or prefer"));
    }
    if !matches!(attributes, None | Some("any")) {
        return Err(value(
            "target_session_attrs",
            "any: a target is one server, whatever its role",
        ));
    }
    Ok(())
}

fn place(host: Option<&str>, address: Option<&str>) -> Result<Place, ConnInfoError> {
    let address = address.map(str::parse::<IpAddr>).transpose();
    let address = address.map_err(|_| value("hostaddr", "an IP address"))?;
    Ok(match (host, address) {
        (Some(folder), None) if folder.starts_with('/') => Place::Socket(folder.into()),
        (Some(host), address) => Place::Tcp { host: host.to_owned(), address },
        (None, Some(address)) => Place::Tcp { host: address.to_string(), address: Some(address) },
        (None, None) => Place::Socket(DEFAULT_SOCKET_FOLDER.into()),
    })
}

fn port(text: &str) -> Result<u16, ConnInfoError> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or(value("port", "a number from 1 to 65535"))
}

fn tls_mode(
    place: &Place,
    mode: Option<&str>,
    roots: Option<&str>,
) -> Result<TlsMode, ConnInfoError> {
    let mode = match mode {
        Some("disable") => TlsMode::Disable,
        None | Some("prefer") => TlsMode::Prefer,
        Some("require") => TlsMode::Require,
        Some("verify-full") => {
            TlsMode::VerifyFull { roots: roots.filter(|r| *r != "system").map(PathBuf::from) }
        }
        Some(_) => return Err(value("sslmode", SSLMODES)),
    };
    if roots.is_some() && !matches!(mode, TlsMode::VerifyFull { .. }) {
        return Err(value("sslrootcert", "sslmode=verify-full beside it"));
    }
    // Postgres has no TLS on a Unix socket, and libpq ignores sslmode there.
    Ok(if matches!(place, Place::Socket(_)) { TlsMode::Disable } else { mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConnInfo, ConnInfoError> {
        ConnInfo::parse(&Secret::new(text))
    }

    /// Address, default name, user, password, database, TLS.
    fn check(text: &str, expected: [&str; 6]) {
        let info = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let seen = [
            info.address(),
            info.default_name(),
            info.user.unwrap_or_default(),
            info.password.map(|p| p.expose().to_owned()).unwrap_or_default(),
            info.dbname,
            format!("{:?}", info.tls),
        ];
        assert_eq!(seen, expected, "{text}");
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        check("postgresql://db", ["db:5432", "db", "", "", "postgres", "Prefer"]);
        check(
            "postgres://plimsoll:p%40ss%3Aw%2Frd@db.example:6432/app?sslmode=require",
            ["db.example:6432", "db.example", "plimsoll", "p@ss:w/rd", "app", "Require"],
        );
        check(
            "postgresql://u@[2001:db8::1]:5433/?sslmode=disable",
            ["[2001:db8::1]:5433", "2001:db8::1", "u", "", "postgres", "Disable"],
        );
        let socket = ["/run/pg/.s.PGSQL.5433", "localhost", "u", "", "app", "Disable"];
        check("postgresql:///app?host=/run/pg&port=5433&user=u", socket);
        check("postgresql://u@%2Frun%2Fpg:5433/app?sslmode=verify-full", socket);
        check(
            "postgresql://",
            ["/var/run/postgresql/.s.PGSQL.5432", "localhost", "", "", "postgres", "Disable"],
        );
        // Everything before the last '@' is the login, as people write it and libpq does not.
        check("postgresql://u:p@ss@db/", ["db:5432", "db", "u", "p@ss", "postgres", "Prefer"]);
        check(
            "postgresql://db?sslmode=verify-full&sslrootcert=/ca.pem",
            ["db:5432", "db", "", "", "postgres", "VerifyFull { roots: Some(\"/ca.pem\") }"],
        );
        check(
            "postgresql://db?sslmode=verify-full&sslrootcert=system",
            ["db:5432", "db", "", "", "postgres", "VerifyFull { roots: None }"],
        );
    }

    #[test]
    fn pairs_are_read_as_libpq_reads_them() {
        check(
            r"host = db port=5433 user='o\'brien' password = 'a b\\c' dbname=app",
            ["db:5433", "db", "o'brien", r"a b\c", "app", "Prefer"],
        );
        check(
            "hostaddr=10.0.0.7 user=a user=b password='' connect_timeout=3",
            ["10.0.0.7:5432", "10.0.0.7", "b", "", "postgres", "Prefer"],
        );
        check(
            "host=/run/pg sslmode=require",
            ["/run/pg/.s.PGSQL.5432", "localhost", "", "", "postgres", "Disable"],
        );
        let both = parse("host=db.example hostaddr=10.0.0.7").unwrap();
        assert_eq!(both.address(), "db.example:5432");
        let Place::Tcp { address, .. } = both.place else { panic!("not TCP") };
        assert_eq!(address, Some("10.0.0.7".parse().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_said_without_any_part_of_the_text() {
        // Each has "canary" where a password is, or may be by mistake.
        let cases = [
            ("", "is empty; expected postgresql://user@host:5432/postgres"),
            ("mysql://u:canary@db", "it begins with postgresql:// or postgres://"),
            ("canary", "is neither a URL nor key=value pairs: a word stands without '='"),
            ("password=my canary host=db", "a word stands without '='"),
            ("password='canary", "a quoted value has no closing quote"),
            ("postgresql://u:my?canary@db", "an '@' stands behind a '/' or '?'"),
            ("postgresql://u:my/canary@db", "an '@' stands behind a '/' or '?'"),
            ("postgresql://u:canary%4@db", "a '%' is not followed by two hexadecimal digits"),
            ("postgresql://u:canary@db:port", "has a port that cannot be used"),
            ("postgresql://u:canary@db:0", "expected a number from 1 to 65535"),
            ("postgresql://u:canary@::1/", "an IPv6 address stands in '[' and ']'"),
            ("postgresql://u:canary@[::1/", "an IPv6 address has no closing ']'"),
            ("postgresql://u:canary@a,b/", "names several hosts"),
            ("host=a,b password=canary", "names several hosts"),
            ("host=db canary=1", "has an unknown parameter, number 2"),
            ("host=db ssl_mode=canary", "number 2; did you mean sslmode?"),
            ("postgresql://db?database=canary", "did you mean dbname?"),
            ("postgresql://db?sslmode=canary", SSLMODES),
            ("postgresql://db?sslmode=verify-ca", SSLMODES),
            ("postgresql://db?sslrootcert=canary", "sslmode=verify-full beside it"),
            ("service=canary", "sets service, which is not supported"),
            ("host=db target_session_attrs=primary", "a target is one server"),
            ("hostaddr=canary", "has a hostaddr that cannot be used; expected an IP address"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains(expected), "{text}: {said}");
            assert!(!said.contains("canary"), "{text}: {said}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let info = parse("postgresql://u:canary@db").unwrap();
        assert!(!format!("{info:?}").contains("canary"));
    }
}
