//! The parameters of a connection, wherever they come from: the text, a service, a variable.
//!
//! Which names there are, and which wins. What the values mean is for those who ask for them.

use std::collections::BTreeMap;

use plimsoll_core::settings::{Secret, Surroundings};

use super::syntax::Pair;
use super::{ConnInfoError, service};

/// The parameters that are understood.
const KNOWN: [&str; 19] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "passfile",
    "service",
    "dbname",
    "options",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcertmode",
    "sslnegotiation",
    "channel_binding",
    "target_session_attrs",
    "load_balance_hosts",
    "application_name",
];

/// Parameters that change nothing here: what they set is set by ourselves, or is about protocols
/// that are not spoken.
const IGNORED: [&str; 14] = [
    "fallback_application_name",
    "client_encoding",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslcompression",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "min_protocol_version",
    "max_protocol_version",
];

/// Parameters that are accepted where they ask for what is done anyway.
const FIXED: [(&str, &[&str], &str); 4] = [
    ("gssencmode", &["disable", "prefer"], "disable or prefer"),
    ("sslsni", &["1"], "1"),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"], "TLSv1.2"),
    ("ssl_max_protocol_version", &["TLSv1.3"], "TLSv1.3"),
];

/// Parameters of libpq whose absence would change who or what is talked to.
const UNSUPPORTED: [&str; 15] = [
    "servicefile",
    "sslpassword",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "requiressl",
    "requirepeer",
    "requireauth",
    "replication",
    "scram_client_key",
    "scram_server_key",
    "oauth_issuer",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_scope",
];

/// The variables of libpq (the manual, "Environment Variables") that stand for a parameter. Those
/// that only set something in the session (`PGTZ`, `PGDATESTYLE`, `PGGEQO`) have no place here.
const VARIABLES: [(&str, &str); 27] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGDATABASE", "dbname"),
    ("PGOPTIONS", "options"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGSSLSNI", "sslsni"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGREQUIRESSL", "requiressl"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGREQUIREAUTH", "requireauth"),
    ("PGSERVICE", "service"),
];

/// Says where the server is; both are taken from one place.
const WHERE: [&str; 2] = ["host", "hostaddr"];

/// The parameters of one connection, each from the first place that gives it.
pub(super) struct Parameters(BTreeMap<&'static str, Given>);

struct Given {
    value: String,
    /// For errors: empty for the text itself.
    origin: String,
}

/// Lays the text over its service, that over the variables.
pub(super) fn gather(pairs: &[Pair], around: &Surroundings) -> Result<Parameters, ConnInfoError> {
    let mut all = Parameters(BTreeMap::new());
    for (index, (key, value)) in pairs.iter().enumerate() {
        let name = known(key, index + 1)?;
        // The last one wins. An empty value is none, and takes none from elsewhere.
        all.0.insert(name, Given { value: value.clone(), origin: String::new() });
    }
    let variable = |name: &str| around.variables.get(name).map(Secret::expose);
    if !all.0.contains_key("service")
        && let Some(name) = variable("PGSERVICE").filter(|name| !name.is_empty())
    {
        let origin = " (from PGSERVICE)".to_owned();
        all.0.insert("service", Given { value: name.to_owned(), origin });
    }
    if let Some(name) = all.get("service") {
        let read = service::find(name, &around.service_files)?;
        all.lay_below(read.into_iter().map(|setting| {
            (
                setting.key,
                setting.value,
                format!(" (from line {} of {})", setting.line, setting.file),
            )
        }));
    }
    // An empty variable is as good as none.
    let variables = VARIABLES.iter().filter_map(|(name, key)| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        Some((*key, value.to_owned(), format!(" (from {name})")))
    });
    all.lay_below(variables);
    all.check()?;
    Ok(all)
}

impl Parameters {
    fn lay_below(&mut self, layer: impl Iterator<Item = (&'static str, String, String)>) {
        let knows_where = WHERE.iter().any(|key| self.0.contains_key(key));
        for (key, value, origin) in layer {
            if !(knows_where && WHERE.contains(&key)) {
                self.0.entry(key).or_insert(Given { value, origin });
            }
        }
    }

    fn check(&self) -> Result<(), ConnInfoError> {
        for (name, given) in self.0.iter().filter(|(_, given)| !given.value.is_empty()) {
            if UNSUPPORTED.contains(name) {
                let origin = given.origin.clone();
                return Err(ConnInfoError::Unsupported { parameter: name, origin });
            }
            if let Some((_, accepted, expected)) = FIXED.iter().find(|(fixed, ..)| fixed == name)
                && !accepted.contains(&given.value.as_str())
            {
                return Err(self.wrong(name, expected));
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|given| given.value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A parameter whose value is one of a few words.
    pub(super) fn one_of<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        default: T,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConnInfoError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => read(value).ok_or_else(|| self.wrong(key, expected)),
        }
    }

    /// The error for a parameter whose value cannot be used.
    pub(super) fn wrong(&self, parameter: &'static str, expected: &'static str) -> ConnInfoError {
        let origin = self.0.get(parameter).map(|given| given.origin.clone()).unwrap_or_default();
        ConnInfoError::Value { parameter, origin, expected }
    }
}

/// The parameter of this name, used or not.
pub(super) fn named(key: &str) -> Option<&'static str> {
    let fixed = FIXED.iter().map(|(name, ..)| *name);
    let all = KNOWN.into_iter().chain(IGNORED).chain(UNSUPPORTED).chain(fixed);
    all.into_iter().find(|name| *name == key)
}

fn known(key: &str, position: usize) -> Result<&'static str, ConnInfoError> {
    if let Some(name) = named(key) {
        return Ok(name);
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
