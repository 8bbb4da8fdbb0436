//! Files that are written, moved, cut, torn and not there: each line is counted once.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use plimsoll::collect::log::LogSource;
use plimsoll_core::reading::FailureKind;
use plimsoll_core::reading::Refusal;
use plimsoll_core::reading::log::{Format, LineKind};

use super::{Follow, said, source};

const REFUSED: LineKind = LineKind::Refused(Refusal::AllSlotsTaken);

const PREFIX: &str = "%m [%p] %q%u@%d ";

/// A line of each format that tells of a refused login of this role.
fn refused(format: Format, role: &str) -> String {
    let at = "2026-11-21 15:58:05.123 UTC";
    let text = "sorry, too many clients already";
    match format {
        Format::Stderr => format!("{at} [77] {role}@shop FATAL:  {text}\n"),
        Format::Csvlog => format!(
            "{at},\"{role}\",\"shop\",77,\"[local]\",65.2f,1,\"initializing\",{at},,0,FATAL,53300,\
             \"{text}\",,,,,,,,,\"\",\"client backend\",,0\n"
        ),
        Format::Jsonlog => format!(
            "{{\"timestamp\":\"{at}\",\"user\":\"{role}\",\"dbname\":\"shop\",\"pid\":77,\
             \"ps\":\"initializing\",\"error_severity\":\"FATAL\",\"state_code\":\"53300\",\
             \"message\":\"{text}\",\"backend_type\":\"client backend\",\"query_id\":0}}\n"
        ),
    }
}

const FORMATS: [(Format, &str); 3] =
    [(Format::Stderr, "log"), (Format::Csvlog, "csv"), (Format::Jsonlog, "json")];

fn append(path: &Path, text: impl AsRef<[u8]>) {
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
}

/// Follows this path with the prefix that the lines here have.
async fn follow(path: &Path) -> Follow {
    let (_sender, server) = said(PREFIX, "stderr,csvlog,jsonlog");
    let mut source = source(path);
    source.server = server;
    Follow::begun(source).await
}

#[tokio::test]
async fn what_was_there_is_not_read_and_what_is_added_is_read_once() {
    for (format, ending) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("postgresql.{ending}"));
        append(&path, refused(format, "before").repeat(100));
        let mut follow = follow(&path).await;
        assert_eq!(follow.file(), path.display().to_string());
        follow.settled().await;
        assert_eq!(follow.lines.of(REFUSED), 0, "{ending}");
        for _ in 0..10 {
            append(&path, refused(format, "app"));
        }
        follow.until_of(REFUSED, 10).await;
        follow.settled().await;
        assert_eq!((follow.lines.of(REFUSED), follow.lines.unclear), (10, 0), "{ending}");
        let one = &follow.lines.counts[0];
        assert_eq!((one.role.as_str(), one.database.as_str()), ("app", "shop"));
        assert_eq!(follow.seen.clone().unwrap().unwrap().format, Some(format));
    }
}

#[tokio::test]
async fn a_file_that_was_renamed_is_read_to_its_end_and_then_the_new_one() {
    for (format, ending) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("postgresql.{ending}"));
        append(&path, refused(format, "before"));
        let mut follow = follow(&path).await;
        for round in 0..5 {
            let old = folder.path().join(format!("old.{round}"));
            append(&path, refused(format, "app"));
            fs::rename(&path, &old).unwrap();
            // The server writes on to what it has open, until it is told.
            append(&old, refused(format, "late"));
            append(&path, refused(format, "new"));
            follow.until_of(REFUSED, 3 * (round + 1)).await;
        }
        let counts: Vec<_> =
            follow.lines.counts.iter().map(|one| (one.role.as_str(), one.count)).collect();
        assert_eq!(counts, [("app", 5), ("late", 5), ("new", 5)], "{ending}");
        // Between the two there may be none; that is a failure only where there never was one.
        fs::rename(&path, folder.path().join("gone")).unwrap();
        follow.settled().await;
        assert!(follow.seen.clone().unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_file_that_is_cut_is_read_from_its_beginning() {
    for (format, ending) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("postgresql.{ending}"));
        append(&path, refused(format, "before").repeat(10));
        let mut follow = follow(&path).await;
        append(&path, refused(format, "app"));
        follow.until_of(REFUSED, 1).await;
        // `copytruncate`, and fewer lines than there were.
        fs::copy(&path, folder.path().join("copy")).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        append(&path, refused(format, "app"));
        follow.until_of(REFUSED, 2).await;
        // Cut, and as many bytes and more in it before anybody looks: they are others.
        let other = refused(format, "app").replace("77", "78").repeat(40);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        append(&path, &other);
        follow.until_of(REFUSED, 42).await;
        follow.settled().await;
        assert_eq!((follow.lines.of(REFUSED), follow.lines.unclear), (42, 0), "{ending}");
    }
}

