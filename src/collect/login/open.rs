//! The way to a server: from a host to a socket, each step with a deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::failure::LoginError;
use super::socket::{Ledger, Socket};
use crate::clock;
use crate::collect::conninfo::{Host, Place};

/// So many addresses of a host name are tried.
const MAX_ADDRESSES: usize = 8;

/// How often it is looked whether the server has closed a socket that we are done with.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Connects to the first address of this host that takes it. There must be [`room`].
pub(in crate::collect) async fn open(
    host: &Host,
    timeout: Duration,
    ledger: &Ledger,
) -> Result<Socket, LoginError> {
    match &host.place {
        Place::Socket(folder) => {
            let path = host.socket_path(folder);
            let connecting = Socket::unix(&path, ledger);
            in_time(connecting, timeout, &path.display().to_string()).await
        }
        Place::Tcp { host: name, address } => {
            let addresses = match address {
                Some(address) => vec![SocketAddr::new(*address, host.port)],
                None => resolve(name, host.port, timeout).await?,
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
            Err(last.unwrap_or_else(|| unresolved(name, "it has no address")))
        }
    }
}

/// Waits while as many sockets of ours as there may be are still open at this host: one that we
/// are done with is waited for, as long as for an answer.
pub(in crate::collect) async fn room(
    host: &Host,
    timeout: Duration,
    ledger: &Ledger,
) -> Result<(), LoginError> {
    let closed = async {
        while !ledger.has_room(clock::monotonic()) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let waited = tokio::time::timeout(timeout, closed).await;
    waited.map_err(|_| LoginError::NoRoom { address: host.address() })
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
