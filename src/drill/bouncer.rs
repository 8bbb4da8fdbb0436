//! Throwaway PgBouncers, for tests, benches and the demo: real ones before a throwaway server.
//!
//! Each [`Bouncer`] is a `pgbouncer` with a folder, a free port of 127.0.0.1 and a Unix socket of
//! its own. It ends, and its folder goes, when the value is dropped, and a guard sees to both when
//! we are killed. Nothing here is for a pooler that anybody wants to keep.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::Config;

use super::DrillError;
use super::port::Port;
use super::server::binaries::Owner;
use super::server::guard::Guard;
use super::server::{LOOK_AGAIN, Signal, last_words, percent, send, short_folder};
use crate::clock;

/// The release that is in Debian 12, and so in more places than any other.
pub const DEFAULT_RELEASE: &str = "1.18";

/// The folders of `scripts/poolers`, in the order in which they are looked at if any will do.
const CACHED: [&str; 4] = [DEFAULT_RELEASE, "any", "1.24", "1.26"];

/// The program to take before all others.
const PROGRAM_VARIABLE: &str = "PLIMSOLL_PGBOUNCER";

/// Ten times what a start or a stop takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Once we are gone: an immediate shutdown, then the folder. `$1` is the folder.
const AFTER_US: &str = r#"
pid=$(cat "$1/pid" 2>/dev/null)
if [ -n "$pid" ]; then kill -KILL "$pid"; fi
rm -rf "$1""#;

/// What kind of pooler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its release, such as `1.18`; `None` if any will do.
    pub release: Option<String>,
    /// Lines of `[databases]`.
    pub databases: Vec<String>,
    /// Lines of `[users]`.
    pub users: Vec<String>,
    /// Settings of `[pgbouncer]`, which win over those that it has here.
    pub settings: Vec<(String, String)>,
    /// Names and passwords of `auth_file`.
    pub passwords: Vec<(String, String)>,
    /// The port of another with `so_reuseport`, to share it; `None` for a free one.
    pub port: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            release: Some(DEFAULT_RELEASE.to_owned()),
            databases: Vec::new(),
            users: Vec::new(),
            settings: Vec::new(),
            passwords: Vec::new(),
            port: None,
        }
    }
}

/// A running, or stopped, throwaway PgBouncer. Everybody is trusted, `admin` may do all at its
/// console and `stats` may look, unless settings say otherwise.
#[derive(Debug)]
pub struct Bouncer {
    // Dropped in this order, after `Drop::drop` has ended the program.
    child: Option<Child>,
    folder: TempDir,
    _guard: Guard,
    program: PathBuf,
    release: String,
    owner: Option<Owner>,
    options: Options,
    port: Port,
}

impl Bouncer {
    /// Starts one, and returns when it takes clients.
    pub async fn start(options: Options) -> Result<Self, DrillError> {
        let (program, release) = program(options.release.as_deref())?;
        let owner = Owner::needed()?;
        let folder = short_folder()?;
        let guard = Guard::new(AFTER_US, [folder.path()])?;
        let port = options.port.map_or_else(Port::free, |port| Ok(Port::shared(port)))?;
        let mut bouncer =
            Self { child: None, folder, _guard: guard, program, release, owner, options, port };
        bouncer.give(bouncer.folder.path())?;
        bouncer.start_again().await?;
        Ok(bouncer)
    }

    /// Starts it again after [`Bouncer::stop`], on the same port.
    pub async fn start_again(&mut self) -> Result<(), DrillError> {
        self.write_files()?;
        let log = self.file("log");
        let opened = File::options().create(true).append(true).open(&log);
        let opened = opened.map_err(|source| file_error("opening the log", &log, source))?;
        // It opens it by its name, too.
        self.give(&log)?;
        let mut command = Command::new(&self.program);
        command.arg("-q").arg(self.file("pgbouncer.ini"));
        if let Some(Owner { uid, gid }) = self.owner {
            command.uid(uid).gid(gid);
        }
        command.current_dir(self.folder.path()).env("TZ", "UTC");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(opened).process_group(0);
        let spawned = command.spawn().map_err(|source| DrillError::Spawn {
            program: self.program.display().to_string(),
            source,
        })?;
        self.child = Some(spawned);
        self.until_ready().await
    }

