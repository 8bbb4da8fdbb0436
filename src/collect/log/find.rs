//! The files that a path or a pattern names, the newest last; and what is missing when they cannot
//! be read.
//!
//! A pattern stands in the last part of a path only: `*` is any text, `?` any character.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use plimsoll_core::reading::{Failure, FailureKind};

/// A folder with more entries than this is none of logs.
const MAX_ENTRIES: usize = 100_000;

/// So many files that match are looked at: a year of hourly ones.
pub(super) const MAX_FILES: usize = 10_000;

/// `/etc/group` of a large organisation.
const MAX_GROUP_BYTES: usize = 1024 * 1024;

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

/// The clocks of disks go in steps, and a little behind.
const CLOCK_STEP: Duration = Duration::from_secs(1);

impl Found {
    /// Whether it was there before then, as far as its times tell.
    pub(super) fn is_older_than(&self, then: SystemTime) -> bool {
        let came = self.identity.born.unwrap_or(self.modified).min(self.modified);
        came.checked_add(CLOCK_STEP).is_some_and(|came| came < then)
    }
}

/// Which file it is, whatever it is called. The time of its birth, where there is one, tells a new
/// file from an old one whose number it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl Identity {
    pub(super) fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino(), born: found.created().ok() }
    }
}

/// Whether the last part of a path is a pattern.
pub(super) fn is_pattern(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().iter().any(|b| matches!(b, b'*' | b'?')))
}

/// The files, in the order in which they were written to last. None is no failure.
pub(super) fn find(path: &Path) -> Result<Vec<Found>, Failure> {
    let mut found = if is_pattern(path) {
        list(path).map_err(|error| failure(path, "looking for", &error))?
    } else {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => vec![found(path.to_owned(), &metadata)],
            // To open a pipe would be to wait for who writes into it.
            Ok(_) => return Err(no_file(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failure(path, "looking for", &error)),
        }
    };
    found.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
    Ok(found)
}

/// What is there is a folder, a pipe or a device.
pub(super) fn no_file(path: &Path) -> Failure {
    let text = format!("{} is no file", path.display());
    Failure { kind: FailureKind::Unsupported, text, sqlstate: None }
}

