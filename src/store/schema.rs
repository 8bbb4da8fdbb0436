//! The tables of `state.db` and how an older file becomes one of today. `file` calls it.
//!
//! `PRAGMA user_version` is the number of migrations that a file has seen. A released migration is
//! never edited: a change is one more at the end, and a fixture of the version before it in
//! `tests/it/store/`. Whoever raises the `v` of a stored row raises this version with it, so that
//! an older program finds a *newer* file and not a row that it cannot read.

use rusqlite::{Connection, TransactionBehavior};

/// Marks a file as ours (`PRAGMA application_id`): "PLIM".
pub(super) const APPLICATION_ID: i32 = 0x504C_494D;

/// Migration `n` (from 0) leads from version `n` to `n + 1`.
pub(super) const MIGRATIONS: &[&str] = &[V1];

/// Instants are microseconds since 1970, so that they sort; JSON holds RFC 3339.
///
/// No constraint here can be broken by what the judge decides: one row that breaks one would
/// hold back every transaction after it.
const V1: &str = "
CREATE TABLE episodes (
    target  TEXT PRIMARY KEY,
    v       INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    episode TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE memories (
    target TEXT PRIMARY KEY,
    v      INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    memory TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE transitions (
    n          INTEGER PRIMARY KEY,
    target     TEXT NOT NULL,
    at         INTEGER NOT NULL,
    ordinal    INTEGER NOT NULL,
    v          INTEGER NOT NULL,
    transition TEXT NOT NULL,
    UNIQUE (target, at, ordinal)
) STRICT;

CREATE TABLE incidents (
    id          TEXT PRIMARY KEY,
    target      TEXT NOT NULL,
    severity    TEXT NOT NULL,
    state       TEXT NOT NULL,
    opened_at   INTEGER NOT NULL,
    resolved_at INTEGER,
    updated_at  INTEGER NOT NULL,
    v           INTEGER NOT NULL,
    report      TEXT NOT NULL
) STRICT;
CREATE INDEX incidents_by_time ON incidents (opened_at);
CREATE INDEX incidents_resolved ON incidents (resolved_at) WHERE state = 'resolved';

CREATE TABLE outbox (
    n            INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    incident     TEXT NOT NULL,
    receiver     TEXT NOT NULL,
    key          TEXT NOT NULL,
    sequence     INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    decided_at   INTEGER NOT NULL,
    v            INTEGER NOT NULL,
    notification TEXT NOT NULL,
    state        TEXT NOT NULL,
    attempts     INTEGER NOT NULL,
    next_at      INTEGER,
    finished_at  INTEGER,
    error        TEXT
) STRICT;
CREATE INDEX outbox_owed ON outbox (receiver, key, sequence) WHERE state = 'owed';
CREATE INDEX outbox_finished ON outbox (finished_at) WHERE state <> 'owed';
CREATE INDEX outbox_by_incident ON outbox (incident);
";

/// The version of a file; 0 is an empty one.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings a file to the last of `migrations`, in one transaction: all of them or none.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if version(connection)? >= known {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read again: only now nobody else can change it.
    let from = usize::try_from(version(&transaction)?).unwrap_or(0);
    for migration in migrations.iter().skip(from) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: &str = "ALTER TABLE episodes ADD COLUMN note TEXT NOT NULL DEFAULT 'kept';";
    const BROKEN: &str = "CREATE TABLE more (x); INSERT INTO no_such_table VALUES (1);";

    fn number(of_migrations: usize) -> i64 {
        i64::try_from(of_migrations).unwrap()
    }

    fn first_version_with_a_row() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let row = "INSERT INTO episodes (target, v, at, episode) VALUES ('db', 1, 5, '{}')";
        connection.execute(row, []).unwrap();
        connection
    }

    #[test]
    fn an_empty_file_becomes_ours() {
        let connection = first_version_with_a_row();
        let id: i32 =
            connection.pragma_query_value(None, "application_id", |row| row.get(0)).unwrap();
        assert_eq!(version(&connection).unwrap(), number(MIGRATIONS.len()));
        assert_eq!(id, APPLICATION_ID);
    }

    #[test]
    fn an_older_file_keeps_its_rows() {
        let mut connection = first_version_with_a_row();
        let longer: Vec<&str> = MIGRATIONS.iter().copied().chain([SECOND]).collect();
        migrate(&mut connection, &longer).unwrap();
        assert_eq!(version(&connection).unwrap(), number(longer.len()));
        let note: String = connection
            .query_row("SELECT note FROM episodes WHERE target = 'db'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(note, "kept");
        migrate(&mut connection, &longer).unwrap();
    }

    #[test]
    fn a_migration_that_fails_leaves_the_file_as_it_was() {
        let mut connection = first_version_with_a_row();
        let longer: Vec<&str> = MIGRATIONS.iter().copied().chain([SECOND, BROKEN]).collect();
        migrate(&mut connection, &longer).unwrap_err();
        assert_eq!(version(&connection).unwrap(), number(MIGRATIONS.len()));
        connection.execute("SELECT note FROM episodes", []).unwrap_err();
        connection.execute("SELECT x FROM more", []).unwrap_err();
    }
}
