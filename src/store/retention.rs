//! What the file forgets: bounded by age and by rows, a little with each transaction that has the
//! time. What is owed and what is open is never forgotten.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Transaction;

use super::rows::micros;

/// The record is kept so long: a review a month later still finds it.
pub(super) const KEPT_FOR: Duration = Duration::from_hours(45 * 24);

/// At most so many resolved incidents, a few kB each.
pub(super) const MAX_INCIDENTS: i64 = 5_000;

/// At most so many finished notifications, a few kB each.
pub(super) const MAX_FINISHED: i64 = 10_000;

/// At most so many transitions, about 100 bytes each.
pub(super) const MAX_TRANSITIONS: i64 = 100_000;

/// At most so many rows of a table go with one transaction, so that none takes long.
pub(super) const ROWS_AT_ONCE: i64 = 200;

/// At most so many free pages are given back to the file system with one transaction.
const PAGES_AT_ONCE: u32 = 500;

/// By the time that comes with the changes, so often is looked for what can go.
pub(super) const EVERY: Duration = Duration::from_mins(10);

/// By age and by number. Each deletes at most `:limit` rows, and looks at hardly more: rows are
/// numbered as they come, and only the oldest go.
const FORGET: [(&str, i64); 6] = [
    (
        "DELETE FROM outbox WHERE n IN (
            SELECT n FROM outbox WHERE state <> 'owed' AND finished_at < :before
            ORDER BY finished_at LIMIT :limit)",
        0,
    ),
    (
        "DELETE FROM outbox WHERE n IN (
            SELECT n FROM outbox
            WHERE state <> 'owed' AND n <= (SELECT max(n) FROM outbox) - :keep
            ORDER BY n LIMIT :limit)",
        MAX_FINISHED,
    ),
    (
        "DELETE FROM incidents WHERE rowid IN (
            SELECT rowid FROM incidents WHERE state = 'resolved' AND resolved_at < :before
            ORDER BY resolved_at LIMIT :limit)",
        0,
    ),
    (
        "DELETE FROM incidents WHERE rowid IN (
            SELECT rowid FROM incidents WHERE state = 'resolved'
            ORDER BY resolved_at DESC LIMIT :limit OFFSET :keep)",
        MAX_INCIDENTS,
    ),
    (
        "DELETE FROM transitions WHERE at < :before AND n IN (
            SELECT n FROM transitions ORDER BY n LIMIT :limit)",
        0,
    ),
    (
        "DELETE FROM transitions WHERE n IN (
            SELECT n FROM transitions WHERE n <= (SELECT max(n) FROM transitions) - :keep
            ORDER BY n LIMIT :limit)",
        MAX_TRANSITIONS,
    ),
];

/// Forgets some of what is too old or too much; true when nothing more is.
pub(super) fn forget(transaction: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<bool> {
    let before = micros(now.saturating_sub(KEPT_FOR).unwrap_or(Timestamp::MIN));
    let mut done = true;
    for (sql, keep) in FORGET {
        let mut statement = transaction.prepare_cached(sql)?;
        // Each has one of the two.
        for (name, value) in [(":before", before), (":keep", keep), (":limit", ROWS_AT_ONCE)] {
            if let Some(index) = statement.parameter_index(name)? {
                statement.raw_bind_parameter(index, value)?;
            }
        }
        let gone = statement.raw_execute()?;
        done &= i64::try_from(gone).unwrap_or(i64::MAX) < ROWS_AT_ONCE;
    }
    // Gives one row a page: all of them are taken.
    let mut statement =
        transaction.prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::{MIGRATIONS, migrate};
    use rusqlite::Connection;

    const DAY: i64 = 24 * 60 * 60 * 1_000_000;

    /// A file with so many rows of each table, each a second apart and `age` days old, and one of
    /// each that is not over.
    fn filled(rows: i64, age: i64) -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(folder.path().join("state.db")).unwrap();
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let sql = format!(
            "BEGIN;
            CREATE TEMP TABLE n AS WITH RECURSIVE n(i) AS (
                SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n;
            INSERT INTO transitions (target, at, ordinal, v, transition)
                SELECT 'db', i * 1000000 - {age} * {DAY}, 0, 1, '{{}}' FROM n WHERE i > 0;
            INSERT INTO incidents SELECT 'id' || i, 'db', 'critical',
                iif(i = 0, 'open', 'resolved'), i * 1000000 - {age} * {DAY},
                iif(i = 0, NULL, i * 1000000 - {age} * {DAY}), 0, 1, hex(zeroblob(500)) FROM n;
            INSERT INTO outbox SELECT i, 'id' || i, 'id', 'on-call', 'key', i, 'update', 0, 1,
                hex(zeroblob(500)), iif(i = 0, 'owed', 'delivered'), 0, NULL,
                iif(i = 0, NULL, i * 1000000 - {age} * {DAY}), NULL FROM n;
            COMMIT;"
        );
        connection.execute_batch(&sql).unwrap();
        (folder, connection)
    }

    fn count(connection: &Connection, what: &str) -> i64 {
        connection.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
    }

    /// Forgets until nothing more is forgotten; gives back how many transactions that took.
    fn forget_all(connection: &mut Connection) -> i64 {
        for n in 1.. {
            let transaction = connection.transaction().unwrap();
            let before = count(&transaction, "outbox");
            let done = forget(&transaction, Timestamp::UNIX_EPOCH).unwrap();
            assert!(before - count(&transaction, "outbox") <= ROWS_AT_ONCE);
            transaction.commit().unwrap();
            if done {
                return n;
            }
        }
        unreachable!("it has no end")
    }

    #[test]
    fn what_is_too_old_goes_a_little_at_a_time() {
        let (folder, mut connection) = filled(1_000, 46);
        let size = std::fs::metadata(folder.path().join("state.db")).unwrap().len();
        assert_eq!(forget_all(&mut connection), 1_000 / ROWS_AT_ONCE + 1);
        assert_eq!(count(&connection, "transitions"), 0);
        assert_eq!(count(&connection, "outbox"), count(&connection, "outbox WHERE state = 'owed'"));
        assert_eq!(count(&connection, "incidents WHERE state = 'open'"), 1);
        assert_eq!((count(&connection, "outbox"), count(&connection, "incidents")), (1, 1));
        let smaller = std::fs::metadata(folder.path().join("state.db")).unwrap().len();
        assert!(smaller < size / 4, "{size} bytes became {smaller}");
    }

    #[test]
    fn what_is_too_much_goes_and_the_newest_stay() {
        let (_folder, mut connection) = filled(MAX_TRANSITIONS + 300, 1);
        forget_all(&mut connection);
        assert_eq!(count(&connection, "transitions"), MAX_TRANSITIONS);
        assert_eq!(count(&connection, "outbox WHERE state = 'delivered'"), MAX_FINISHED);
        assert_eq!(count(&connection, "incidents WHERE state = 'resolved'"), MAX_INCIDENTS);
        let newest = format!("id{}", MAX_TRANSITIONS + 300);
        for table in ["outbox", "incidents"] {
            assert_eq!(count(&connection, &format!("{table} WHERE id = '{newest}'")), 1);
            assert_eq!(count(&connection, &format!("{table} WHERE id = 'id1'")), 0);
        }
    }

    #[test]
    fn what_is_neither_old_nor_too_much_stays() {
        let (_folder, mut connection) = filled(500, 44);
        assert_eq!(forget_all(&mut connection), 1);
        assert_eq!(count(&connection, "outbox"), 501);
        assert_eq!(count(&connection, "incidents"), 501);
        assert_eq!(count(&connection, "transitions"), 500);
    }
}
