//! Finds the programs of a PostgreSQL server, and the user that they must run as.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::drill::DrillError;

/// Folders to look in before all others, separated as in `PATH`.
pub const BIN_VARIABLE: &str = "PLIMSOLL_POSTGRES_BIN";

/// The major that the hint names: the oldest that is in every current distribution's archive.
const HINTED_MAJOR: u32 = 15;

/// The programs of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The folder that holds `postgres`, `initdb` and all others, not one of links to some.
    pub folder: PathBuf,
    /// Its major version.
    pub major: u32,
    /// All that `postgres --version` says.
    pub version: String,
}

impl Binaries {
    /// The installation of this major, at last in the cache of `scripts/majors`; without one the
    /// first that [`BIN_VARIABLE`] names, else the newest that is installed.
    pub fn find(major: Option<u32>) -> Result<Self, DrillError> {
        let named: Vec<PathBuf> = env::var_os(BIN_VARIABLE)
            .map(|folders| env::split_paths(&folders).collect())
            .unwrap_or_default();
        let mut found: Vec<Self> = named.iter().filter_map(|f| Self::in_folder(f)).collect();
        if let (None, Some(first)) = (major, found.first()) {
            return Ok(first.clone());
        }
        found.extend(usual_folders().iter().filter_map(|f| Self::in_folder(f)));
        let choice = match major {
            Some(major) => {
                let cached = || Self::in_folder(&cache()?.join(major.to_string()).join("bin"));
                found.into_iter().chain(cached()).find(|b| b.major == major)
            }
            None => found.into_iter().max_by_key(|b| b.major),
        };
        choice.ok_or_else(|| missing(major))
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let folder = folder.join("initdb").canonicalize().ok()?.parent()?.to_owned();
        let said = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
        let version = String::from_utf8(said.stdout).ok()?.trim().to_owned();
        let major = major_of(&version)?;
        Some(Self { folder, major, version })
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` → 15; `18beta1` → 18.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

fn usual_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Ok(said) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&said.stdout).trim()));
    }
    for (parent, prefix, below) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ] {
        folders.extend(children(Path::new(parent), prefix).map(|folder| folder.join(below)));
    }
    folders.push(PathBuf::from("/usr/local/pgsql/bin"));
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders
}

/// Where `scripts/majors` puts the programs of majors that the system has not, a folder each. As
/// root the servers run as the user `postgres`, who may not enter root's home.
fn cache() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/cache/plimsoll/postgres"));
    }
    let own = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Some(own.or_else(home)?.join("plimsoll/postgres"))
}

fn children(parent: &Path, prefix: &'static str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(move |path| path.file_name().is_some_and(|name| starts_with(name, prefix)))
}

fn starts_with(name: &OsStr, prefix: &str) -> bool {
    name.as_encoded_bytes().starts_with(prefix.as_bytes())
}

fn missing(major: Option<u32>) -> DrillError {
    let what = match major {
        Some(major) => format!("the programs of PostgreSQL {major} (postgres, initdb)"),
        None => "the programs of a PostgreSQL server (postgres, initdb)".to_owned(),
    };
    let major = major.unwrap_or(HINTED_MAJOR);
    let install = if cfg!(target_os = "macos") {
        format!("`brew install postgresql@{major}`")
    } else {
        format!("`apt-get install postgresql-{major}`, or your distribution's package of it")
    };
    let hint = format!(
        "{install}; or, in Plimsoll's repository, `scripts/majors {major}`; or name the folder that \
         holds them in {BIN_VARIABLE}"
    );
    DrillError::Missing { what, hint }
}

/// Who the server runs as: Postgres refuses to run as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Owner {
    /// `None` when the server can run as whoever we are; as root, the user `postgres`.
    pub fn needed() -> Result<Option<Self>, DrillError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = Self::of_postgres(&users);
        found.map(Some).ok_or_else(|| DrillError::Missing {
            what: "the user `postgres` (Postgres refuses to run as root)".to_owned(),
            hint: "run this as an ordinary user, or `useradd --system postgres`".to_owned(),
        })
    }

    fn of_postgres(passwd: &str) -> Option<Self> {
        let line = passwd.lines().find(|line| line.starts_with("postgres:"))?;
        let mut fields = line.split(':').skip(2);
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { uid, gid })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn majors_are_read_from_what_postgres_says_of_itself() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("postgres (EnterpriseDB) 15.1"), None);
        assert_eq!(major_of(""), None);
    }

    #[test]
    fn links_to_some_of_the_programs_lead_to_the_folder_of_all() {
        let found = Binaries::find(None).unwrap();
        let links = tempfile::tempdir().unwrap();
        for name in ["postgres", "initdb"] {
            symlink(found.program(name), links.path().join(name)).unwrap();
        }
        assert_eq!(Binaries::in_folder(links.path()), Some(found));
        assert_eq!(Binaries::in_folder(Path::new("/nowhere")), None);
    }

    #[test]
    fn the_user_postgres_is_found_among_others() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:PostgreSQL,,,:/:/bin/sh\n";
        assert_eq!(Owner::of_postgres(passwd), Some(Owner { uid: 101, gid: 104 }));
        assert_eq!(Owner::of_postgres("postgresql:x:1:1::/:/bin/sh\n"), None);
    }

    #[test]
    fn a_missing_server_names_the_command_that_installs_it() {
        let said = missing(Some(15)).to_string();
        assert!(said.contains("PostgreSQL 15") && said.contains("install postgresql"), "{said}");
        assert!(said.contains(BIN_VARIABLE) && said.contains("scripts/majors 15"), "{said}");
    }
}
