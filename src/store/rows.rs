//! The rows of `state.db`: the SQL, and core's values as JSON beside the version of that JSON.
//!
//! `v` is the version of the JSON in its row; what this program does not know it does not guess.
//! `disk` writes and loads, `record` reads for the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use plimsoll_core::judge::incident::IncidentState;
use rusqlite::{Connection, Row as SqlRow, Transaction, named_params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DeliveryState;
use super::outbox::{ACCEPTED_KEPT, Accepted, Row};
use super::shared::Remembered;
use super::waiting::{Queue, Waiting};

/// The version of the JSON in every row that is written.
pub(super) const V: i64 = 1;

/// Everything that a start needs of a file.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) episodes: BTreeMap<Arc<str>, Remembered>,
    pub(super) owed: Vec<Row>,
    pub(super) accepted: Vec<Accepted>,
    /// Ids of owed notifications that could not be read, and so never can be sent.
    pub(super) unreadable_owed: Vec<String>,
    /// Targets whose episode could not be read.
    pub(super) unreadable_episodes: Vec<String>,
}

impl Loaded {
    /// Whether nothing was ever committed.
    pub(super) fn is_empty(&self) -> bool {
        self.episodes.is_empty()
            && self.owed.is_empty()
            && self.unreadable_owed.is_empty()
            && self.unreadable_episodes.is_empty()
    }
}

/// The JSON of a row, if its version and its text are known.
pub(super) fn decode<T: DeserializeOwned>(v: i64, json: &str) -> Option<T> {
    if v == V { serde_json::from_str(json).ok() } else { None }
}

/// A time as a row holds it.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// A time out of a row; one that cannot be is the earliest there is.
pub(super) fn instant(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MIN)
}

/// A column with a time, or none.
pub(super) fn maybe_instant(row: &SqlRow<'_>, name: &str) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(name)?.map(instant))
}

const EPISODES: &str = "
SELECT e.target, e.v, e.at, e.episode, m.v AS memory_v, m.memory
FROM episodes AS e LEFT JOIN memories AS m USING (target)";

const OWED: &str = "
SELECT id, v, notification, attempts, next_at, error
FROM outbox WHERE state = 'owed' ORDER BY receiver, key, sequence";

/// `finished_at` is that of the row with the highest sequence: a promise of SQLite's for `max`.
const ACCEPTED: &str = "
SELECT receiver, key, max(sequence) AS sequence, finished_at
FROM outbox WHERE state = 'delivered' AND finished_at > :since
GROUP BY receiver, key";

/// Reads what a start needs.
pub(super) fn load(connection: &Connection, now: Timestamp) -> rusqlite::Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut statement = connection.prepare(EPISODES)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let target: String = row.get("target")?;
        let Some(episode) = decode(row.get("v")?, &row.get::<_, String>("episode")?) else {
            loaded.unreadable_episodes.push(target);
            continue;
        };
        // A memory that is lost only makes its rules learn anew.
        let memory_v: Option<i64> = row.get("memory_v")?;
        let memory_json: Option<String> = row.get("memory")?;
        let memory = memory_v.zip(memory_json).and_then(|(v, json)| decode(v, &json));
        let at = instant(row.get("at")?);
        let remembered =
            Remembered { at, episode: Arc::new(episode), memory: memory.map(Arc::new) };
        loaded.episodes.insert(target.into(), remembered);
    }
    let mut statement = connection.prepare(OWED)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match decode(row.get("v")?, &row.get::<_, String>("notification")?) {
            None => loaded.unreadable_owed.push(row.get("id")?),
            Some(notification) => loaded.owed.push(Row {
                notification: Arc::new(notification),
                attempts: row.get("attempts")?,
                next_at: maybe_instant(row, "next_at")?,
                last_error: row.get("error")?,
            }),
        }
    }
    let since = now.saturating_sub(ACCEPTED_KEPT).unwrap_or(Timestamp::MIN);
    let mut statement = connection.prepare(ACCEPTED)?;
    let mut rows = statement.query(named_params! { ":since": micros(since) })?;
    while let Some(row) = rows.next()? {
        loaded.accepted.push(Accepted {
            receiver: row.get("receiver")?,
            key: row.get("key")?,
            sequence: row.get::<_, i64>("sequence")?.cast_unsigned(),
            at: instant(row.get("finished_at")?),
        });
    }
    Ok(loaded)
}

const PUT_EPISODE: &str = "
INSERT INTO episodes (target, v, at, episode) VALUES (:target, :v, :at, :json)
ON CONFLICT (target) DO UPDATE SET v = excluded.v, at = excluded.at, episode = excluded.episode";

const PUT_MEMORY: &str = "
INSERT INTO memories (target, v, at, memory) VALUES (:target, :v, :at, :json)
ON CONFLICT (target) DO UPDATE SET v = excluded.v, at = excluded.at, memory = excluded.memory";

const PUT_TRANSITION: &str = "
INSERT INTO transitions (target, at, ordinal, v, transition)
VALUES (:target, :at, :ordinal, :v, :json)
ON CONFLICT (target, at, ordinal) DO NOTHING";

const PUT_INCIDENT: &str = "
INSERT INTO incidents (id, target, severity, state, opened_at, resolved_at, updated_at, v, report)
VALUES (:id, :target, :severity, :state, :opened_at, :resolved_at, :updated_at, :v, :json)
ON CONFLICT (id) DO UPDATE SET severity = excluded.severity, state = excluded.state,
    resolved_at = excluded.resolved_at, updated_at = excluded.updated_at,
    v = excluded.v, report = excluded.report";

