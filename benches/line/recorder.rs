//! What somebody asks at a console: a way through to it that writes down each statement.
//!
//! It knows the messages of a client as far as they are needed here: the first ones, which have no
//! type, and simple queries (PostgreSQL's manual, "Message Formats").

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Measured;

/// `SSLRequest` and `GSSENCRequest`: the client begins anew after the answer to them.
const NOT_YET: [u32; 2] = [80_877_103, 80_877_104];

/// More than any of their messages.
const READ_AT_ONCE: usize = 16_384;

/// What was said through it.
type Said = Arc<Mutex<Vec<String>>>;

/// A way through, for as long as this lives.
#[derive(Debug)]
pub(super) struct Recorder {
    /// Where it is.
    pub(super) port: u16,
    said: Said,
    _task: JoinSet<()>,
}

impl Recorder {
    /// One to this port of this machine.
    pub(super) async fn before(port: u16) -> Measured<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (own, said) = (listener.local_addr()?.port(), Said::default());
        let mut task = JoinSet::new();
        task.spawn(through(listener, port, Arc::clone(&said)));
        Ok(Self { port: own, said, _task: task })
    }

    /// The statements since the last time, in their order.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn through(listener: TcpListener, port: u16, said: Said) {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut ways = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let Ok(console) = TcpStream::connect(to).await else { continue };
        // Neither side may wait for us: a look and a scrape are as quick as without.
        drop(client.set_nodelay(true));
        drop(console.set_nodelay(true));
        let (mut answers, console) = console.into_split();
        let (client, mut back) = client.into_split();
        ways.spawn(forth(client, console, Arc::clone(&said)));
        ways.spawn(async move { drop(copy(&mut answers, &mut back).await) });
    }
}

async fn forth(mut client: OwnedReadHalf, mut console: OwnedWriteHalf, said: Said) {
    let (mut unread, mut is_in) = (Vec::new(), false);
    loop {
        let before = unread.len();
        // PgBouncer takes no first message that comes in pieces.
        unread.reserve(READ_AT_ONCE);
        if !matches!(client.read_buf(&mut unread).await, Ok(1..)) {
            break;
        }
        if console.write_all(&unread[before..]).await.is_err() {
            break;
        }
        while let Some(message) = next(&mut unread, is_in) {
            match message {
                Message::First(code) => is_in = !NOT_YET.contains(&code),
                Message::Typed(b'Q', sql) => {
                    said.lock().unwrap_or_else(PoisonError::into_inner).push(sql);
                }
                Message::Typed(..) => {}
            }
        }
    }
}

enum Message {
    /// Its first number: a version, or a request.
    First(u32),
    Typed(u8, String),
}

/// The next message that is whole.
fn next(unread: &mut Vec<u8>, is_in: bool) -> Option<Message> {
    let head = usize::from(is_in);
    let length: [u8; 4] = unread.get(head..head + 4)?.try_into().ok()?;
    let end = head + u32::from_be_bytes(length) as usize;
    if unread.len() < end {
        return None;
    }
    let message: Vec<u8> = unread.drain(..end).collect();
    let body = &message[head + 4..];
    if is_in {
        let text = String::from_utf8_lossy(body);
        return Some(Message::Typed(message[0], text.trim_end_matches('\0').to_owned()));
    }
    let code = body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, u32::from_be_bytes);
    Some(Message::First(code))
}
