//! The one harness of throwaway Postgres servers: for drills, the demo, tests and benches.
//!
//! Each [`Server`] is a real `postgres` on a fresh cluster in a folder of its own, up in about a
//! tenth of a second, on a free port of 127.0.0.1 and a Unix socket. It ends, and its folder goes,
//! when the value is dropped (panics included), and a [`guard`] sees to both when we are killed.
//! Nothing here is for a server that anybody wants to keep: fsync is off and everybody is trusted.

pub mod binaries;
pub mod guard;
mod session;
mod template;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;
use tokio_postgres::Config;

use self::binaries::{Binaries, Owner};
use self::guard::Guard;
pub use self::session::Session;
use super::DrillError;
use super::port::Port;
use crate::clock;

/// Ten times what a start, a stop or a crash recovery of so small a cluster takes on a slow
/// machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often the state of a starting or stopping server is looked at.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// `sun_path` holds 108 bytes on Linux, 104 on macOS, one of them the final zero.
const SOCKET_PATH_MAX: usize = 103;

/// Logins that are under way at once when many sessions are opened: the postmaster forks one
/// backend after the other, and more would only stand in its queue.
const LOGINS_AT_ONCE: usize = 32;

/// The end of a log that an error carries.
const LAST_WORDS_MAX: usize = 2_000;

/// Once we are gone: an immediate shutdown, six seconds for it (the postmaster itself kills
/// backends that do not heed after five), then the folder. `$1` is the folder.
const AFTER_US: &str = r#"
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
  kill -QUIT "$pid"; kill -CONT "$pid"
  n=0; while kill -0 "$pid" && [ $n -lt 60 ]; do sleep 0.1; n=$((n + 1)); done
  kill -KILL "$pid"
fi
rm -rf "$1""#;

/// What kind of server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The major version; the newest that is installed if none is asked for.
    pub major: Option<u32>,
    /// `max_connections`.
    pub max_connections: u32,
    /// `superuser_reserved_connections`.
    pub superuser_reserved_connections: u32,
    /// Further settings, which win over all others.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            major: None,
            max_connections: 100,
            superuser_reserved_connections: 3,
            settings: Vec::new(),
        }
    }
}

/// How a server is told to stop (the manual, "Shutting Down the Server").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Waits until the last session has gone.
    Smart,
    /// Ends the sessions.
    Fast,
    /// Ends everything at once; the next start recovers.
    Immediate,
}

impl Mode {
    fn signal(self) -> Signal {
        match self {
            Self::Smart => Signal::TERM,
            Self::Fast => Signal::INT,
            Self::Immediate => Signal::QUIT,
        }
    }
}

/// A running, or stopped, throwaway server.
#[derive(Debug)]
pub struct Server {
    // Dropped in this order, after `Drop::drop` has ended the postmaster.
    postmaster: Option<Child>,
    stopped_backends: Mutex<BTreeSet<i32>>,
    folder: TempDir,
    _guard: Guard,
    binaries: Binaries,
    owner: Option<Owner>,
    options: Options,
    port: Port,
}

impl Server {
    /// Starts one, and returns when it takes logins.
    pub async fn start(options: Options) -> Result<Self, DrillError> {
        let mut server = blocking(move || Self::prepare(options)).await?;
        server.start_again().await?;
        Ok(server)
    }

    fn prepare(options: Options) -> Result<Self, DrillError> {
        let binaries = Binaries::find(options.major)?;
        let owner = Owner::needed()?;
        let folder = short_folder()?;
        let guard = Guard::new(AFTER_US, [folder.path()])?;
        template::give(folder.path(), owner)?;
        template::copy_to(&folder.path().join("data"), &binaries, owner)?;
        Ok(Self {
            postmaster: None,
            stopped_backends: Mutex::default(),
            folder,
            _guard: guard,
            binaries,
            owner,
            options,
            port: Port::free()?,
        })
    }

    /// Starts it again after [`Server::stop`], on the same port and folder.
    pub async fn start_again(&mut self) -> Result<(), DrillError> {
        let program = self.binaries.program("postgres");
        let log = self.log_path();
        let log = File::options().create(true).append(true).open(&log).map_err(|source| {
            DrillError::File { doing: "opening the log", path: log.clone(), source }
        })?;
        let mut command = Command::new(&program);
        command.arg("-D").arg(self.data_dir());
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        template::prepare(&mut command, self.folder.path(), self.owner);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let child = command.spawn().map_err(|source| DrillError::Spawn {
            program: program.display().to_string(),
            source,
        })?;
        self.postmaster = Some(child);
        self.until_ready().await
    }

