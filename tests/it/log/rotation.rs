//! Logs that real servers rotate: what they write before, while and after is counted once.
//!
//! No server is made to truncate here: it does that only where a minute or more has passed and the
//! name differs from the last (syslogger.c, `logfile_rotate`). What is cut is in `files.rs`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Its logs have this name but for their endings; `*` is what they are followed by.
    async fn start(filename: &str, followed: &str, more: &[(&str, &str)]) -> Self {
        let formats = formats();
        let words: Vec<&str> = formats.iter().map(|(format, _)| format.word()).collect();
        let words = words.join(",");
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
        let mut follows = Vec::new();
        for (format, ending) in formats {
            let path = server.data_dir().join("log").join(format!("{followed}.{ending}"));
            let (_sender, told) = said(PREFIX, &words);
            let mut source = source(path);
            source.server = told;
            let follow = Follow::begun(source).await;
            assert!(matches!(follow.seen, Some(Ok(_))), "{:?}", follow.seen);
            follows.push((format, follow));
        }
        Self { superuser, app, errors: 0, follows, server }
    }

    /// Its log files that have this ending, in order.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let all = fs::read_dir(self.server.data_dir().join("log")).unwrap();
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
    let folder = rotated.server.data_dir().join("log");
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

        let list = rotated.server.data_dir().join("current_logfiles");
        // It is written anew with each rotation (syslogger.c, `update_metainfo_datafile`).
        let inode = || fs::metadata(&list).ok().map(|it| std::os::unix::fs::MetadataExt::ino(&it));
        let before = inode();
        rotated.rotate_until("another rotation", |_| inode() != before).await;
        rotated.write(5).await;
        rotated.is_counted().await;
    }
}
