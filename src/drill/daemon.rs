//! Plimsoll itself in a drill: this very program, started as a child with a configuration file,
//! and read over HTTP as anybody would read it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use plimsoll_core::status::TargetStatus;
use serde::Serialize;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::port::Port;
use super::server::guard::Guard;
use super::server::{LOOK_AGAIN, Signal, last_words, send};
use super::{DrillError, scenario};
use crate::clock;

/// Ten times what a start takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than the daemon's own grace: what it owes is sent before it goes.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// An answer takes milliseconds; a drill goes on without one that takes longer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);

/// The largest answer is a target with a hundred holders, of some dozen kB.
const MAX_ANSWER: usize = 4_000_000;

/// Once we are gone: a child that still runs is told to stop, then killed, then its folder goes.
/// `$1` is its process id, `$2` the folder.
const AFTER_US: &str = r#"
kill -TERM "$1"
n=0; while kill -0 "$1" && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
kill -KILL "$1"
rm -rf "$2""#;

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    folder: TempDir,
    _guard: Guard,
    program: PathBuf,
    port: Port,
    target: String,
}

/// What the operator of this drill has set; all else is as shipped.
#[derive(Serialize)]
struct Configuration<'a> {
    instance: &'a str,
    state_dir: &'a Path,
    server: ListenPart,
    targets: [Target<'a>; 1],
    receivers: [WebhookPart<'a>; 1],
}

#[derive(Serialize)]
struct ListenPart {
    listen: SocketAddr,
}

#[derive(Serialize)]
struct Target<'a> {
    name: &'a str,
    postgres: &'a str,
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct WebhookPart<'a> {
    name: &'a str,
    r#type: &'a str,
    url: &'a str,
    min_severity: &'a str,
}

impl Daemon {
    /// Starts it as shipped, and returns when it has read the target for the first time.
    pub async fn start(
        program: &Path,
        target: &scenario::TargetPart,
        postgres: &str,
        receiver: &str,
    ) -> Result<Self, DrillError> {
        Self::start_with(program, target, postgres, receiver, "").await
    }

    /// The same with more settings: tables of a configuration file, such as `[rules.slots]`.
    pub async fn start_with(
        program: &Path,
        target: &scenario::TargetPart,
        postgres: &str,
        receiver: &str,
        more: &str,
    ) -> Result<Self, DrillError> {
        let folder = tempfile::Builder::new().prefix("plimsoll-drill-").tempdir().map_err(|e| {
            DrillError::File {
                doing: "creating a folder in",
                path: std::env::temp_dir(),
                source: e,
            }
        })?;
        let port = Port::free()?;
        let configuration = Configuration {
            instance: "drill",
            state_dir: &folder.path().join("state"),
            server: ListenPart { listen: listens_at(&port) },
            targets: [Target { name: &target.name, postgres, labels: &target.labels }],
            receivers: [WebhookPart {
                name: "pages",
                r#type: "webhook",
                url: receiver,
                min_severity: "warning",
            }],
        };
        write_configuration(folder.path(), &configuration, more)?;
        let child = spawn(program, folder.path())?;
        let guard =
            Guard::new(AFTER_US, [child.id().to_string().as_ref(), folder.path().as_os_str()])?;
        let program = program.to_owned();
        let target = target.name.clone();
        let mut daemon = Self { child, folder, _guard: guard, program, port, target };
        daemon.until_it_reads().await?;
        Ok(daemon)
    }

    async fn until_it_reads(&mut self) -> Result<(), DrillError> {
        let deadline = clock::monotonic() + PATIENCE;
        while !self.status().await.is_ok_and(|status| status.slots.is_some()) {
            if let Some(status) = self.ended()? {
                return Err(self.last_words(status));
            }
            if clock::monotonic() > deadline {
                let what = format!("the first reading; the daemon's log:\n{}", self.log());
                return Err(DrillError::TooLate { what, seconds: PATIENCE.as_secs() });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        listens_at(&self.port)
    }

    /// Its configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("plimsoll.toml")
    }

    /// The end of what it has logged.
    pub fn log(&self) -> String {
        last_words(&fs::read(self.folder.path().join("log")).unwrap_or_default())
    }

    /// The target, as `/api/v1/targets/{name}` shows it.
    pub async fn status(&self) -> Result<TargetStatus, DrillError> {
        let path = format!("/api/v1/targets/{}", self.target);
        let body = get(self.address(), &path).await?;
        serde_json::from_slice(&body)
            .map_err(|source| DrillError::Answer { path, source: Box::new(source) })
    }

    /// The error that tells how it ended, once it has.
    pub fn failure(&mut self) -> Result<Option<DrillError>, DrillError> {
        Ok(self.ended()?.map(|status| self.last_words(status)))
    }

    /// Tells it to stop, as an operator would, and returns its exit status when it is gone.
    pub async fn stop(mut self) -> Result<ExitStatus, DrillError> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        send(self.child.id().cast_signed(), Signal::TERM)?;
        let deadline = clock::monotonic() + STOP_PATIENCE;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if clock::monotonic() > deadline {
                let what = "the daemon to stop".to_owned();
                return Err(DrillError::TooLate { what, seconds: STOP_PATIENCE.as_secs() });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, DrillError> {
        let pid = self.child.id().cast_signed();
        self.child.try_wait().map_err(|source| DrillError::Signal { pid, source })
    }

    fn last_words(&self, status: ExitStatus) -> DrillError {
        let program = format!("{} run", self.program.display());
        DrillError::Ended { program, status: status.to_string(), said: self.log() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it is gone already, as it is after a stop.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn write_configuration(
    folder: &Path,
    what: &Configuration<'_>,
    more: &str,
) -> Result<(), DrillError> {
    let path = folder.join("plimsoll.toml");
    let text = toml::to_string(what).map_err(io::Error::other);
    let write = |text: String| fs::write(&path, format!("{text}\n{more}"));
    text.and_then(write).map_err(|source| DrillError::File { doing: "writing", path, source })
}

fn spawn(program: &Path, folder: &Path) -> Result<Child, DrillError> {
    let log = folder.join("log");
    let log = File::create(&log).map_err(|source| DrillError::File {
        doing: "creating",
        path: log.clone(),
        source,
    })?;
    let log_too = log.try_clone().map_err(|source| DrillError::File {
        doing: "opening the log in",
        path: folder.into(),
        source,
    })?;
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(folder.join("plimsoll.toml"));
    // As shipped: nothing that the operator has set for a daemon of his own.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let is_ours = ["PLIMSOLL_", "PG"].iter().any(|prefix| name_text.starts_with(prefix));
        if is_ours || name_text == "DATABASE_URL" || name_text == "STATE_DIRECTORY" {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null()).stdout(log).stderr(log_too).process_group(0);
    let program = program.display().to_string();
    command.spawn().map_err(|source| DrillError::Spawn { program, source })
}

/// The body of a good answer.
fn listens_at(port: &Port) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port.number()))
}

async fn get(address: SocketAddr, path: &str) -> Result<Bytes, DrillError> {
    let answer = tokio::time::timeout(ANSWER_PATIENCE, exchange(address, path)).await;
    let answer = answer.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
    answer.map_err(|source| DrillError::Answer { path: path.to_owned(), source })
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(address: SocketAddr, path: &str) -> Result<Bytes, Failure> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request =
        Request::get(path).header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if !answer.status().is_success() {
        return Err(format!("it answered {}", answer.status()).into());
    }
    Ok(Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes())
}
