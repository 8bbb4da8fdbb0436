//! The file `state.db` itself: its folder, its lock, whether it can be trusted, and setting it
//! aside when it cannot. What stands in it is `rows`'. Only `disk` calls this.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::schema;

/// The database, in the state folder.
pub(super) const FILE: &str = "state.db";

/// Held locked while a daemon uses the folder. The lock goes with its process, however that ends.
pub(super) const LOCK: &str = "state.lock";

/// Somebody else's lock is waited for so long while a file is opened: nothing is watched yet.
const OPEN_BUSY: Duration = Duration::from_secs(5);

/// Somebody else's lock is waited for so long by a transaction. Shorter than a commit waits, so
/// that a lock of a moment costs no more than itself.
const WRITE_BUSY: Duration = Duration::from_secs(1);

/// After a checkpoint the log is cut back to this many bytes: a backlog that was written once
/// does not keep its room for ever.
const LOG_BYTES: i64 = 16 * 1024 * 1024;

/// At most so many files that were set aside are kept; the oldest goes first. A disk that damages
/// the file at each start must not fill up with the proofs.
const MAX_SET_ASIDE: usize = 8;

/// Why a file could not be opened or written, by what is done about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The folder belongs to another daemon: this one does not start.
    #[error("another plimsoll uses this folder")]
    InUse,
    /// Somebody removed or replaced our lock: another daemon can take the folder.
    #[error("{LOCK} is not the one that was locked: somebody removed it")]
    LockGone,
    /// A later program wrote it: it is set aside.
    #[error("the file has schema {found}, and this program knows {known}")]
    Newer {
        /// Its version.
        found: i64,
        /// Ours.
        known: usize,
    },
    /// It cannot be trusted: it is set aside.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// The folder does not let us: it is tried again.
    #[error("{doing} {path}", path = path.display())]
    Folder {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// SQLite could not: it is tried again.
    #[error("writing {FILE}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file system cannot do what a durable commit needs.
    #[error("the file system gives {got} where {pragma} must be {wanted}")]
    Unsafe {
        /// The setting.
        pragma: &'static str,
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        got: String,
    },
}

impl Fault {
    /// Somebody else holds the write lock, perhaps for a moment only.
    pub(super) fn is_lock(&self) -> bool {
        let code = if let Self::Sqlite(e) = self { e.sqlite_error_code() } else { None };
        matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }

    /// The connection is as good as before: no lock, or no room, says nothing against it.
    pub(super) fn spares_connection(&self) -> bool {
        let code = if let Self::Sqlite(e) = self { e.sqlite_error_code() } else { None };
        self.is_lock() || matches!(code, Some(ErrorCode::DiskFull))
    }

    /// What SQLite found wrong with the file itself, while it wrote.
    pub(super) fn damage(&self) -> Option<String> {
        let Self::Sqlite(e) = self else { return None };
        let code = e.sqlite_error_code();
        matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
            .then(|| e.to_string())
    }

    /// With everything behind it, for a log line.
    pub(super) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(one) = cause {
            text = format!("{text}: {one}");
            cause = one.source();
        }
        text
    }

    /// What reading a file that should be ours failed with.
    fn of_reading(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // Our own statements are right: a table or a column is not what it should be.
            None
            | Some(
                ErrorCode::NotADatabase
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::Unknown
                | ErrorCode::TypeMismatch,
            ) => Self::Damaged(error.to_string()),
            Some(_) => Self::Sqlite(error),
        }
    }
}

/// Which file this is, whatever its name: device and inode.
pub(super) type Identity = (u64, u64);

/// The file that has this name now.
pub(super) fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// The lock of a state folder; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock, and makes the folder if there is none.
    pub(super) fn take(folder: &Path) -> Result<Self, Fault> {
        make_folder(folder)?;
        let path = folder.join(LOCK);
        let fault = |doing, source| Fault::Folder { doing, path: path.clone(), source };
        let mut options = File::options();
        // Read, too: what is no file at all (a pipe) would wait for a reader when it is opened.
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = options.open(&path).map_err(|e| fault("opening", e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Fault::InUse),
            Err(TryLockError::Error(e)) => Err(fault("locking", e)),
        }
    }

    /// Whether this is still the lock of that folder: somebody may have removed it.
    pub(super) fn is_of(&self, folder: &Path) -> bool {
        let ours = self.0.metadata().ok().map(|found| (found.dev(), found.ino()));
        ours.is_some() && ours == identity(&folder.join(LOCK))
    }
}

fn make_folder(folder: &Path) -> Result<(), Fault> {
    if folder.is_dir() {
        return Ok(());
    }
    let fault = |source| Fault::Folder { doing: "creating", path: folder.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault)?;
    // SQLite makes its files durable in this folder; the folder's own name is our part.
    let above = folder.parent().filter(|path| !path.as_os_str().is_empty());
    if let Some(above) = above {
        File::open(above).and_then(|dir| dir.sync_all()).map_err(fault)?;
    }
    Ok(())
}

