//! Scripted incidents on real, throwaway servers.
//!
//! A drill starts a server, this very program as a child that watches it, and a receiver for its
//! pages; then it plays a [`scenario`] and judges what came of it. [`server`] is the one harness of
//! throwaway servers for drills, the demo, tests and benches. Called by `cli`, tests and benches;
//! no part of a daemon that watches uses any of it.

pub mod bouncer;
pub mod daemon;
pub mod job;
mod play;
pub mod pool;
mod port;
pub mod receiver;
pub mod record;
pub mod scenario;
pub mod server;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use self::play::Play;
pub use self::play::Stage;
use self::record::Expectation;
use self::scenario::Scenario;

/// What the operator of a drill asks for.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The name of a scenario that is part of the program, or the path of a file.
    pub scenario: String,
    /// Go on after the last step until a signal comes.
    pub keep: bool,
    /// The program that is started as the daemon.
    pub program: PathBuf,
    /// The major version of the throwaway server; the newest that is installed if `None`.
    pub major: Option<u32>,
}

impl RunOptions {
    /// A drill with this very program.
    pub fn new(scenario: impl Into<String>) -> Result<Self, DrillError> {
        let program = std::env::current_exe()
            .map_err(|source| DrillError::Spawn { program: "this program".to_owned(), source })?;
        Ok(Self { scenario: scenario.into(), keep: false, program, major: None })
    }
}

/// What came of a drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A signal ended it before its last step.
    pub interrupted: bool,
    /// All that was expected, and whether it came.
    pub expectations: Vec<Expectation>,
}

impl Outcome {
    /// Whether all that was expected came.
    pub fn passed(&self) -> bool {
        let all_met = self.expectations.iter().all(|expected| expected.met);
        !self.interrupted && !self.expectations.is_empty() && all_met
    }
}

/// Plays a scenario and writes what happens to `out`, a line a second, then a table.
///
/// Everything that it starts has ended when it returns, also after an error, SIGINT, SIGTERM and
/// SIGHUP; and soon after us if we are killed.
pub async fn run(options: &RunOptions, out: &mut dyn Write) -> Result<Outcome, DrillError> {
    let scenario = Scenario::find(&options.scenario)?;
    let mut signals = Signals::listen()?;
    let mut play = tokio::select! {
        play = Play::prepare(scenario, options, out) => play?,
        () = signals.next() => return Ok(Outcome { interrupted: true, expectations: Vec::new() }),
    };
    let interrupted = tokio::select! {
        played = play.play() => played.map(|()| false)?,
        () = signals.next() => true,
    };
    play.conclude(interrupted)?;
    if options.keep && !interrupted {
        play.show_addresses()?;
        tokio::select! {
            gone_on = play.go_on() => gone_on?,
            () = signals.next() => {}
        }
    }
    let record = play.end().await?;
    Ok(Outcome { interrupted, expectations: record.expectations })
}

/// The signals that end a drill.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, DrillError> {
        let on = |kind| signal(kind).map_err(|source| DrillError::Signal { pid: 0, source });
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

fn say(out: &mut dyn Write, line: &str) -> Result<(), DrillError> {
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(DrillError::Output)
}

/// Why a drill, or a throwaway server, could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// Something must be installed first; the text says what, and with which command.
    #[error("finding {what}\nhint: {hint}")]
    Missing {
        /// What was looked for, and where.
        what: String,
        /// The command that installs it.
        hint: String,
    },
    /// A file or folder.
    #[error("{doing} {}", path.display())]
    File {
        /// `writing`, `copying`…
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program that could not be started.
    #[error("starting {program}")]
    Spawn {
        /// Which one.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program that ended when it should not have, with the end of what it said.
    #[error("{program} ended ({status}); its last words:\n{said}")]
    Ended {
        /// Which one.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of its log.
        said: String,
    },
    /// A condition that did not come in time.
    #[error("waiting {seconds} s for {what}")]
    TooLate {
        /// What was awaited.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// A login or a statement that the throwaway server did not take.
    #[error("{doing}")]
    Postgres {
        /// What was being done.
        doing: String,
        /// What the server or the driver said.
        source: tokio_postgres::Error,
    },
    /// A scenario that cannot be played.
    #[error("reading the scenario {name}\n{text}")]
    Scenario {
        /// Which one.
        name: String,
        /// Its mistakes, a line each.
        text: String,
    },
    /// An answer of the daemon that did not come, or cannot be read.
    #[error("asking the daemon for {path}")]
    Answer {
        /// What it was asked for.
        path: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The place where the drill is shown cannot be written to.
    #[error("writing what happens")]
    Output(#[source] io::Error),
    /// A signal that could not be sent or listened for.
    #[error("sending a signal to process {pid}")]
    Signal {
        /// To whom.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
}

impl DrillError {
    /// The SQLSTATE, where the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres { source, .. } => {
                source.code().map(tokio_postgres::error::SqlState::code)
            }
            _ => None,
        }
    }
}