    fn settings(&self) -> Vec<(String, String)> {
        let own = |name: &str, value: String| (name.to_owned(), value);
        let mut settings = vec![
            own("listen_addresses", "127.0.0.1".to_owned()),
            own("port", self.port().to_string()),
            own("unix_socket_directories", self.socket_dir().display().to_string()),
            own("max_connections", self.options.max_connections.to_string()),
            own(
                "superuser_reserved_connections",
                self.options.superuser_reserved_connections.to_string(),
            ),
            own("fsync", "off".to_owned()),
            own("full_page_writes", "off".to_owned()),
            own("timezone", "UTC".to_owned()),
            own("log_timezone", "UTC".to_owned()),
        ];
        settings.extend(self.options.settings.iter().cloned());
        settings
    }

    /// The postmaster writes its state into the eighth line of its pid file (miscadmin.h,
    /// `LOCK_FILE_LINE_PM_STATUS`). A killed one leaves its file behind: the first line is the pid.
    fn is_ready(&self) -> bool {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = file.lines().map(str::trim).collect();
        let pid = lines.first().and_then(|line| line.parse().ok());
        pid == self.pid() && matches!(lines.get(7), Some(&("ready" | "standby")))
    }

    async fn until_ready(&mut self) -> Result<(), DrillError> {
        let deadline = clock::monotonic() + PATIENCE;
        loop {
            if let Some(status) = self.ended()? {
                return Err(self.last_words(status));
            }
            if self.is_ready() {
                return Ok(());
            }
            if clock::monotonic() > deadline {
                return Err(too_late("a throwaway server to take logins"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Stops it and returns when it is gone; does nothing if it is gone already.
    pub async fn stop(&mut self, mode: Mode) -> Result<(), DrillError> {
        if self.ended()?.is_some() || self.postmaster.is_none() {
            return Ok(());
        }
        self.signal_postmaster(mode.signal())?;
        self.until_gone().await
    }

    /// Returns when the postmaster is gone, whoever ended it.
    pub async fn until_gone(&mut self) -> Result<(), DrillError> {
        let deadline = clock::monotonic() + PATIENCE;
        while self.ended()?.is_none() {
            if clock::monotonic() > deadline {
                return Err(too_late("a throwaway server to stop"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Stops it and starts it again.
    pub async fn restart(&mut self, mode: Mode) -> Result<(), DrillError> {
        self.stop(mode).await?;
        self.start_again().await
    }

    /// The exit status once the postmaster has ended; also when none was started.
    fn ended(&mut self) -> Result<Option<ExitStatus>, DrillError> {
        let Some(child) = &mut self.postmaster else { return Ok(Some(ExitStatus::default())) };
        let pid = child.id().cast_signed();
        let status = child.try_wait().map_err(|source| DrillError::Signal { pid, source })?;
        if status.is_some() {
            self.postmaster = None;
            self.stopped().clear();
        }
        Ok(status)
    }

    fn last_words(&self, status: ExitStatus) -> DrillError {
        DrillError::Ended {
            program: self.binaries.program("postgres").display().to_string(),
            status: status.to_string(),
            said: last_words(&fs::read(self.log_path()).unwrap_or_default()),
        }
    }

    fn stopped(&self) -> std::sync::MutexGuard<'_, BTreeSet<i32>> {
        self.stopped_backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal to the postmaster; stopped, it accepts logins and says nothing.
    pub fn signal_postmaster(&self, signal: Signal) -> Result<(), DrillError> {
        self.pid().map_or(Ok(()), |pid| send(pid, signal))
    }

    /// Sends a signal to a backend, by the pid that `pg_stat_activity` shows.
    pub fn signal_backend(&self, pid: i32, signal: Signal) -> Result<(), DrillError> {
        send(pid, signal)?;
        if signal == Signal::STOP {
            self.stopped().insert(pid);
        } else if signal == Signal::CONT {
            self.stopped().remove(&pid);
        }
        Ok(())
    }

    /// Its address over TCP.
    pub fn url(&self, role: &str, database: &str) -> String {
        let (role, database) = (percent(role), percent(database));
        format!("postgresql://{role}@127.0.0.1:{}/{database}", self.port())
    }

    /// Its address over the Unix socket.
    pub fn socket_url(&self, role: &str, database: &str) -> String {
        let (role, database) = (percent(role), percent(database));
        let host = percent(&self.socket_dir().display().to_string());
        format!("postgresql:///{database}?host={host}&port={}&user={role}", self.port())
    }

    /// Its TCP port on 127.0.0.1, the same over restarts.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The folder of its Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.folder.path()
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where it logs to.
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// All that it has logged; empty if that cannot be read.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The postmaster's process id; `None` once it was seen to have ended.
    pub fn pid(&self) -> Option<i32> {
        self.postmaster.as_ref().map(|child| child.id().cast_signed())
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.binaries.major
    }

    /// The folder that holds its programs: `psql`, `pgbench`, `pg_receivewal`…
    pub fn programs(&self) -> &Path {
        &self.binaries.folder
    }

    /// A login over TCP, to be changed before it is used with [`Session::open`].
    pub fn login(&self, role: &str, database: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port()).user(role).dbname(database);
        config
    }

    /// Opens a session over TCP.
    pub async fn connect(&self, role: &str, database: &str) -> Result<Session, DrillError> {
        Session::open(&self.login(role, database)).await
    }

    /// Opens a session of the superuser, to the database `postgres`, over the Unix socket.
    pub async fn superuser(&self) -> Result<Session, DrillError> {
        let mut login = Config::new();
        login.host_path(self.socket_dir()).port(self.port()).user("postgres").dbname("postgres");
        Session::open(login.application_name("drill")).await
    }

    /// Opens `count` sessions to the database `postgres`, some at once; none if one is refused.
    pub async fn fill(
        &self,
        role: &str,
        application: &str,
        count: usize,
    ) -> Result<Vec<Session>, DrillError> {
        let mut login = self.login(role, "postgres");
        login.application_name(application);
        let login = &login;
        let logins = stream::iter(0..count).map(|_| Session::open(login));
        logins.buffer_unordered(LOGINS_AT_ONCE).try_collect().await
    }
}

impl Drop for Server {
    /// Ends the server at once and waits for its end, some hundredths of a second. An immediate
    /// shutdown rather than a kill: the postmaster then gives its shared memory back.
    fn drop(&mut self) {
        let Some(child) = &mut self.postmaster else { return };
        let pid = child.id().cast_signed();
        // Failures mean that the process is gone, which is all that is wanted.
        drop(send(pid, Signal::QUIT));
        drop(send(pid, Signal::CONT));
        let stopped = self.stopped_backends.get_mut().unwrap_or_else(PoisonError::into_inner);
        for backend in std::mem::take(stopped) {
            drop(send(backend, Signal::CONT));
        }
        // The postmaster kills backends that do not heed after 5 s; it is given twice that.
        let deadline = clock::monotonic() + Duration::from_secs(10);
        while matches!(child.try_wait(), Ok(None)) && clock::monotonic() < deadline {
            std::thread::sleep(LOOK_AGAIN);
        }
        drop(child.kill());
        drop(child.wait());
    }
}

pub(super) fn send(pid: i32, signal: Signal) -> Result<(), DrillError> {
    let target = Pid::from_raw(pid).filter(|_| pid > 1);
    let sent = target.map_or(Err(rustix::io::Errno::SRCH), |target| kill_process(target, signal));
    sent.map_err(|errno| DrillError::Signal { pid, source: errno.into() })
}

/// The end of a log, as far as an error carries it.
pub(super) fn last_words(log: &[u8]) -> String {
    let start = log.len().saturating_sub(LAST_WORDS_MAX);
    String::from_utf8_lossy(&log[start..]).into_owned()
}

/// A folder whose socket has a path that the kernel takes.
pub(super) fn short_folder() -> Result<TempDir, DrillError> {
    let wanted = std::env::temp_dir();
    let socket = wanted.as_os_str().len() + "/plimsoll-123456/.s.PGSQL.12345".len();
    let parent = if socket > SOCKET_PATH_MAX { PathBuf::from("/tmp") } else { wanted };
    tempfile::Builder::new()
        .prefix("plimsoll-")
        .tempdir_in(&parent)
        .map_err(|source| DrillError::File { doing: "creating a folder in", path: parent, source })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DrillError> + Send + 'static,
) -> Result<T, DrillError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(join) => match join.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(too_late("a throwaway server while everything ends")),
        },
    }
}

fn too_late(what: &str) -> DrillError {
    DrillError::TooLate { what: what.to_owned(), seconds: PATIENCE.as_secs() }
}

/// Text as a part of a URL.
pub(super) fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let one = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(one).collect()
}
