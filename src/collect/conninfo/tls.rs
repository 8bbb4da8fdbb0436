//! How much of TLS a connection string asks for, and with which files.

use std::path::{Path, PathBuf};

use super::ConnInfoError;
use super::parameters::Parameters;

/// TLS, as asked for. Files are named and not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::collect) struct TlsSettings {
    pub(in crate::collect) mode: SslMode,
    pub(in crate::collect) roots: Roots,
    /// Our own certificate and its key; none if there is neither one nor a place for one.
    pub(in crate::collect) own: Option<KeyFile>,
    /// TLS from the first byte, without asking (17 and later).
    pub(in crate::collect) direct: bool,
}

/// `sslmode`, in libpq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::collect) enum SslMode {
    Disable,
    /// Only if the server wants it.
    Allow,
    /// Unless the server has none.
    Prefer,
    /// Or no login. The certificate is checked if there is a file of roots.
    Require,
    /// The certificate must be of an authority that is known.
    VerifyCa,
    /// … and for this host.
    VerifyFull,
}

/// Whose certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::collect) enum Roots {
    /// Those of a file that must be there.
    File(PathBuf),
    /// Those of the user's own file, if it is there: `~/.postgresql/root.crt`.
    UserFile(PathBuf),
    /// Those that this machine trusts.
    System,
}

/// Our own certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::collect) struct KeyFile {
    pub(in crate::collect) certificate: PathBuf,
    pub(in crate::collect) key: PathBuf,
    /// It was asked for; the user's own is used if it is there.
    pub(in crate::collect) required: bool,
}

const MODES: &str = "disable, allow, prefer, require, verify-ca or verify-full";

/// Reads what is asked for; `folder` is the user's own, `~/.postgresql`.
pub(super) fn settings(
    given: &Parameters,
    folder: Option<&Path>,
) -> Result<TlsSettings, ConnInfoError> {
    let roots = roots(given, folder);
    // As in libpq: who trusts the world's authorities must look at the name, too.
    let default = match given.get("sslrootcert") {
        Some("system") => SslMode::VerifyFull,
        _ => SslMode::Prefer,
    };
    let mode = given.one_of("sslmode", MODES, default, |value| {
        Some(match value {
            "disable" => SslMode::Disable,
            "allow" => SslMode::Allow,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return None,
        })
    })?;
    if given.get("sslrootcert") == Some("system") && mode != SslMode::VerifyFull {
        return Err(given.wrong("sslmode", "verify-full beside sslrootcert=system"));
    }
    if mode == SslMode::VerifyCa && roots == Roots::System {
        let expected = "a file of certificates beside sslmode=verify-ca";
        return Err(given.wrong("sslrootcert", expected));
    }
    let direct =
        given.one_of("sslnegotiation", "postgres or direct", false, |value| match value {
            "postgres" => Some(false),
            "direct" => Some(true),
            _ => None,
        })?;
    if direct && matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer) {
        let expected = "postgres, or sslmode=require or stronger beside direct";
        return Err(given.wrong("sslnegotiation", expected));
    }
    Ok(TlsSettings { mode, roots, own: own(given, folder)?, direct })
}

fn roots(given: &Parameters, folder: Option<&Path>) -> Roots {
    match (given.get("sslrootcert"), folder) {
        (Some("system"), _) | (None, None) => Roots::System,
        (Some(file), _) => Roots::File(file.into()),
        (None, Some(folder)) => Roots::UserFile(folder.join("root.crt")),
    }
}

fn own(given: &Parameters, folder: Option<&Path>) -> Result<Option<KeyFile>, ConnInfoError> {
    let sent = given.one_of("sslcertmode", "disable or allow", true, |value| match value {
        "disable" => Some(false),
        "allow" => Some(true),
        _ => None,
    })?;
    let file = |key: &str, name: &str| {
        let written = given.get(key).map(PathBuf::from);
        written.or_else(|| folder.map(|folder| folder.join(name)))
    };
    let required = given.has("sslcert");
    let files = (file("sslcert", "postgresql.crt"), file("sslkey", "postgresql.key"));
    match files {
        (Some(certificate), Some(key)) if sent => Ok(Some(KeyFile { certificate, key, required })),
        (Some(_), None) if sent => Err(given.wrong("sslcert", "sslkey beside it")),
        _ => Ok(None),
    }
}
