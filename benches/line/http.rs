//! A client for `/metrics`, ours and those of exporters, which says how long an answer took.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use plimsoll::clock;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Measured;

/// Larger than anything that an exporter says.
const MAX_BODY: usize = 16_000_000;

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) took: Duration,
}

impl Answer {
    /// The values of every series of this name.
    pub(super) fn values(&self, name: &str) -> Vec<f64> {
        let series = self.body.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        series.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect()
    }

    /// How many series there are.
    pub(super) fn series(&self) -> usize {
        self.body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count()
    }
}

/// A connection that is kept as Prometheus keeps its own.
#[derive(Debug)]
pub(super) struct Kept {
    address: SocketAddr,
    sender: SendRequest<Empty<Bytes>>,
    _connection: JoinSet<Result<(), hyper::Error>>,
}

impl Kept {
    pub(super) async fn connect(address: SocketAddr) -> Measured<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Ok(Self { address, sender, _connection: tasks })
    }

    /// One answer. A connection that the server has closed meanwhile is made anew first, and that
    /// does not count.
    pub(super) async fn get(&mut self, path: &str) -> Measured<Answer> {
        if self.sender.is_closed() {
            *self = Self::connect(self.address).await?;
        }
        let request =
            Request::get(path).header(HOST, self.address.to_string()).body(Empty::new())?;
        let asked = clock::monotonic();
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await?.to_bytes();
        let took = clock::monotonic() - asked;
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), took })
    }
}

/// One answer over a connection of its own.
pub(super) async fn get(address: SocketAddr, path: &str) -> Measured<Answer> {
    let began = clock::monotonic();
    let mut answer = Kept::connect(address).await?.get(path).await?;
    answer.took = clock::monotonic() - began;
    Ok(answer)
}
