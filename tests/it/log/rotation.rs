//! Logs that real servers rotate: what they write before, while and after is counted once.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use plimsoll::clock;
use plimsoll::drill::server::{Options, Server, Session};
use plimsoll_core::reading::log::{Format, LineKind};

use super::{DEADLINE, Follow, said, source};
use crate::major::{self, major};
use crate::postgres::execute;

const PREFIX: &str = "%m [%p] %q%u@%d ";

/// A server that rotates when it is told to, and those who follow its logs.
struct Rotated {
    superuser: Session,
    /// What is counted.
    app: Session,
    errors: u64,
    follows: Vec<(Format, Follow)>,
    server: Server,
}

impl Rotated {
    /// Its logs have this name but for their endings, and are followed by the other one.
    async fn start(filename: &str, followed: &str, more: &[(&str, &str)]) -> Self {
        let mut rotated = Self::serve(filename, more).await;
        rotated.follow(followed).await;
        rotated
    }

    /// Nobody follows it yet.
    async fn serve(filename: &str, more: &[(&str, &str)]) -> Self {
        let words = destination();
        let name = format!("{filename}.log");
        let usual = [
            ("logging_collector", "on"),
            ("log_destination", words.as_str()),
            ("log_directory", "log"),
            ("log_filename", name.as_str()),
            ("log_line_prefix", PREFIX),
            ("log_rotation_age", "0"),
            ("log_rotation_size", "0"),
        ];
        let settings = usual.iter().chain(more);
        let settings = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let options = Options { settings: settings.collect(), ..Options::default() };
        let server = major::start(options, "CREATE ROLE app LOGIN").await;
        let superuser = server.superuser().await.unwrap();
        let app = server.connect("app", "postgres").await.unwrap();
        Self { superuser, app, errors: 0, follows: Vec::new(), server }
    }

    /// What is written from now on is counted.
    async fn follow(&mut self, followed: &str) {
        self.errors = 0;
        for (format, ending) in formats() {
            let path = self.folder().join(format!("{followed}.{ending}"));
            let (_sender, told) = said(PREFIX, &destination());
            let mut source = source(path);
            source.server = told;
            let follow = Follow::begun(source).await;
            assert!(matches!(follow.seen, Some(Ok(_))), "{:?}", follow.seen);
            self.follows.push((format, follow));
        }
    }

    fn folder(&self) -> PathBuf {
        self.server.data_dir().join("log")
    }

    /// What changes with each rotation: the list of the files that are written to, which is made
    /// anew (syslogger.c, `update_metainfo_datafile`).
    fn rotation(&self) -> Option<u64> {
        fs::metadata(self.server.data_dir().join("current_logfiles")).ok().map(|list| list.ino())
    }

    /// Its log files that have this ending, in order.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let all = fs::read_dir(self.folder()).unwrap();
        let all = all.map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            all.filter(|p| p.extension().is_some_and(|e| e == ending)).collect();
        files.sort();
        files
    }

    /// Lines that are counted, one in each format an error.
    async fn write(&mut self, count: u64) {
        for _ in 0..count {
            assert!(self.app.batch_execute("SELECT 1 / 0").await.is_err());
        }
        self.errors += count;
    }

    /// Writes on and has it rotate until this holds, which is seen soon or in the next second.
    async fn rotate_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let rotating = async {
            loop {
                execute(&self.superuser, "SELECT pg_rotate_logfile()").await;
                self.write(1).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                if holds(self) {
                    return;
                }
            }
        };
        tokio::time::timeout(DEADLINE, rotating)
            .await
            .unwrap_or_else(|_| panic!("waiting for {what}"));
    }

    /// Each line that was written was counted once in each format, and none was unclear.
    async fn is_counted(&mut self) {
        for (format, follow) in &mut self.follows {
            follow.until_of(LineKind::Error, self.errors).await;
            follow.settled().await;
            let told = (follow.lines.of(LineKind::Error), follow.lines.unclear);
            assert_eq!(told, (self.errors, 0), "{format:?}");
        }
    }
}

/// `log_destination`: all formats at once.
fn destination() -> String {
    let words: Vec<&str> = formats().iter().map(|(format, _)| format.word()).collect();
    words.join(",")
}

fn formats() -> Vec<(Format, &'static str)> {
    let mut all = vec![(Format::Stderr, "log"), (Format::Csvlog, "csv")];
    if 15 <= major() {
        all.push((Format::Jsonlog, "json"));
    }
    all
}