fn found(path: PathBuf, metadata: &Metadata) -> Found {
    Found {
        path,
        identity: Identity::of(metadata),
        size: metadata.len(),
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

fn list(pattern: &Path) -> io::Result<Vec<Found>> {
    let folder = folder_of(pattern);
    let name = pattern.file_name().unwrap_or_default().as_bytes();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for entry in entries.take(MAX_ENTRIES) {
        let entry = entry?;
        if all.len() == MAX_FILES {
            break;
        }
        if !matches(name, entry.file_name().as_bytes()) {
            continue;
        }
        // One that is gone meanwhile is none.
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => all.push(found(entry.path(), &metadata)),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

pub(super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Whether a name is of a pattern. Takes time in proportion to the length of both.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last star stood, and how much of the name it takes at least.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Why a file cannot be read, and what to do about it.
pub(super) fn failure(path: &Path, doing: &str, error: &io::Error) -> Failure {
    use rustix::io::Errno;
    let shown = path.display();
    let failure = |kind, text: String| Failure { kind, text, sqlstate: None };
    match error.kind() {
        ErrorKind::PermissionDenied => {
            failure(FailureKind::NotAllowed, format!("{doing} {shown}: {}", missing_right(path)))
        }
        ErrorKind::NotFound => {
            failure(FailureKind::Unreachable, format!("{doing} {shown}: {error}"))
        }
        _ if matches!(
            Errno::from_io_error(error),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM)
        ) =>
        {
            failure(FailureKind::Broken, format!("{doing} {shown}: {error}"))
        }
        _ => failure(FailureKind::Unreachable, format!("{doing} {shown}: {error}")),
    }
}

/// Which right is missing: the first part of the path that we may not pass, list or read.
fn missing_right(path: &Path) -> String {
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    for pair in folders.windows(2) {
        if is_denied(&fs::metadata(pair[1])) {
            return needs("x", "pass through", pair[0]);
        }
    }
    let folder = folder_of(path);
    if is_pattern(path) {
        if is_denied(&fs::read_dir(folder)) {
            return needs("rx", "list", folder);
        }
        // A name can be listed and what it stands for not be looked at.
        let one = fs::read_dir(folder).ok().and_then(|mut entries| entries.next()?.ok());
        if one.is_some_and(|one| is_denied(&fs::metadata(one.path()))) {
            return needs("x", "pass through", folder);
        }
    } else if is_denied(&fs::metadata(path)) {
        return needs("x", "pass through", folder);
    }
    needs("r", "read", path)
}

fn is_denied<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// `we may not read /a/b: it belongs to uid 105 and group adm (gid 4), mode 0640; …`
fn needs(right: &str, verb: &str, path: &Path) -> String {
    let shown = path.display();
    let uid = rustix::process::geteuid().as_raw();
    let groups = own_groups();
    let who = format!("we are uid {uid} with {}", named_all(&groups));
    let Ok(found) = fs::metadata(path) else {
        return format!("we may not {verb} {shown} ({who})");
    };
    let mode = found.mode() & 0o7777;
    let group = named(found.gid());
    let group_bits =
        if right.contains('r') { 0o40 } else { 0 } | if right.contains('x') { 0o10 } else { 0 };
    let advice = if mode & group_bits == group_bits && !groups.contains(&found.gid()) {
        format!("put our user into {group}")
    } else if found.is_file() {
        format!(
            "give {group} the right, with log_file_mode = 0640 where the server itself writes the \
             file, and put our user into it"
        )
    } else {
        format!("give {group} the right with chmod g+{right} {shown}, and put our user into it")
    };
    let owner = found.uid();
    format!(
        "we may not {verb} {shown}: \"{right}\" is missing; it belongs to uid {owner} and {group}, \
         mode {mode:04o}; {who}; hint: {advice}"
    )
}

fn own_groups() -> Vec<u32> {
    let mut groups = vec![rustix::process::getegid().as_raw()];
    groups.extend(rustix::process::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()));
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn named_all(groups: &[u32]) -> String {
    // Who is in more is told by a few.
    let names: Vec<String> = groups.iter().take(16).map(|gid| named(*gid)).collect();
    names.join(", ")
}

/// `group adm (gid 4)`, or its number where it has no name here.
fn named(gid: u32) -> String {
    let text = fs::read("/etc/group").unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(MAX_GROUP_BYTES)]);
    let of = |line: &str| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?.to_owned(), fields.nth(1)?);
        (number.parse() == Ok(gid)).then_some(name)
    };
    match text.lines().find_map(of) {
        Some(name) => format!("group {name} (gid {gid})"),
        None => format!("gid {gid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_names() {
        let cases = [
            ("postgresql-*.json", "postgresql-2026-11-21_000000.json", true),
            ("postgresql-*.json", "postgresql-.json", true),
            ("postgresql-*.json", "postgresql-x.json.gz", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "x", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        // No pattern takes time without end.
        assert!(!matches("*a".repeat(500).as_bytes(), "b".repeat(50_000).as_bytes()));
    }

    #[test]
    fn the_newest_comes_last() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, seconds| {
            let path = folder.path().join(name);
            fs::write(&path, name).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        };
        at("b.log", 2_000);
        at("c.log", 1_000);
        at("a.log", 2_000);
        at("d.csv", 3_000);
        fs::create_dir(folder.path().join("e.log")).unwrap();
        let names = |pattern: &str| {
            let found = find(&folder.path().join(pattern)).unwrap();
            let name = |one: &Found| one.path.file_name().unwrap().to_string_lossy().into_owned();
            found.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names("*.log"), ["c.log", "a.log", "b.log"]);
        assert_eq!(names("d.csv"), ["d.csv"]);
        assert!(names("nothing.log").is_empty() && names("nowhere/*").is_empty());
    }
}
