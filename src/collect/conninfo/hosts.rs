//! The hosts of a connection: one, or several that are tried one after another.

use std::net::IpAddr;
use std::path::PathBuf;

use super::ConnInfoError;
use super::parameters::Parameters;

/// More than a primary and its standbys anywhere; each gets a share of the time.
pub(super) const MAX_HOSTS: usize = 16;

/// Where Debian's libpq looks for a socket.
pub(super) const DEFAULT_SOCKET_FOLDER: &str = "/var/run/postgresql";

pub(super) const DEFAULT_PORT: u16 = 5432;

/// One of the servers that a connection may lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::collect) struct Host {
    pub(in crate::collect) place: Place,
    pub(in crate::collect) port: u16,
}

/// What answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::collect) enum Place {
    /// A host name, or an address as text; `address` saves the name from being resolved.
    Tcp { host: String, address: Option<IpAddr> },
    /// The folder of a Unix socket.
    Socket(PathBuf),
}

impl Host {
    /// The address for people: `host:port`, or the path of the socket.
    pub(in crate::collect) fn address(&self) -> String {
        let port = self.port;
        match &self.place {
            Place::Tcp { host, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp { host, .. } => format!("{host}:{port}"),
            Place::Socket(folder) => self.socket_path(folder).display().to_string(),
        }
    }

    pub(in crate::collect) fn socket_path(&self, folder: &std::path::Path) -> PathBuf {
        folder.join(format!(".s.PGSQL.{}", self.port))
    }

    /// What this host is called in `.pgpass`.
    pub(in crate::collect) fn name_in_passfile(&self) -> String {
        match &self.place {
            Place::Tcp { host, .. } => host.clone(),
            Place::Socket(folder) if folder.as_os_str() == DEFAULT_SOCKET_FOLDER => {
                "localhost".to_owned()
            }
            Place::Socket(folder) => folder.display().to_string(),
        }
    }
}

/// Lists as libpq reads them: `hostaddr` is as long as `host`, if both are given, and `port` is one
/// for all or one for each. An empty element is as if it were left out.
pub(super) fn hosts(given: &Parameters) -> Result<Vec<Host>, ConnInfoError> {
    let list = |key| given.get(key).map(|list| list.split(',').collect::<Vec<&str>>());
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = addresses.as_ref().or(names.as_ref()).map_or(1, Vec::len);
    if count > MAX_HOSTS {
        return Err(ConnInfoError::TooManyHosts);
    }
    if let (Some(names), Some(addresses)) = (&names, &addresses)
        && names.len() != addresses.len()
    {
        let (hosts, others) = (names.len(), addresses.len());
        return Err(ConnInfoError::Lists { hosts, what: "addresses", others });
    }
    let ports = ports.unwrap_or_else(|| vec![""]);
    if ports.len() != 1 && ports.len() != count {
        let others = ports.len();
        return Err(ConnInfoError::Lists { hosts: count, what: "ports", others });
    }
    let at = |list: &Option<Vec<&str>>, index: usize| {
        let element = list.as_ref().and_then(|list| list.get(index).copied());
        element.map(str::to_owned).filter(|element| !element.is_empty())
    };
    let host = |index: usize| {
        let address = at(&addresses, index).map(|text| {
            text.parse::<IpAddr>().map_err(|_| given.wrong("hostaddr", "an IP address"))
        });
        let port = match ports.get(index).or(ports.first()).copied().unwrap_or_default() {
            "" => DEFAULT_PORT,
            text => {
                let port = text.trim().parse().ok().filter(|port| *port != 0);
                port.ok_or_else(|| given.wrong("port", "a number from 1 to 65535"))?
            }
        };
        Ok(Host { place: place(at(&names, index), address.transpose()?), port })
    };
    (0..count).map(host).collect()
}

fn place(host: Option<String>, address: Option<IpAddr>) -> Place {
    match (host, address) {
        (Some(folder), None) if folder.starts_with('/') => Place::Socket(folder.into()),
        (Some(host), address) => Place::Tcp { host, address },
        (None, Some(address)) => Place::Tcp { host: address.to_string(), address: Some(address) },
        (None, None) => Place::Socket(DEFAULT_SOCKET_FOLDER.into()),
    }
}
