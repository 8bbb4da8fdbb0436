//! What the API reads: incidents, and what became of each one's notifications.
//!
//! Read by connections of their own, which cannot write; what still waits for the disk is laid
//! over it, so that an answer is never older than what was decided.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::judge::incident::Report;
use plimsoll_core::judge::telling::NotificationKind;
use rusqlite::{Connection, OpenFlags, Row as SqlRow, named_params};

use super::rows::{decode, instant, maybe_instant, micros};
use super::waiting::Queue;
use super::{DeliveryState, StoreError};

/// At most so many incidents are read at once.
pub const MAX_INCIDENTS_READ: usize = 500;

/// At most so many deliveries of an incident are read; the newest.
pub const MAX_DELIVERIES_READ: usize = 1_000;

/// A reader waits so long for a lock; in this mode of SQLite there is hardly ever one.
const READ_BUSY: Duration = Duration::from_secs(1);

/// An incident as it was last written.
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentRecord {
    /// Its facts.
    pub report: Report,
    /// The reading that they are from.
    pub updated_at: Timestamp,
}

/// An incident and what was told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentDetail {
    /// The incident.
    pub record: IncidentRecord,
    /// Its notifications, in the order in which they were decided.
    pub deliveries: Vec<Delivery>,
}

/// A notification and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The notification's id.
    pub id: String,
    /// To whom.
    pub receiver: String,
    /// What it did.
    pub kind: NotificationKind,
    /// Its place in the order of its target.
    pub sequence: u64,
    /// The reading that made it owed.
    pub decided_at: Timestamp,
    /// What became of it.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again, after a failure.
    pub next_at: Option<Timestamp>,
    /// When that was settled.
    pub finished_at: Option<Timestamp>,
    /// Why it was not delivered, or not yet.
    pub error: Option<String>,
}

const INCIDENTS: &str = "
SELECT v, report, updated_at FROM incidents WHERE :target IS NULL OR target = :target
ORDER BY opened_at DESC, id LIMIT :limit";

const INCIDENT: &str = "SELECT v, report, updated_at FROM incidents WHERE id = :id";

const DELIVERIES: &str = "
SELECT id, receiver, kind, sequence, decided_at, state, attempts, next_at, finished_at, error
FROM outbox WHERE incident = :incident ORDER BY n DESC LIMIT :limit";

/// The newest incidents, of one target or of all, the newest first.
pub(super) fn incidents(
    path: &Path,
    target: Option<&str>,
    limit: usize,
    waiting: &Queue,
) -> Result<Vec<IncidentRecord>, StoreError> {
    let limit = limit.min(MAX_INCIDENTS_READ);
    let mut found = BTreeMap::new();
    if let Some(connection) = connect(path)? {
        let mut statement = connection.prepare(INCIDENTS)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(named_params! { ":limit": limit, ":target": target })?;
        while let Some(row) = rows.next()? {
            if let Some(record) = record(row)? {
                found.insert(record.report.id.clone(), record);
            }
        }
    }
    let is_asked_for = |report: &Report| target.is_none_or(|target| report.target == target);
    for one in waiting.reports.values().filter(|one| is_asked_for(&one.value)) {
        let record = IncidentRecord { report: (*one.value).clone(), updated_at: one.at };
        found.insert(record.report.id.clone(), record);
    }
    let mut records: Vec<_> = found.into_values().collect();
    records.sort_by_key(|record| Reverse(record.report.opened_at));
    records.truncate(limit);
    Ok(records)
}

/// One incident with its deliveries.
pub(super) fn incident(
    path: &Path,
    id: &str,
    waiting: &Queue,
) -> Result<Option<IncidentDetail>, StoreError> {
    let (mut found, mut deliveries) = (None, Vec::new());
    if let Some(connection) = connect(path)? {
        let mut statement = connection.prepare(INCIDENT)?;
        let mut rows = statement.query(named_params! { ":id": id })?;
        found = rows.next()?.map(record).transpose()?.flatten();
        deliveries = read_deliveries(&connection, id)?;
    }
    if let Some(one) = waiting.reports.get(id) {
        found = Some(IncidentRecord { report: (*one.value).clone(), updated_at: one.at });
    }
    let Some(record) = found else { return Ok(None) };
    lay_over(&mut deliveries, id, waiting);
    Ok(Some(IncidentDetail { record, deliveries }))
}

/// A connection that cannot write; none while there is no file.
fn connect(path: &Path) -> Result<Option<Connection>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(READ_BUSY)?;
    Ok(Some(connection))
}

fn record(row: &SqlRow<'_>) -> rusqlite::Result<Option<IncidentRecord>> {
    let updated_at = instant(row.get("updated_at")?);
    let report = decode(row.get("v")?, &row.get::<_, String>("report")?);
    Ok(report.map(|report| IncidentRecord { report, updated_at }))
}

fn read_deliveries(connection: &Connection, id: &str) -> rusqlite::Result<Vec<Delivery>> {
    let mut statement = connection.prepare(DELIVERIES)?;
    let limit = i64::try_from(MAX_DELIVERIES_READ).unwrap_or(i64::MAX);
    let rows = statement.query_map(named_params! { ":incident": id, ":limit": limit }, |row| {
        Ok(Delivery {
            id: row.get("id")?,
            receiver: row.get("receiver")?,
            kind: kind(&row.get::<_, String>("kind")?),
            sequence: row.get::<_, i64>("sequence")?.cast_unsigned(),
            decided_at: instant(row.get("decided_at")?),
            state: DeliveryState::of_word(&row.get::<_, String>("state")?),
            attempts: row.get("attempts")?,
            next_at: maybe_instant(row, "next_at")?,
            finished_at: maybe_instant(row, "finished_at")?,
            error: row.get("error")?,
        })
    })?;
    let mut deliveries: Vec<Delivery> = rows.collect::<rusqlite::Result<_>>()?;
    deliveries.reverse();
    Ok(deliveries)
}

/// Adds what the file does not say yet.
fn lay_over(deliveries: &mut Vec<Delivery>, incident: &str, waiting: &Queue) {
    let new = waiting.notifications.iter().map(|one| &one.value);
    for one in new.filter(|one| one.report.id == incident) {
        if deliveries.iter().any(|known| known.id == one.id) {
            continue;
        }
        deliveries.push(Delivery {
            id: one.id.clone(),
            receiver: one.receiver.clone(),
            kind: one.kind,
            sequence: one.sequence,
            // As the file would give it back.
            decided_at: instant(micros(one.decided_at)),
            state: DeliveryState::Owed,
            attempts: 0,
            next_at: None,
            finished_at: None,
            error: None,
        });
    }
    for delivery in deliveries {
        let Some(mark) = waiting.marks.get(&delivery.id).map(|one| &one.value) else { continue };
        delivery.state = mark.state;
        delivery.attempts = mark.attempts;
        delivery.next_at = mark.next_at;
        delivery.finished_at = mark.finished_at;
        delivery.error.clone_from(&mark.error);
    }
}

fn kind(word: &str) -> NotificationKind {
    let kinds = [NotificationKind::Trigger, NotificationKind::Update, NotificationKind::Resolve];
    kinds.into_iter().find(|kind| kind.word() == word).unwrap_or(NotificationKind::Update)
}
