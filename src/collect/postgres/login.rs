//! One login: from a name to a session that can be polled.
//!
//! The way to the server has a deadline of its own; the login itself has none here, because a
//! backend that is stuck in it holds a slot for as long as it is. The source decides how long it
//! waits, and keeps the login until the server has decided it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{future, io};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::tls::{self, MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config};

use super::SourceSettings;
use super::failure::LoginError;
use super::socket::{Ledger, Socket};
use super::wary::Wary;
use crate::collect::conninfo::{ConnInfo, Place, TlsMode};
use crate::collect::tls::connector as tls_connector;

/// What our sessions are called in `pg_stat_activity`.
const APPLICATION_NAME: &str = "plimsoll";

/// So many addresses of a host name are tried.
const MAX_ADDRESSES: usize = 8;

/// A lock on a catalog is not waited for longer than this: the next tick tries again, and nobody
/// queues behind us meanwhile.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// A password file that is larger is not one.
const MAX_PASSWORD_BYTES: usize = 4096;

/// A login that succeeded.
pub(super) struct Login {
    pub(super) client: Client,
    /// The process id that came with the cancel key.
    pub(super) key_pid: Option<i32>,
    /// `server_version`, as the server says it without being asked.
    pub(super) version: String,
    /// Drives the connection to its end.
    pub(super) drive: BoxFuture<'static, Result<(), tokio_postgres::Error>>,
}

/// Logs in. `reached` becomes true once something at the address has accepted the connection.
pub(super) async fn login(
    settings: Arc<SourceSettings>,
    ledger: Ledger,
    reached: Arc<AtomicBool>,
) -> Result<Login, LoginError> {
    let info = &settings.conninfo;
    let config = config(&settings, password(&settings).await?);
    let tls = connector(&info.tls).await?;
    let socket = open(info, settings.timeout, &ledger).await?;
    reached.store(true, Ordering::Relaxed);
    let let_in = socket.let_in();
    let failed = |source| LoginError::Login { address: info.address(), source };
    let version = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let (client, version, drive): (_, _, BoxFuture<'static, _>) = if let Some(mut tls) = tls {
        let host = match &info.place {
            Place::Tcp { host, .. } => host.as_str(),
            Place::Socket(_) => "",
        };
        let tls = MakeTlsConnect::<Socket>::make_tls_connect(&mut tls, host)
            .expect("making a rustls connector cannot fail");
        let (client, connection) = config.connect_raw(socket, Wary(tls)).await.map_err(failed)?;
        (client, version(connection.parameter("server_version")), Box::pin(connection))
    } else {
        let connected = config.connect_raw(socket, tokio_postgres::NoTls).await;
        let (client, connection) = connected.map_err(failed)?;
        (client, version(connection.parameter("server_version")), Box::pin(connection))
    };
    let_in.store(true, Ordering::Relaxed);
    let key_pid = key_pid(&client).await;
    Ok(Login { client, key_pid, version, drive })
}

async fn password(settings: &SourceSettings) -> Result<Option<Vec<u8>>, LoginError> {
    let Some(path) = &settings.password_file else {
        let given = settings.conninfo.password.as_ref();
        return Ok(given.map(|password| password.expose().as_bytes().to_vec()));
    };
    let wrong = |source| LoginError::Password { path: path.clone(), source };
    let mut text = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(wrong)?;
    file.take(MAX_PASSWORD_BYTES as u64).read_to_end(&mut text).await.map_err(wrong)?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(wrong(io::Error::new(io::ErrorKind::InvalidData, "its first line is empty")));
    }
    Ok(Some(line.to_vec()))
}

fn config(settings: &SourceSettings, password: Option<Vec<u8>>) -> Config {
    let info = &settings.conninfo;
    let mut config = Config::new();
    if let Some(user) = &info.user {
        config.user(user.as_str());
    }
    if let Some(password) = password {
        config.password(password);
    }
    config
        .dbname(info.dbname.as_str())
        .application_name(APPLICATION_NAME)
        .options(options(info.options.as_deref(), settings.statement_timeout()))
        .ssl_mode(match info.tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyFull { .. } => SslMode::Require,
        });
    if info.channel_binding_required {
        config.channel_binding(ChannelBinding::Require);
    }
    config
}