const PUT_NOTIFICATION: &str = "
INSERT INTO outbox (id, incident, receiver, key, sequence, kind, decided_at, v, notification,
    state, attempts)
VALUES (:id, :incident, :receiver, :key, :sequence, :kind, :decided_at, :v, :json, 'owed', 0)
ON CONFLICT (id) DO NOTHING";

const PUT_MARK: &str = "
UPDATE outbox SET state = :state, attempts = :attempts, next_at = :next_at,
    finished_at = :finished_at, error = :error
WHERE id = :id";

/// Writes everything that waits; gives back the notifications that the file knew as finished.
pub(super) fn put(transaction: &Transaction<'_>, queue: &Queue) -> rusqlite::Result<Vec<String>> {
    put_documents(transaction, PUT_EPISODE, &queue.episodes)?;
    put_documents(transaction, PUT_MEMORY, &queue.memories)?;
    let mut statement = transaction.prepare_cached(PUT_TRANSITION)?;
    for one in &queue.transitions {
        let step = &one.value;
        statement.execute(named_params! {
            ":target": &*step.target,
            ":at": micros(one.at),
            ":ordinal": i64::try_from(step.ordinal).unwrap_or(i64::MAX),
            ":v": V,
            ":json": json(&step.transition)?,
        })?;
    }
    let mut statement = transaction.prepare_cached(PUT_INCIDENT)?;
    for one in queue.reports.values() {
        let report = &one.value;
        statement.execute(named_params! {
            ":id": report.id,
            ":target": report.target,
            ":severity": report.severity.word(),
            ":state": state_word(report.state),
            ":opened_at": micros(report.opened_at),
            ":resolved_at": report.resolved_at.map(micros),
            ":updated_at": micros(one.at),
            ":v": V,
            ":json": json(&**report)?,
        })?;
    }
    put_outbox(transaction, queue)
}

fn put_documents<T: Serialize>(
    transaction: &Transaction<'_>,
    sql: &str,
    documents: &BTreeMap<Arc<str>, Waiting<Arc<T>>>,
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(sql)?;
    for (target, one) in documents {
        statement.execute(named_params! {
            ":target": &**target,
            ":v": V,
            ":at": micros(one.at),
            ":json": json(&*one.value)?,
        })?;
    }
    Ok(())
}

fn put_outbox(transaction: &Transaction<'_>, queue: &Queue) -> rusqlite::Result<Vec<String>> {
    let mut known = Vec::new();
    let mut statement = transaction.prepare_cached(PUT_NOTIFICATION)?;
    for one in &queue.notifications {
        let notification = &one.value;
        let new = statement.execute(named_params! {
            ":id": notification.id,
            ":incident": notification.report.id,
            ":receiver": notification.receiver,
            ":key": notification.key,
            ":sequence": notification.sequence.cast_signed(),
            ":kind": notification.kind.word(),
            ":decided_at": micros(notification.decided_at),
            ":v": V,
            ":json": json(&**notification)?,
        })?;
        if new == 0 {
            known.push(notification.id.clone());
        }
    }
    let mut statement = transaction.prepare_cached(PUT_MARK)?;
    for (id, one) in &queue.marks {
        let mark = &one.value;
        statement.execute(named_params! {
            ":id": id,
            ":state": mark.state.word(),
            ":attempts": mark.attempts,
            ":next_at": mark.next_at.map(micros),
            ":finished_at": mark.finished_at.map(micros),
            ":error": mark.error,
        })?;
    }
    let mut statement = transaction.prepare_cached("SELECT state FROM outbox WHERE id = :id")?;
    let mut finished = Vec::new();
    for id in known {
        let state: String =
            statement.query_row(named_params! { ":id": id }, |row| row.get("state"))?;
        if state != DeliveryState::Owed.word() {
            finished.push(id);
        }
    }
    Ok(finished)
}

const ALL_OWED: &str = "SELECT id FROM outbox WHERE state = 'owed'";

const LEAVE: &str = "
UPDATE outbox SET state = 'superseded', next_at = NULL, finished_at = :at,
    error = 'left by a run whose file was not there when this one began'
WHERE id = :id";

/// Supersedes what an earlier run owes and this one does not know.
///
/// This run began without that file: what is still wrong it says itself, and an old trigger after
/// its own resolve would page somebody for nothing.
pub(super) fn leave_others(transaction: &Transaction<'_>, queue: &Queue) -> rusqlite::Result<()> {
    let ours: std::collections::BTreeSet<&str> =
        queue.notifications.iter().map(|one| one.value.id.as_str()).collect();
    let mut statement = transaction.prepare(ALL_OWED)?;
    let owed = statement.query_map([], |row| row.get::<_, String>("id"))?;
    let owed: Vec<String> = owed.collect::<rusqlite::Result<_>>()?;
    let at = queue.newest_at().unwrap_or(Timestamp::MIN);
    let mut statement = transaction.prepare(LEAVE)?;
    for id in owed.iter().filter(|id| !ours.contains(id.as_str())) {
        statement.execute(named_params! { ":id": id, ":at": micros(at) })?;
    }
    Ok(())
}

fn state_word(state: IncidentState) -> &'static str {
    match state {
        IncidentState::Open => "open",
        IncidentState::Resolved => "resolved",
    }
}

fn json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}
