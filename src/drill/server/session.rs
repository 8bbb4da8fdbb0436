//! One session on a throwaway server: a client and the task that drives it, ended together.

use std::ops::{Deref, DerefMut};

use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, NoTls};

use crate::drill::DrillError;

/// A session. Dropping it closes the socket, whatever the server is doing for it.
#[derive(Debug)]
pub struct Session {
    client: Client,
    connection: JoinSet<Result<(), tokio_postgres::Error>>,
}

impl Session {
    /// Logs in.
    pub async fn open(login: &Config) -> Result<Self, DrillError> {
        let (client, connection) = login.connect(NoTls).await.map_err(|source| {
            let role = login.get_user().unwrap_or("?");
            DrillError::Postgres { doing: format!("logging in as {role}"), source }
        })?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Ok(Self { client, connection: tasks })
    }

    /// Says goodbye, and returns when the socket is closed. The server may show the session for
    /// a moment longer.
    pub async fn close(self) {
        let Self { client, mut connection } = self;
        drop(client);
        // However the connection ended: it has ended.
        drop(connection.join_next().await);
    }

    /// The process id of its backend.
    pub async fn backend_pid(&self) -> Result<i32, DrillError> {
        let row = self.client.query_one("SELECT pg_backend_pid()", &[]).await;
        let row = row.map_err(|source| DrillError::Postgres {
            doing: "asking for the backend's process id".to_owned(),
            source,
        })?;
        Ok(row.get(0))
    }

    /// Returns when the server, or somebody, has ended the session.
    pub async fn until_closed(&mut self) {
        drop(self.connection.join_next().await);
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}
