//! A single session with a task: a migration, a report, a backup.

use tokio::task::JoinSet;
use tokio_postgres::Config;

use super::DrillError;
use super::scenario::JobPart;
use super::server::Session;

/// A running job. Dropping it closes its socket, whatever the server is doing for it.
#[derive(Debug)]
pub struct Job {
    tasks: JoinSet<Result<(), DrillError>>,
}

impl Job {
    /// Logs in, and begins.
    pub async fn start(mut login: Config, part: &JobPart) -> Result<Self, DrillError> {
        login.user(&part.role).application_name(&part.application);
        let session = Session::open(&login).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(work(session, part.clone()));
        Ok(Self { tasks })
    }

    /// Returns when it has ended, with what ended it if it did not come to its end.
    pub async fn ended(&mut self) -> Result<(), DrillError> {
        match self.tasks.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// Ends it: its socket is closed when this returns.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn work(session: Session, part: JobPart) -> Result<(), DrillError> {
    for _ in 0..part.rounds {
        for statement in &part.statements {
            session.batch_execute(statement).await.map_err(|source| DrillError::Postgres {
                doing: format!("running a statement of {}", part.application),
                source,
            })?;
        }
    }
    session.close().await;
    Ok(())
}