#[tokio::test]
async fn names_that_change_by_date_are_followed_and_none_is_left_out() {
    for (format, ending) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let day = |day: u32| folder.path().join(format!("postgresql-2026-11-{day}.{ending}"));
        append(&day(19), refused(format, "before").repeat(3));
        append(&day(20), refused(format, "before").repeat(3));
        append(&folder.path().join("other.txt"), "no log\n");
        let mut follow = follow(&folder.path().join(format!("postgresql-*.{ending}"))).await;
        assert_eq!(follow.file(), day(20).display().to_string());
        append(&day(20), refused(format, "app"));
        // Two at once: the machine slept.
        append(&day(21), refused(format, "app").repeat(2));
        append(&day(22), refused(format, "app").repeat(3));
        follow.until_of(REFUSED, 6).await;
        follow.until("the newest", |all| all.file() == day(22).display().to_string()).await;
        // One by the day of the week is written to again: what it held is old.
        append(&day(19), refused(format, "app"));
        follow.until_of(REFUSED, 7).await;
        follow.settled().await;
        assert_eq!((follow.lines.of(REFUSED), follow.lines.unclear), (7, 0), "{ending}");
    }
}

#[tokio::test]
async fn a_line_of_a_megabyte_is_cut_and_what_follows_is_read() {
    for (format, ending) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("postgresql.{ending}"));
        append(&path, refused(format, "before"));
        let mut follow = follow(&path).await;
        let text = "sorry, too many clients already";
        let long = format!("{text} {}", "x".repeat(1_000_000));
        append(&path, refused(format, "app").replace(text, &long));
        append(&path, refused(format, "app"));
        follow.until_of(REFUSED, 2).await;
        assert_eq!((follow.lines.read, follow.lines.unclear), (2, 0), "{ending}");
    }
}

/// Sparse, so that it costs no disk: a server that writes faster than anybody reads.
#[tokio::test]
async fn what_is_too_much_is_passed_over_and_counted_and_its_end_is_read() {
    const TOO_MUCH: u64 = 300 << 20;
    for (format, ending) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("postgresql.{ending}"));
        append(&path, refused(format, "before"));
        let mut follow = follow(&path).await;
        let file = File::options().append(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() + TOO_MUCH).unwrap();
        append(&path, format!("\n{}", refused(format, "app")));
        follow.until_of(REFUSED, 1).await;
        follow.settled().await;
        let lines = &follow.lines;
        assert_eq!((lines.of(REFUSED), lines.counts[0].role.as_str()), (1, "app"), "{ending}");
        assert!((TOO_MUCH / 2..=TOO_MUCH).contains(&lines.skipped_bytes), "{lines:?}");
        assert_eq!(follow.seen.clone().unwrap().unwrap().behind_bytes, 0, "{ending}");
    }
}

#[tokio::test]
async fn half_a_line_is_read_when_its_other_half_comes() {
    for (format, ending) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("postgresql.{ending}"));
        append(&path, refused(format, "before"));
        let mut follow = follow(&path).await;
        let line = refused(format, "app");
        for cut in (1..line.len()).step_by(line.len() / 7) {
            append(&path, &line[..cut]);
            follow.settled().await;
            append(&path, &line[cut..]);
        }
        let count = (1..line.len()).step_by(line.len() / 7).count() as u64;
        follow.until_of(REFUSED, count).await;
        assert_eq!(follow.lines.unclear, 0, "{ending}");
    }
}

#[tokio::test]
async fn a_start_within_a_line_loses_that_line_only() {
    for (format, ending) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("postgresql.{ending}"));
        let line = refused(format, "app").replace("already", "already\tand\tmore");
        append(&path, &line[..line.len() - 60]);
        let mut follow = follow(&path).await;
        append(&path, &line[line.len() - 60..]);
        append(&path, refused(format, "app").repeat(3));
        follow.until_of(REFUSED, 3).await;
        follow.settled().await;
        assert_eq!(follow.lines.of(REFUSED), 3, "{ending}");
    }
}

#[tokio::test]
async fn broken_text_costs_its_own_line_at_most() {
    for (format, ending) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("postgresql.{ending}"));
        append(&path, refused(format, "before"));
        let mut follow = follow(&path).await;
        // A name in another encoding, in a line that is whole.
        let line = refused(format, "app");
        let at = line.find("app").unwrap();
        let latin1 = [&line.as_bytes()[..at], b"m\xfcller", &line.as_bytes()[at + 3..]].concat();
        append(&path, &latin1);
        follow.until_of(REFUSED, 1).await;
        assert_eq!(follow.lines.counts[0].role, "m\u{fffd}ller", "{ending}");
        // NULs, as a file system leaves them behind after a crash; then what is no log at all.
        append(&path, vec![0; 10_000]);
        append(&path, refused(format, "app"));
        follow.until_of(REFUSED, 2).await;
        let noise: Vec<u8> =
            (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        append(&path, noise.iter().map(|b| if *b == b'"' { b'.' } else { *b }).collect::<Vec<_>>());
        append(&path, "\n");
        append(&path, refused(format, "app"));
        follow.until_of(REFUSED, 3).await;
        assert!(0 < follow.lines.unclear, "{ending}");
    }
}