/// Opens the file, and makes it if there is none.
pub(super) fn connect(path: &Path) -> Result<Connection, Fault> {
    // Created here for its mode. Never opened here when it exists: closing a second descriptor
    // would give back the locks that SQLite holds in this process.
    let mut options = File::options();
    match options.create_new(true).write(true).mode(0o600).open(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Fault::Folder { doing: "creating", path: path.to_owned(), source: e });
        }
        Ok(_) | Err(_) => {}
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(OPEN_BUSY)?;
    // Until it is known to be ours, not even a checkpoint is written to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    inspect(&connection)?;
    Ok(connection)
}

/// The file is ours and can be read: from now on it is closed in good order, and waited for no
/// longer than a transaction may.
pub(super) fn trust(connection: &Connection) -> Result<(), Fault> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.busy_timeout(WRITE_BUSY)?;
    Ok(())
}

/// Whether a file is ours, whole, and of a version that is known.
fn inspect(connection: &Connection) -> Result<(), Fault> {
    let one = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get(0));
    let application: i32 = one("application_id").map_err(Fault::of_reading)?;
    let found = schema::version(connection).map_err(Fault::of_reading)?;
    let known = schema::MIGRATIONS.len();
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(Fault::of_reading)?;
    if found == 0 && tables == 0 {
        return Ok(());
    }
    if application != schema::APPLICATION_ID || found < 1 {
        return Err(Fault::Damaged("it holds tables of another program".to_owned()));
    }
    if usize::try_from(found).is_ok_and(|found| found > known) {
        return Err(Fault::Newer { found, known });
    }
    let check: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(Fault::of_reading)?;
    if check == "ok" { Ok(()) } else { Err(Fault::Damaged(check)) }
}

/// Makes commits durable, and the file of today's schema.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), Fault> {
    // Takes effect before the first page is written; later it would be a transaction for nothing.
    if schema::version(connection)? == 0 {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let set = |pragma: &'static str, value: &str| {
        connection.pragma_update_and_check(None, pragma, value, |row| row.get::<_, String>(0))
    };
    let got = set("journal_mode", "WAL").map_err(Fault::of_reading)?;
    if got != "wal" {
        return Err(Fault::Unsafe { pragma: "journal_mode", wanted: "wal", got });
    }
    // In WAL, NORMAL would lose the last commits to a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let got: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if got != 2 {
        let got = got.to_string();
        return Err(Fault::Unsafe { pragma: "synchronous", wanted: "2 (FULL)", got });
    }
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    schema::migrate(connection, schema::MIGRATIONS).map_err(Fault::of_reading)
}

/// What a damaged row of a file that is otherwise whole means for reading it.
pub(super) fn reading(error: rusqlite::Error) -> Fault {
    Fault::of_reading(error)
}

/// Renames a file that cannot be used, with its log, so that a person can look at it.
///
/// The database first: were we killed after that, SQLite would take a log without its database
/// for what it is, and not for ours.
pub(super) fn set_aside(path: &Path, now: Timestamp, why: &Fault) -> Result<PathBuf, Fault> {
    let word = if matches!(why, Fault::Newer { .. }) { "newer" } else { "damaged" };
    let date = now.strftime("%Y-%m-%dT%H%M%SZ");
    let name = |n: u32| match n {
        0 => with_suffix(path, &format!(".{date}.{word}")),
        n => with_suffix(path, &format!(".{date}.{n}.{word}")),
    };
    // Twice in a second is rare, a hundred times is not to be.
    let aside = (0..100).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(100));
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (with_suffix(path, suffix), with_suffix(&aside, suffix));
        if suffix.is_empty() || from.exists() {
            let fault =
                |source| Fault::Folder { doing: "setting aside", path: from.clone(), source };
            fs::rename(&from, &to).map_err(fault)?;
        }
    }
    forget_oldest(path);
    Ok(aside)
}

/// Removes what was set aside beyond the newest [`MAX_SET_ASIDE`]. Their names sort by date.
fn forget_oldest(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
    let Ok(entries) = fs::read_dir(folder) else { return };
    let prefix = format!("{}.", name.to_string_lossy());
    let is_aside = |name: &str| {
        let word = name.rsplit('.').next();
        name.starts_with(&prefix) && matches!(word, Some("newer" | "damaged"))
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut aside: Vec<String> = names.filter(|name| is_aside(name)).collect();
    aside.sort();
    let beyond = aside.len().saturating_sub(MAX_SET_ASIDE);
    for (name, suffix) in
        aside.iter().take(beyond).flat_map(|name| ["", "-wal", "-shm"].map(|s| (name, s)))
    {
        let path = folder.join(format!("{name}{suffix}"));
        if path.exists()
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "an old file could not be removed");
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
