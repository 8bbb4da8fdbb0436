//! A session at a console: one statement at a time, each with its deadline.
//!
//! Simple queries alone: PgBouncer's console takes no others (08P01). Dropping a query's future does
//! not cancel it, so after a deadline the session is out of step and given up; [`super`] does that.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::answer::{Answer, Unusable};
use super::failure::AskError;
use super::rhythm::Command;

/// A pooler has a pool a database and user, and a row for each. No answer of more rows is taken: it
/// costs the pooler some hundredths of a second of its only thread to say them, and us as much to
/// judge them, a second. Half as many again as the clients that are listed one by one, for they may
/// become more while they are.
pub(super) const MAX_ROWS: usize = 30_000;

/// A session that is logged in.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) client: Client,
    /// Ends the task that drives the connection.
    pub(super) drive: AbortHandle,
    /// What the connection ended of: those who ask are only told that it has.
    pub(super) ended: Option<oneshot::Receiver<Option<tokio_postgres::Error>>>,
    /// What it said of itself at the login.
    pub(super) server_version: String,
}

impl Console {
    /// What is said to a command: the rows, of the wanted columns.
    pub(super) async fn ask(
        &mut self,
        command: Command,
        wanted: &[&'static str],
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Answer, AskError> {
        let asking = async {
            let answer = self.answer(command, wanted).await;
            match answer {
                Err(AskError::Lost(said)) if self.client.is_closed() => {
                    // It is said once.
                    let Some(ended) = self.ended.take() else { return Err(AskError::Lost(said)) };
                    match ended.await {
                        Ok(Some(error)) => Err(AskError::of(&error)),
                        _ => Err(AskError::Lost(said)),
                    }
                }
                answer => answer,
            }
        };
        let asked = tokio::time::timeout_at(deadline.into(), asking).await;
        asked.unwrap_or(Err(AskError::Late(timeout)))
    }

    async fn answer(&self, command: Command, wanted: &[&'static str]) -> Result<Answer, AskError> {
        let of = |error: tokio_postgres::Error| AskError::of(&error);
        let mut messages = pin!(self.client.simple_query_raw(command.sql()).await.map_err(of)?);
        let mut places = Vec::new();
        let mut answer = Answer::default();
        while let Some(message) = messages.try_next().await.map_err(of)? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    // Of two columns of one name the last counts.
                    let place = |name: &str| columns.iter().rposition(|c| c.name() == name);
                    places = wanted.iter().map(|name| place(name)).collect();
                    let there = wanted.iter().zip(&places);
                    let columns = there.map(|(name, place)| (*name, place.is_some())).collect();
                    answer = Answer::with(columns);
                }
                SimpleQueryMessage::Row(row) => {
                    if answer.len() >= MAX_ROWS {
                        let why = format!("has more than {MAX_ROWS} rows");
                        return Err(AskError::Unusable(Unusable(why)));
                    }
                    answer.push(places.iter().map(|place| match place {
                        Some(place) => row.try_get(*place).map_err(|_| ()),
                        None => Ok(None),
                    }));
                }
                _ => {}
            }
        }
        // One without columns has none that anybody asks for, and is said to have none.
        Ok(answer)
    }
}