#[tokio::test]
async fn a_file_that_comes_later_is_read_from_its_beginning() {
    for (format, ending) in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        for name in [format!("postgresql.{ending}"), format!("postgresql-*.{ending}")] {
            let mut follow = follow(&folder.path().join("later").join(&name)).await;
            let failure = follow.failure().await;
            assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
            assert!(failure.text.contains(&name), "{failure:?}");
            fs::create_dir_all(folder.path().join("later")).unwrap();
            let path = folder.path().join("later").join(name.replace('*', "1"));
            append(&path, refused(format, "app").repeat(2));
            follow.until_of(REFUSED, 2).await;
            assert!(follow.seen.clone().unwrap().is_ok());
            fs::remove_dir_all(folder.path().join("later")).unwrap();
        }
    }
}

/// A volume that is mounted after we began has what was written before, and what comes now.
#[tokio::test]
async fn what_was_written_before_is_not_read_when_its_folder_comes_late() {
    let folder = tempfile::tempdir().unwrap();
    let away = |ending: &str| folder.path().join("away").join(ending);
    for (format, ending) in FORMATS {
        fs::create_dir_all(away(ending)).unwrap();
        append(&away(ending).join("1"), refused(format, "app").repeat(3));
    }
    // Older than the step of a disk's clock.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for (format, ending) in FORMATS {
        let there = folder.path().join(ending);
        let mut follow = follow(&there.join("*")).await;
        assert_eq!(follow.failure().await.kind, FailureKind::Unreachable);
        fs::rename(away(ending), &there).unwrap();
        follow.until("a good reading", |all| all.seen.as_ref().is_some_and(Result::is_ok)).await;
        append(&there.join("1"), refused(format, "app"));
        follow.until_of(REFUSED, 1).await;
        // One that comes while we follow is read from its beginning.
        append(&there.join("2"), refused(format, "app").repeat(2));
        follow.until_of(REFUSED, 3).await;
    }
}

#[tokio::test]
async fn what_is_no_file_and_what_gets_nothing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut on_folder = follow(folder.path()).await;
    assert_eq!(on_folder.failure().await.kind, FailureKind::Unsupported);
    // The file that a server with jsonlog alone leaves behind.
    let path = folder.path().join("postgresql.log");
    append(&path, "2026-11-21 15:58:05.123 UTC [7] LOG:  ending log output to stderr\n");
    let (sender, server) = said(PREFIX, "jsonlog");
    let mut watch = source(&path);
    watch.server = server;
    let mut follow = Follow::begun(watch).await;
    let failure = follow.failure().await;
    assert_eq!(failure.kind, FailureKind::Unsupported);
    assert!(failure.text.contains("the server writes jsonlog"), "{failure:?}");
    sender.send_modify(|known| {
        let known = std::sync::Arc::make_mut(known.as_mut().unwrap());
        known.destination = "stderr, jsonlog".to_owned();
    });
    follow.until("a good reading", |all| all.seen.as_ref().is_some_and(Result::is_ok)).await;
}

#[tokio::test]
async fn a_disk_that_is_slow_is_said_and_nothing_is_lost_or_read_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("postgresql.json");
    append(&path, "");
    // No disk is fast enough for this.
    let slow = LogSource { timeout: Duration::from_nanos(1), ..source(&path) };
    let mut follow = Follow::start(slow);
    let failure = follow.failure().await;
    assert_eq!(failure.kind, FailureKind::TooSlow, "{failure:?}");
    follow.until("a reading", |all| matches!(all.seen, Some(Ok(_)))).await;
    append(&path, refused(Format::Jsonlog, "app").repeat(10));
    follow.until_of(REFUSED, 10).await;
    follow.settled().await;
    assert_eq!(follow.lines.of(REFUSED), 10);
}

#[tokio::test]
async fn without_a_prefix_refusals_are_counted_and_with_it_names_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("postgresql.log");
    append(&path, refused(Format::Stderr, "before"));
    let (sender, server) = said(PREFIX, "stderr");
    let logging = sender.borrow().clone();
    sender.send_replace(None);
    let mut watch = source(&path);
    watch.server = server;
    let mut follow = Follow::begun(watch).await;
    append(&path, refused(Format::Stderr, "app"));
    follow.until_of(REFUSED, 1).await;
    assert_eq!(follow.lines.counts[0].role, "");
    assert!(!follow.seen.clone().unwrap().unwrap().tells_names);
    sender.send_replace(logging);
    follow.until("names", |all| matches!(&all.seen, Some(Ok(seen)) if seen.tells_names)).await;
    append(&path, refused(Format::Stderr, "app"));
    follow.until_of(REFUSED, 2).await;
    assert_eq!(follow.lines.counts[1].role, "app");
}
