//! A real exporter, as its package ships it, told nothing but where the server is.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plimsoll::clock;
use plimsoll::drill::server::Server;
use plimsoll::drill::server::guard::Guard;

use super::http::{self, Answer};
use super::{Measured, machine};

/// Ten times what a start takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running exporter. It ends when this is dropped, and soon after us.
#[derive(Debug)]
pub(super) struct Exporter {
    child: Child,
    _guard: Guard,
    pub(super) address: SocketAddr,
    program: PathBuf,
    /// The number of its version alone.
    pub(super) version: String,
}

impl Exporter {
    /// Starts one for a server, and returns once it listens.
    pub(super) async fn start(program: &Path, server: &Server) -> Measured<Self> {
        let url = format!("{}?sslmode=disable", server.url("exporter", "postgres"));
        let mut command = Command::new(program);
        command.env_clear().env("DATA_SOURCE_NAME", url);
        Self::run(program, command).await
    }

    /// Starts one for the pooler whose console is there.
    pub(super) async fn of_pgbouncer(program: &Path, console: &str) -> Measured<Self> {
        let url = format!("{console}?sslmode=disable");
        let mut command = Command::new(program);
        command.env_clear().arg(format!("--pgBouncer.connectionString={url}"));
        Self::run(program, command).await
    }

    async fn run(program: &Path, mut command: Command) -> Measured<Self> {
        let version = version(program)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let child = command
            .arg(format!("--web.listen-address={address}"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("starting {}: {error}", program.display()))?;
        let guard = Guard::new("kill -KILL \"$1\"", [child.id().to_string()])?;
        let program = program.to_owned();
        let mut exporter = Self { child, _guard: guard, address, program, version };
        exporter.until_it_listens().await?;
        Ok(exporter)
    }

    async fn until_it_listens(&mut self) -> Measured<()> {
        let deadline = clock::monotonic() + PATIENCE;
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended: {status}", self.program.display()).into());
            }
            if clock::monotonic() > deadline {
                return Err(format!("{} does not listen", self.program.display()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Its metrics.
    pub(super) async fn scrape(&self) -> Measured<Answer> {
        http::get(self.address, "/metrics").await
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `postgres_exporter, version 0.11.1 (branch: …` → `0.11.1`.
pub(super) fn version(program: &Path) -> Measured<String> {
    let said = machine::said(program, &["--version"]).ok_or_else(|| {
        let program = program.display();
        format!("there is no exporter at {program}\nhint: scripts/need exporter, or --exporters")
    })?;
    let version = said.split_once("version ").map(|(_, rest)| rest);
    Ok(version.and_then(|rest| rest.split([' ', ',']).next()).unwrap_or("?").to_owned())
}
