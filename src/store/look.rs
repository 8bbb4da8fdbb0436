//! A look at a state folder from outside, for `plimsoll check`: nothing in it is opened for
//! writing, locked or changed, so that it may be done beside a daemon that runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::file::{FILE, LOCK};

/// A folder that takes so much takes a transaction.
const PROBE_BYTES: usize = 64 * 1024;

/// Who may write to a file in WAL mode holds this byte of its `-shm` locked (SQLite, "WAL-mode
/// File Format": `WAL_WRITE_LOCK`).
const WRITE_LOCK_BYTE: u64 = 120;

/// What was seen of a state folder.
#[derive(Debug)]
pub struct Look {
    /// It is there. One that is not is made by the daemon, in the folder above it that is.
    pub exists: bool,
    /// Whether something can be written there, by the user who looks.
    pub writable: io::Result<()>,
    /// Whether this user may write the file that is there.
    pub file: io::Result<()>,
    /// The process that uses the folder as a daemon; seen on Linux only.
    pub daemon: Option<u32>,
    /// The process that has a transaction open at this moment; seen on Linux only.
    pub writer: Option<u32>,
}

/// Looks at a folder, as the user who runs this.
pub fn look(folder: &Path) -> Look {
    let exists = folder.is_dir();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let holder = |name: &str, byte| {
        let found = fs::metadata(folder.join(name)).ok()?;
        holder(&locks, found.ino(), byte)
    };
    Look {
        exists,
        writable: probe(folder),
        file: writable(&folder.join(FILE)),
        daemon: holder(LOCK, None),
        writer: holder(&format!("{FILE}-shm"), Some(WRITE_LOCK_BYTE)),
    }
}

/// Writes a file without a name, which is gone when this ends, however it ends.
fn probe(folder: &Path) -> io::Result<()> {
    let there = existing(folder)?;
    let mut file = tempfile::tempfile_in(there)?;
    file.write_all(&vec![0; PROBE_BYTES])?;
    file.sync_data()
}

/// The folder, or the nearest one above it that is there.
fn existing(folder: &Path) -> io::Result<PathBuf> {
    let mut there = folder;
    loop {
        match fs::metadata(there) {
            Ok(_) => return Ok(there.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // A relative one begins where we are.
        there = match there.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Err(io::ErrorKind::NotFound.into()),
        };
    }
}

/// Whether a file can be opened for writing; one that is not there is none that cannot.
fn writable(path: &Path) -> io::Result<()> {
    match File::options().append(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Who holds a lock on a file, by `/proc/locks` (proc_locks(5)):
/// `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`; waiters have `->` in the second place.
fn holder(locks: &str, inode: u64, byte: Option<u64>) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, kind, _, access, pid, file, from, to] = fields[..] else { return None };
        let is_file = file.rsplit(':').next()?.parse::<u64>() == Ok(inode);
        let is_kind = match byte {
            None => kind == "FLOCK",
            Some(byte) => {
                let reaches = to == "EOF" || to.parse::<u64>().is_ok_and(|to| byte <= to);
                kind == "POSIX" && from.parse::<u64>().is_ok_and(|from| from <= byte) && reaches
            }
        };
        (is_file && is_kind && access == "WRITE").then(|| pid.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_read_from_the_kernels_list() {
        let locks = "1: POSIX  ADVISORY  READ  11 fd:00:42 123 123\n\
                     1: -> FLOCK  ADVISORY  WRITE 12 fd:00:42 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 13 fd:00:42 0 EOF\n\
                     3: POSIX  ADVISORY  WRITE 14 fd:00:42 120 120\n\
                     4: FLOCK  ADVISORY  WRITE 15 fd:00:43 0 EOF\n";
        assert_eq!(holder(locks, 42, None), Some(13));
        assert_eq!(holder(locks, 42, Some(WRITE_LOCK_BYTE)), Some(14));
        assert_eq!(holder(locks, 43, Some(WRITE_LOCK_BYTE)), None);
        assert_eq!(holder("", 42, None), None);
    }
}
