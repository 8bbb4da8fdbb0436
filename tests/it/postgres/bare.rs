//! Sessions over the bare protocol: what no driver sends. Walsenders, logins that stop half way,
//! statements of any bytes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Ready for a query: `Z`, its length, idle.
const READY: [u8; 6] = [b'Z', 0, 0, 0, 5, b'I'];

/// The first bytes of `CopyBothResponse`: a walsender begins to send.
const COPY_BOTH: u8 = b'W';

/// A session that lives as long as this.
pub(crate) struct Bare(TcpStream);

impl Bare {
    /// Connects, sends a startup packet with these parameters, and waits for nothing.
    pub(crate) async fn knock(port: u16, parameters: &[(&str, &str)]) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut startup = vec![0, 3, 0, 0];
        for text in parameters.iter().flat_map(|(name, value)| [*name, *value]).chain([""]) {
            startup.extend_from_slice(text.as_bytes());
            startup.push(0);
        }
        let length = u32::try_from(startup.len() + 4).unwrap().to_be_bytes();
        socket.write_all(&[&length, startup.as_slice()].concat()).await.unwrap();
        Self(socket)
    }

    /// The same, up to the moment in which the server takes statements.
    pub(crate) async fn open(port: u16, parameters: &[(&str, &str)]) -> Self {
        let mut session = Self::knock(port, parameters).await;
        session.until(|answer| answer.ends_with(&READY)).await;
        session
    }

    /// Sends a statement and does not wait for its answer.
    pub(crate) async fn send(&mut self, statement: &[u8]) {
        let length = u32::try_from(statement.len() + 5).unwrap().to_be_bytes();
        self.0.write_all(&[b"Q", &length[..], statement, b"\0"].concat()).await.unwrap();
    }

    /// The same with a statement that makes a walsender begin.
    pub(crate) async fn replicate(port: u16, database: Option<&str>, statement: &str) -> Self {
        let mut parameters = vec![("user", "replicator")];
        // With a database the walsender is one of logical replication.
        match database {
            Some(database) => {
                parameters.extend([("database", database), ("replication", "database")]);
            }
            None => parameters.push(("replication", "true")),
        }
        let mut session = Self::open(port, &parameters).await;
        session.send(statement.as_bytes()).await;
        session.until(|answer| answer.first() == Some(&COPY_BOTH)).await;
        session
    }

    /// The first byte that comes: what kind of message the server answers with.
    pub(crate) async fn first_byte(&mut self) -> u8 {
        let read = tokio::time::timeout(super::DEADLINE, self.0.read_u8()).await;
        read.expect("an answer in time").unwrap()
    }

    /// Reads until this holds of all that came.
    pub(crate) async fn until(&mut self, holds: impl Fn(&[u8]) -> bool) {
        let mut answer = Vec::new();
        let reading = async {
            while !holds(&answer) {
                let read = self.0.read_buf(&mut answer).await.unwrap();
                assert_ne!(read, 0, "closed: {}", String::from_utf8_lossy(&answer));
            }
        };
        let late = tokio::time::timeout(super::DEADLINE, reading).await.is_err();
        assert!(!late, "no such answer: {}", String::from_utf8_lossy(&answer));
    }
}
