//! The real binary, or anything that starts it, as a child: what it logs, answers and how it ends.
//! For every test that runs a daemon, those of the image in `tests/interop` included.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Ten times what any of it takes.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A folder with settings and state, in which daemons live one after another.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new(settings: &str) -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        home.write(settings);
        home
    }

    pub(crate) fn write(&self, settings: &str) {
        std::fs::write(self.config(), settings).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("plimsoll.toml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = plimsoll();
        command.arg("run").arg("--config").arg(self.config());
        command.arg("--state-dir").arg(self.state());
        command
    }

    pub(crate) fn start(&self) -> Daemon {
        Daemon::start(self.command())
    }
}

/// The binary, with nothing of this environment that could change what it does.
pub(crate) fn plimsoll() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A daemon that runs. It ends with the test.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    unread: Option<BufReader<ChildStderr>>,
}

impl Daemon {
    /// Starts it and waits until it says where it listens.
    pub(crate) fn start(command: Command) -> Self {
        let (mut daemon, stderr) = Self::start_to_listen(command);
        daemon.reader = Some(follow(stderr, Arc::clone(&daemon.log)));
        daemon
    }

    /// The same, but nobody reads its log from then on: the pipe fills, or is closed.
    pub(crate) fn start_unread(command: Command, keep_open: bool) -> Self {
        let (mut daemon, stderr) = Self::start_to_listen(command);
        daemon.unread = keep_open.then_some(stderr);
        daemon
    }

    fn start_to_listen(mut command: Command) -> (Self, BufReader<ChildStderr>) {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let before = said.len();
            if stderr.read_line(&mut said).unwrap() == 0 {
                let _status = child.wait();
                panic!("the daemon ended and said:\n{said}");
            }
            if let Some(listen) = said[before..].split("listen=").nth(1) {
                break listen.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        let log = Arc::new(Mutex::new(said));
        (Self { child, address, log, reader: None, unread: None }, stderr)
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL: nothing is put in order.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended and what it said.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (status, self.log())
    }

    /// The status and the body of an answer. A small client of its own: what is tested is the
    /// server on the wire.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: plimsoll\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) fn target(&self) -> serde_json::Value {
        self.json("/api/v1/targets/db")
    }

    /// The value of a series of `/metrics`, with all these labels.
    pub(crate) fn metric(&self, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let (_, body) = self.get("/metrics");
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let is_meant = |line: &&str| {
            let rest = line.strip_prefix(family);
            rest.is_some_and(|r| r.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        let line = body.lines().find(is_meant)?;
        Some(line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until the target's JSON is as asked, and gives it.
    pub(crate) async fn until(
        &self,
        what: &str,
        holds: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        until(what, || Some(self.target()).filter(|target| holds(target))).await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon said:\n{}", self.log());
        }
        // It may have ended long ago; then both of these fail and nothing is lost.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn follow(mut stderr: BufReader<ChildStderr>, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut line = String::new();
        while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
            log.lock().unwrap().push_str(&line);
            line.clear();
        }
    })
}

/// Waits until there is something.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(DEADLINE, looking).await;
    found.unwrap_or_else(|_| panic!("waiting for {what}"))
}