    /// Other options from now on: written, and read by the running one.
    pub fn reload(&mut self, change: impl FnOnce(&mut Options)) -> Result<(), DrillError> {
        change(&mut self.options);
        self.write_files()?;
        self.signal(Signal::HUP)
    }

    fn write_files(&self) -> Result<(), DrillError> {
        let Options { databases, users, settings, passwords, .. } = &self.options;
        let shown = |name: &str| self.file(name).display().to_string();
        let own = [
            ("listen_addr", "127.0.0.1".to_owned()),
            ("listen_port", self.port().to_string()),
            ("unix_socket_dir", self.folder.path().display().to_string()),
            ("auth_type", "trust".to_owned()),
            ("auth_file", shown("userlist.txt")),
            ("admin_users", "admin".to_owned()),
            ("stats_users", "stats".to_owned()),
            ("logfile", shown("log")),
            ("pidfile", shown("pid")),
            ("pool_mode", "transaction".to_owned()),
        ];
        let is_left = |name: &str| !settings.iter().any(|(key, _)| key == name);
        let own = own.into_iter().filter(|(name, _)| is_left(name));
        let own = own.map(|(name, value)| format!("{name} = {value}"));
        let theirs = settings.iter().map(|(name, value)| format!("{name} = {value}"));
        let settings: Vec<String> = own.chain(theirs).collect();
        let ini = format!(
            "[databases]\n{}\n[users]\n{}\n[pgbouncer]\n{}\n",
            databases.join("\n"),
            users.join("\n"),
            settings.join("\n")
        );
        let mut names: Vec<(&str, &str)> =
            passwords.iter().map(|(name, password)| (name.as_str(), password.as_str())).collect();
        for name in ["admin", "stats", "postgres", "app"] {
            if !names.iter().any(|(known, _)| *known == name) {
                names.push((name, ""));
            }
        }
        let list: Vec<String> = names.iter().map(|(n, p)| format!("\"{n}\" \"{p}\"")).collect();
        for (name, text) in [("pgbouncer.ini", ini), ("userlist.txt", list.join("\n"))] {
            let path = self.file(name);
            fs::write(&path, text).map_err(|source| file_error("writing", &path, source))?;
            self.give(&path)?;
        }
        Ok(())
    }

