//! The store from outside: files, disks that fail, kills, and what is in the file afterwards.

mod bounds;
mod build;
mod commit;
mod crash;
mod disk;
mod fsync;
mod open;
mod property;

mod record;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use plimsoll::health::Health;
use plimsoll::store::{Opened, Store};
use rusqlite::{Connection, OpenFlags};

use build::at;

/// Ten times what anything here should take.
const DEADLINE: Duration = Duration::from_mins(1);

/// A store, and what it says of itself.
struct Open {
    opened: Opened,
    health: Health,
}

impl Open {
    fn store(&self) -> &Store {
        &self.opened.store
    }

    /// Writes all, and gives the folder back.
    async fn close(self) {
        let durability = self.store().close(DEADLINE).await;
        assert_eq!(durability, plimsoll::store::Durability::Durable);
    }

    fn is_volatile(&self) -> bool {
        self.health.values().store.volatile_since.is_some()
    }

    fn ids(&self, receiver: &str) -> Vec<String> {
        let owed = self.store().outbox().owed(receiver);
        owed.into_iter().map(|one| one.notification.id.clone()).collect()
    }
}

/// Opens the store of a folder.
fn open(folder: &Path) -> Open {
    let health = Health::starting(at(0));
    let opened = Store::open(folder, at(0), health.clone()).unwrap();
    Open { opened, health }
}

/// Waits for something that nobody announces.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, wait).await;
    assert!(in_time.is_ok(), "waited in vain until {what}");
}

/// A look at the file beside the store, as `sqlite3` has it.
fn look(folder: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(folder.join("state.db"), flags).unwrap();
    connection.busy_timeout(DEADLINE).unwrap();
    connection
}

/// One number.
fn one(connection: &Connection, sql: &str) -> u64 {
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
}

/// A column, in its order.
fn column(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Set in a process that a test made of itself; names the state folder.
const AGAIN: &str = "PLIMSOLL_TEST_STORE";

/// In such a process, its state folder.
fn state_folder_of_this_process() -> Option<PathBuf> {
    std::env::var_os(AGAIN).map(PathBuf::from)
}

/// Runs one test once more, alone in a process that is started `with` another program; gives back
/// what that logged.
fn again<S: AsRef<std::ffi::OsStr>>(with: &[S], test: &str, folder: &Path) -> String {
    let program = with[0].as_ref().to_string_lossy().into_owned();
    let child = Command::new(&program)
        .args(&with[1..])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(AGAIN, folder)
        .output();
    let child = child.unwrap_or_else(|_| panic!("{program} is missing: apt-get install {program}"));
    let said = [child.stdout, child.stderr].map(|out| String::from_utf8_lossy(&out).into_owned());
    assert!(child.status.success(), "{}{}", said[0], said[1]);
    assert!(said[0].contains("1 passed") || said[0].contains("mark end"), "{}", said[0]);
    let [_, logged] = said;
    logged
}

/// `strace` over all threads, with the names of files.
fn strace(more: &[&str], trace: &Path) -> Vec<String> {
    let trace = trace.to_string_lossy();
    let words = ["strace", "-f", "-y", "-s", "64", "-o", &trace].into_iter();
    words.chain(more.iter().copied()).map(str::to_owned).collect()
}