/// What every session of ours has from its first statement on, stronger than what is set for the
/// role or the database. Our own comes last and wins.
fn options(theirs: Option<&str>, statement_timeout: Duration) -> String {
    let ours = [
        ("statement_timeout", statement_timeout.as_millis().to_string()),
        ("lock_timeout", LOCK_TIMEOUT.as_millis().to_string()),
        // With room for the statements of thousands of sessions; else they go through a file.
        ("work_mem", "32MB".to_owned()),
        // Names are not looked up anywhere else, whatever a role's search_path says.
        ("search_path", "pg_catalog".to_owned()),
        // Compiling a poll costs more than any poll.
        ("jit", "off".to_owned()),
        // Planning again would look into catalogs that may be locked.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        ("default_transaction_read_only", "on".to_owned()),
        // When we die without a word, our slot is given back in 25 s.
        ("tcp_keepalives_idle", "10".to_owned()),
        ("tcp_keepalives_interval", "5".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
        ("tcp_user_timeout", "25000".to_owned()),
    ];
    let ours = ours.map(|(name, value)| format!("-c {name}={value}"));
    let all: Vec<&str> = theirs.into_iter().chain(ours.iter().map(String::as_str)).collect();
    all.join(" ")
}

/// None where no TLS is wanted. Certificates are read from disk, away from the other tasks.
async fn connector(
    mode: &TlsMode,
) -> Result<Option<tokio_postgres_rustls::MakeRustlsConnect>, LoginError> {
    if *mode == TlsMode::Disable {
        return Ok(None);
    }
    let mode = mode.clone();
    match tokio::task::spawn_blocking(move || tls_connector(&mode)).await {
        Ok(connector) => Ok(Some(connector?)),
        Err(join) => std::panic::resume_unwind(join.into_panic()),
    }
}

async fn open(info: &ConnInfo, timeout: Duration, ledger: &Ledger) -> Result<Socket, LoginError> {
    match &info.place {
        Place::Socket(folder) => {
            let path = info.socket_path(folder);
            let connecting = Socket::unix(&path, ledger);
            in_time(connecting, timeout, &path.display().to_string()).await
        }
        Place::Tcp { host, address } => {
            let addresses = match address {
                Some(address) => vec![SocketAddr::new(*address, info.port)],
                None => resolve(host, info.port, timeout).await?,
            };
            // Each has its share of the time: the first may be one that swallows everything.
            let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
            let mut last = None;
            for address in addresses {
                let connecting = Socket::tcp(address, ledger);
                match in_time(connecting, share, &address.to_string()).await {
                    Ok(socket) => return Ok(socket),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| unresolved(host, "it has no address")))
        }
    }
}

async fn resolve(host: &str, port: u16, timeout: Duration) -> Result<Vec<SocketAddr>, LoginError> {
    match tokio::time::timeout(timeout, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.take(MAX_ADDRESSES).collect()),
        Ok(Err(source)) => Err(LoginError::Resolve { host: host.to_owned(), source }),
        Err(_) => Err(unresolved(host, "no answer in time")),
    }
}

fn unresolved(host: &str, why: &str) -> LoginError {
    LoginError::Resolve { host: host.to_owned(), source: io::Error::other(why) }
}

async fn in_time(
    connecting: impl Future<Output = io::Result<Socket>>,
    timeout: Duration,
    address: &str,
) -> Result<Socket, LoginError> {
    let address = address.to_owned();
    match tokio::time::timeout(timeout, connecting).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(source)) => Err(LoginError::Connect { address, source }),
        Err(_) => Err(LoginError::NoAnswer { address, seconds: timeout.as_secs_f64() }),
    }
}

/// The process id that came with the backend's key. The driver keeps it to itself but for a cancel
/// request, so one is written, into memory: length, code, process id, key.
async fn key_pid(client: &Client) -> Option<i32> {
    const CANCEL_REQUEST_BYTES: usize = 16;
    const ROOM: usize = 64;
    let (ours, mut theirs) = tokio::io::duplex(ROOM);
    // Where TLS is required, the driver asks for it first and must hear yes.
    theirs.write_all(b"S").await.ok()?;
    client.cancel_token().cancel_query_raw(ours, InMemory).await.ok()?;
    let mut written = Vec::new();
    theirs.read_to_end(&mut written).await.ok()?;
    let request = written.split_at_checked(written.len().checked_sub(CANCEL_REQUEST_BYTES)?)?.1;
    let pid = i32::from_be_bytes(request.get(8..12)?.try_into().ok()?);
    (pid != 0).then_some(pid)
}

/// TLS as far as the driver can see, for a stream that never leaves this program.
struct InMemory;

struct InMemoryStream<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsConnect<S> for InMemory {
    type Stream = InMemoryStream<S>;
    type Error = io::Error;
    type Future = future::Ready<Result<Self::Stream, io::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        future::ready(Ok(InMemoryStream(stream)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tls::TlsStream for InMemoryStream<S> {
    fn channel_binding(&self) -> tls::ChannelBinding {
        tls::ChannelBinding::none()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for InMemoryStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for InMemoryStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