#[tokio::test]
async fn a_server_that_begins_a_file_of_another_name_is_followed_to_it() {
    let mut rotated = Rotated::start("postgresql-%Y%m%d-%H%M%S", "postgresql-*", &[]).await;
    for _ in 0..2 {
        rotated.write(5).await;
        let before: Vec<_> = formats().iter().map(|(_, e)| rotated.files(e).len()).collect();
        let is_rotated = |rotated: &Rotated| {
            let now = formats().into_iter().map(|(_, ending)| rotated.files(ending).len());
            now.zip(&before).all(|(now, before)| *before < now)
        };
        rotated.rotate_until("files of another name", is_rotated).await;
        rotated.write(5).await;
        rotated.is_counted().await;
    }
    for (format, ending) in formats() {
        let newest = rotated.files(ending).pop().unwrap().display().to_string();
        let (_, follow) = rotated.follows.iter_mut().find(|(one, _)| *one == format).unwrap();
        follow.until("the newest file", |follow| follow.file() == newest).await;
    }
}

/// As logrotate does it: the file is renamed and the server told. And told again, with nobody who
/// renamed it, it opens the same file and writes on at its end, truncation or not.
#[tokio::test]
async fn a_server_that_begins_a_file_of_the_same_name_is_followed_to_it() {
    let truncates = [("log_truncate_on_rotation", "on")];
    let mut rotated = Rotated::start("postgresql", "postgresql", &truncates).await;
    let folder = rotated.folder();
    for round in 0..2 {
        rotated.write(5).await;
        for (_, ending) in formats() {
            let own = folder.join(format!("postgresql.{ending}"));
            fs::rename(own, folder.join(format!("old.{ending}.{round}"))).unwrap();
        }
        // To what it has open.
        rotated.write(5).await;
        let is_rotated = |_: &Rotated| {
            let mut all = formats().into_iter();
            all.all(|(_, ending)| folder.join(format!("postgresql.{ending}")).exists())
        };
        rotated.rotate_until("new files of the same name", is_rotated).await;
        rotated.write(5).await;
        rotated.is_counted().await;

        let before = rotated.rotation();
        rotated.rotate_until("another rotation", |rotated| rotated.rotation() != before).await;
        rotated.write(5).await;
        rotated.is_counted().await;
    }
}

/// Names that come again: what lies there from the last time is cut by the server itself, which it
/// does only at its own hour, a minute being the shortest, and if the name is not the one that it
/// just had (syslogger.c, `logfile_rotate`).
#[tokio::test]
async fn a_server_that_cuts_what_lies_there_from_the_last_time_is_followed_into_it() {
    let each_minute = [("log_rotation_age", "1"), ("log_truncate_on_rotation", "on")];
    early_in_a_minute().await;
    let mut rotated = Rotated::serve("postgresql-%M", &each_minute).await;
    let before = rotated.rotation();
    // As much as it will not have written again before the end.
    rotated.write(500).await;
    for (_, ending) in formats() {
        let newest = rotated.files(ending).pop().unwrap();
        let written = until_it_has(&newest, 500).await;
        for minute in 0..60 {
            leave(&rotated.folder().join(format!("postgresql-{minute:02}.{ending}")), &written);
        }
    }
    rotated.follow("postgresql-*").await;
    rotated.write(5).await;
    rotated.is_counted().await;
    let rotates = async {
        while rotated.rotation() == before {
            rotated.write(1).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(2 * DEADLINE, rotates).await.expect("the next minute's files");
    rotated.write(5).await;
    rotated.is_counted().await;
    // It was cut, and not written on.
    for (_, ending) in formats() {
        let is_cut = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().count() < 400;
        let cut = rotated.files(ending).into_iter().filter(is_cut).count();
        assert_eq!(cut, 1, "{ending}");
    }
}

/// Returns with half of a minute left in which no server rotates by itself.
async fn early_in_a_minute() {
    let second = clock::wall().as_second().rem_euclid(60).unsigned_abs();
    if 30 <= second {
        tokio::time::sleep(Duration::from_secs(60 - second)).await;
    }
}

/// What is in a file once it has so many lines with an error.
async fn until_it_has(path: &Path, errors: usize) -> String {
    let written = async {
        loop {
            let text = fs::read_to_string(path).unwrap();
            if errors <= text.lines().filter(|line| line.contains("division by zero")).count() {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, written).await.expect("the server's lines")
}

/// A file of an hour ago, which the server may open; not in the place of one that it has open.
fn leave(path: &Path, text: &str) {
    let Ok(mut file) = File::create_new(path) else { return };
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    file.set_permissions(Permissions::from_mode(0o666)).unwrap();
    file.set_modified(SystemTime::from(clock::wall()) - Duration::from_hours(1)).unwrap();
}
