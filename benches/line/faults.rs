//! The staged faults: real servers that are brought to where nobody gets in.

use std::time::Duration;

use plimsoll::clock;
use plimsoll::drill::server::{Mode, Server, Session, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Measured;

/// Ten times and more what staging takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Full,
    FullAndCutOff,
    HalfOpen,
    Locked,
    StoppedPostmaster,
    Down,
}

impl Fault {
    pub(super) const ALL: [Self; 6] = [
        Self::Full,
        Self::FullAndCutOff,
        Self::HalfOpen,
        Self::Locked,
        Self::StoppedPostmaster,
        Self::Down,
    ];

    /// What a person would call it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Full => "full: applications hold every usable slot",
            Self::FullAndCutOff => "full, and the tool's own connections were cut",
            Self::HalfOpen => "logins stopped half-way hold every slot",
            Self::Locked => "`LOCK TABLE pg_database` is held",
            Self::StoppedPostmaster => "the postmaster is stopped (SIGSTOP)",
            Self::Down => "the server is down",
        }
    }
}

/// What holds the fault up; it goes when this is dropped.
#[derive(Default)]
pub(super) struct Staged {
    sessions: Vec<Session>,
    half_open: Vec<TcpStream>,
}

/// So many sessions an application has while nothing is wrong.
const AT_REST: usize = 40;

/// An application at rest.
pub(super) async fn at_rest(server: &Server) -> Measured<Vec<Session>> {
    Ok(server.fill("app", "payment-api", AT_REST).await?)
}

/// Brings it about, and returns once it holds.
pub(super) async fn stage(
    fault: Fault,
    server: &mut Server,
    superuser: &Session,
) -> Measured<Staged> {
    let mut staged = Staged::default();
    match fault {
        Fault::Full => fill(server, &mut staged).await?,
        Fault::FullAndCutOff => {
            fill(server, &mut staged).await?;
            cut_off(server, superuser, &mut staged).await?;
        }
        Fault::HalfOpen => half_open(server, &mut staged).await?,
        Fault::Locked => {
            superuser.batch_execute("BEGIN; LOCK TABLE pg_database").await?;
        }
        Fault::StoppedPostmaster => server.signal_postmaster(Signal::STOP)?,
        Fault::Down => server.stop(Mode::Immediate).await?,
    }
    Ok(staged)
}

/// Opens sessions until an ordinary login is refused.
async fn fill(server: &Server, staged: &mut Staged) -> Measured<()> {
    let mut login = server.login("app", "postgres");
    login.application_name("payment-api");
    loop {
        match Session::open(&login).await {
            Ok(session) => staged.sessions.push(session),
            Err(error) if error.sqlstate() == Some("53300") => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends the sessions of everybody who watches, and takes their slots, until none has one.
async fn cut_off(server: &Server, superuser: &Session, staged: &mut Staged) -> Measured<()> {
    let watchers = "usename IN ('exporter', 'plimsoll')";
    let cut =
        format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {watchers}");
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE {watchers}");
    let deadline = clock::monotonic() + PATIENCE;
    loop {
        superuser.batch_execute(&cut).await?;
        fill(server, staged).await?;
        // Whoever came back in between is cut off again.
        let left: i64 = superuser.query_one(&left, &[]).await?.get(0);
        if left == 0 {
            return Ok(());
        }
        if clock::monotonic() > deadline {
            return Err("those who watch always came back in".into());
        }
    }
}

/// Lets logins stop after the server has asked for a password, until nobody gets in any more.
async fn half_open(server: &Server, staged: &mut Staged) -> Measured<()> {
    let deadline = clock::monotonic() + PATIENCE;
    loop {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await?;
        stream.write_all(&startup_packet("slow")).await?;
        let mut kind = [0];
        stream.read_exact(&mut kind).await?;
        match kind[0] {
            // A request for authentication: SASL, and the slot is taken.
            b'R' => staged.half_open.push(stream),
            // An error: there is no slot left.
            b'E' => return Ok(()),
            other => return Err(format!("the server answered {:?}", char::from(other)).into()),
        }
        if clock::monotonic() > deadline {
            return Err("the server always took one more".into());
        }
    }
}

/// A startup packet of protocol 3.0 (the manual, "Message Formats").
fn startup_packet(role: &str) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for word in ["user", role, "database", "postgres"] {
        body.extend_from_slice(word.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or_default();
    let mut packet = length.to_be_bytes().to_vec();
    packet.extend(body);
    packet
}