    /// Puts a file beside its own, such as a certificate, and gives its path.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<PathBuf, DrillError> {
        let path = self.file(name);
        fs::write(&path, content).map_err(|source| file_error("writing", &path, source))?;
        self.give(&path)?;
        Ok(path)
    }

    async fn until_ready(&mut self) -> Result<(), DrillError> {
        let deadline = clock::monotonic() + PATIENCE;
        loop {
            if let Some(status) = self.ended()? {
                let said = last_words(&fs::read(self.file("log")).unwrap_or_default());
                let program = self.program.display().to_string();
                return Err(DrillError::Ended { program, status: status.to_string(), said });
            }
            // It writes its pid once it listens.
            let pid = fs::read_to_string(self.file("pid")).unwrap_or_default();
            let is_ours = pid.trim().parse().ok() == self.pid();
            // Without its port it goes on all the same, with no more than the Unix socket.
            if is_ours && self.log().contains("cannot listen on 127.0.0.1") {
                return Err(DrillError::Missing {
                    what: format!("the TCP port {} for {}", self.port(), self.program.display()),
                    hint: "end what listens there".to_owned(),
                });
            }
            if is_ours && tokio::net::TcpStream::connect(("127.0.0.1", self.port())).await.is_ok() {
                return Ok(());
            }
            if clock::monotonic() > deadline {
                return Err(too_late("a throwaway PgBouncer to take clients"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends it at once, whoever its clients are, and returns when it is gone.
    pub async fn stop(&mut self) -> Result<(), DrillError> {
        // Up to 1.22 SIGQUIT is no signal of its own; from 1.23 on SIGTERM waits for clients.
        let minor = self.release.split('.').nth(1).and_then(|minor| minor.parse().ok());
        let waits = minor.is_none_or(|minor: u32| minor >= 23);
        self.signal(if waits { Signal::QUIT } else { Signal::TERM })?;
        self.signal(Signal::CONT)?;
        self.until_gone().await
    }

    /// Returns when it is gone, whoever ended it.
    pub async fn until_gone(&mut self) -> Result<(), DrillError> {
        let deadline = clock::monotonic() + PATIENCE;
        while self.ended()?.is_none() {
            if clock::monotonic() > deadline {
                return Err(too_late("a throwaway PgBouncer to stop"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, DrillError> {
        let Some(child) = &mut self.child else { return Ok(Some(ExitStatus::default())) };
        let pid = child.id().cast_signed();
        let status = child.try_wait().map_err(|source| DrillError::Signal { pid, source })?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Sends it a signal; stopped, it accepts connections and says nothing.
    pub fn signal(&self, signal: Signal) -> Result<(), DrillError> {
        self.pid().map_or(Ok(()), |pid| send(pid, signal))
    }

    /// Its process id; `None` once it was seen to have ended.
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.id().cast_signed())
    }

    /// Its TCP port on 127.0.0.1, the same over restarts.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// A client of its, over TCP.
    pub fn login(&self, role: &str, database: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port()).user(role).dbname(database);
        config
    }

    /// Its release, such as `1.18`.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Its address over TCP.
    pub fn url(&self, user: &str, database: &str) -> String {
        let (user, database) = (percent(user), percent(database));
        format!("postgresql://{user}@127.0.0.1:{}/{database}", self.port())
    }

    /// Its address over the Unix socket.
    pub fn socket_url(&self, user: &str, database: &str) -> String {
        let (user, database) = (percent(user), percent(database));
        let host = percent(&self.folder.path().display().to_string());
        format!("postgresql:///{database}?host={host}&port={}&user={user}", self.port())
    }

    /// All that it has logged; empty if that cannot be read.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.file("log")).unwrap_or_default()).into_owned()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn give(&self, path: &Path) -> Result<(), DrillError> {
        let Some(Owner { uid, gid }) = self.owner else { return Ok(()) };
        let given = std::os::unix::fs::chown(path, Some(uid), Some(gid));
        given.map_err(|source| file_error("giving to the user postgres", path, source))
    }
}

impl Drop for Bouncer {
    /// Ends it at once: it has nothing that must be kept.
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        // Both fail only if it is gone already.
        drop(child.kill());
        drop(child.wait());
    }
}

/// A program of this release, if one is named, and its release: the one that is named, the
/// system's, or that of `scripts/poolers`.
fn program(release: Option<&str>) -> Result<(PathBuf, String), DrillError> {
    let named = env::var_os(PROGRAM_VARIABLE).map(PathBuf::from);
    let usual = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
    let folders = release.map_or(CACHED.to_vec(), |release| vec![release]);
    let in_cache = |folder| Some(cache()?.join(folder).join("pgbouncer"));
    let cached = folders.into_iter().filter_map(in_cache);
    let places = named.into_iter().chain(usual.map(PathBuf::from)).chain(cached);
    let mut found = places.filter_map(|path| release_of(&path).map(|release| (path, release)));
    let is_it = |(_, found): &(PathBuf, String)| release.is_none_or(|wanted| wanted == found);
    let wanted = release.unwrap_or("any");
    found.find(is_it).ok_or_else(|| DrillError::Missing {
        what: release.map_or("PgBouncer".to_owned(), |release| format!("PgBouncer {release}")),
        hint: format!(
            "in Plimsoll's repository, `scripts/poolers {wanted}`; or name the program in \
             {PROGRAM_VARIABLE}"
        ),
    })
}

/// `PgBouncer 1.18.0` → `1.18`.
fn release_of(program: &Path) -> Option<String> {
    let said = Command::new(program).arg("--version").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let number = said.lines().next()?.strip_prefix("PgBouncer ")?;
    let mut parts = number.trim().split('.');
    Some(format!("{}.{}", parts.next()?, parts.next()?))
}

/// Where `scripts/poolers` puts them. As root they run as the user `postgres`, who may not enter
/// root's home.
fn cache() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/cache/plimsoll/pgbouncer"));
    }
    let own = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Some(own.or_else(home)?.join("plimsoll/pgbouncer"))
}

fn file_error(doing: &'static str, path: &Path, source: std::io::Error) -> DrillError {
    DrillError::File { doing, path: path.into(), source }
}

fn too_late(what: &str) -> DrillError {
    DrillError::TooLate { what: what.to_owned(), seconds: PATIENCE.as_secs() }
}
