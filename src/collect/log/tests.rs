//! The readers on lines that real servers wrote, of 13 to 18 and in each format (`captured/`), and
//! on what no server writes.

use std::time::Duration;

use plimsoll_core::reading::Refusal;
use plimsoll_core::reading::log::{Format, LineKind, Lines};
use proptest::prelude::*;

use super::entry::Entry;
use super::prefix::Prefix;
use super::reader::Reader;
use super::tally::Tally;
use crate::clock;

/// What each server had in `log_line_prefix`.
const PREFIX: &str = "%m [%p] %q%u@%d/%a ";

const CAPTURED: [(u32, Format, &[u8]); 16] = [
    (13, Format::Stderr, include_bytes!("captured/13.stderr")),
    (13, Format::Csvlog, include_bytes!("captured/13.csv")),
    (14, Format::Stderr, include_bytes!("captured/14.stderr")),
    (14, Format::Csvlog, include_bytes!("captured/14.csv")),
    (15, Format::Stderr, include_bytes!("captured/15.stderr")),
    (15, Format::Csvlog, include_bytes!("captured/15.csv")),
    (15, Format::Jsonlog, include_bytes!("captured/15.json")),
    (16, Format::Stderr, include_bytes!("captured/16.stderr")),
    (16, Format::Csvlog, include_bytes!("captured/16.csv")),
    (16, Format::Jsonlog, include_bytes!("captured/16.json")),
    (17, Format::Stderr, include_bytes!("captured/17.stderr")),
    (17, Format::Csvlog, include_bytes!("captured/17.csv")),
    (17, Format::Jsonlog, include_bytes!("captured/17.json")),
    (18, Format::Stderr, include_bytes!("captured/18.stderr")),
    (18, Format::Csvlog, include_bytes!("captured/18.csv")),
    (18, Format::Jsonlog, include_bytes!("captured/18.json")),
];

fn reader(format: Format) -> Reader {
    let mut reader = Reader::new(format);
    reader.behind(Some(&Prefix::new(PREFIX)));
    reader
}

/// What a log says that comes in pieces of so many bytes.
fn read(format: Format, log: &[u8], piece: usize) -> Lines {
    let mut tally = Tally::new(Duration::from_millis(200), true);
    let (mut reader, now) = (reader(format), clock::monotonic());
    for bytes in log.chunks(piece) {
        reader.feed(bytes, now, &mut |heard| tally.hear(heard));
    }
    reader.settle(&mut |heard| tally.hear(heard));
    tally.lines
}

fn entries(format: Format, log: &[u8]) -> Vec<Option<Entry>> {
    let mut heard = Vec::new();
    let mut reader = reader(format);
    reader.feed(log, clock::monotonic(), &mut |entry| heard.push(entry));
    reader.settle(&mut |entry| heard.push(entry));
    heard
}

/// How many of each kind the captured servers were made to write.
fn expected(major: u32, format: Format) -> Vec<(LineKind, u64)> {
    let is_stderr = format == Format::Stderr;
    // A title tells the one that found too many logins under way; a plain stderr log has none.
    let (slots, under_way) = if is_stderr { (1, 0) } else { (0, 1) };
    let (reserved, full) = if major < 16 {
        ((Refusal::ReservedForSuperusers, 2), 2)
    } else {
        ((Refusal::ReservedForRole, 3), 1)
    };
    let mut all = vec![
        (LineKind::Refused(Refusal::AllSlotsTaken), full + slots),
        (LineKind::Refused(reserved.0), reserved.1),
        (LineKind::Refused(Refusal::RoleLimit), 1),
        (LineKind::Refused(Refusal::DatabaseLimit), 1),
        (LineKind::Refused(Refusal::LoginsUnderWay), under_way),
        (LineKind::Refused(Refusal::WalSenders), 1),
        // A database and a role that are not there, a wrong password, pg_hba.conf.
        (LineKind::LoginFailed, 4),
        // Silent for too long, cut off while asked for a password (which only a title tells), half
        // a startup packet.
        (LineKind::LoginAbandoned, if is_stderr { 2 } else { 3 }),
        // At its start (15), within a recovery (15), at its end.
        (LineKind::NotAccepting, if major == 15 { 3 } else { 1 }),
        (LineKind::Deadlock, 1),
        // One of the two of a deadlock may see the other wait for longer.
        (LineKind::LockWait, if major == 14 { 2 } else { 1 }),
        (LineKind::StatementTimeout, 1),
        (LineKind::LockTimeout, 1),
        (LineKind::TransactionTimeout, u64::from(17 <= major)),
        (LineKind::IdleTermination, if major < 14 { 1 } else { 2 }),
        // Those of 14 and 15 were stopped before their last one ended.
        (LineKind::SlowStatement, if matches!(major, 14 | 15) { 5 } else { 6 }),
        (LineKind::Error, 5),
        (LineKind::Crash, 1),
        (LineKind::Recovery, 1),
    ];
    all.retain(|(_, count)| 0 < *count);
    all.sort_unstable();
    all
}

fn by_kind(lines: &Lines) -> Vec<(LineKind, u64)> {
    let mut kinds: Vec<LineKind> = lines.counts.iter().map(|one| one.kind).collect();
    kinds.dedup();
    kinds.into_iter().map(|kind| (kind, lines.of(kind))).collect()
}

#[test]
fn what_servers_of_each_major_wrote_is_counted_in_each_format() {
    for (major, format, log) in CAPTURED {
        let lines = read(format, log, log.len());
        assert_eq!(by_kind(&lines), expected(major, format), "{major} {format:?}");
        assert_eq!(lines.unclear, 0, "{major} {format:?}");
        let failed = lines.counts.iter().find(|one| one.kind == LineKind::LoginFailed).unwrap();
        let about = (failed.role.as_str(), failed.database.as_str(), failed.application.as_str());
        assert_eq!(about, ("app", "nowhere", ""), "{major} {format:?}");
        let error = lines.counts.iter().find(|one| one.kind == LineKind::Error).unwrap();
        let about = (error.role.as_str(), error.database.as_str(), error.application.as_str());
        assert_eq!(about, ("app", "postgres", "web"), "{major} {format:?}");
    }
}

#[test]
fn deadlocks_of_each_major_bring_their_statements_without_literals() {
    for (major, format, log) in CAPTURED {
        let lines = read(format, log, log.len());
        let [deadlock] = lines.deadlocks.as_slice() else { panic!("{major} {format:?}") };
        let [one, two] = deadlock.parties.as_slice() else { panic!("{deadlock:?}") };
        assert_eq!(deadlock.pid, Some(one.pid), "{major} {format:?}");
        for party in [one, two] {
            assert!(party.waits.contains("waits for ShareLock on transaction"), "{party:?}");
            assert_eq!(party.statement, "update pay set card=? where id=?", "{major} {format:?}");
        }
        assert!(!format!("{lines:?}").contains("canary"), "{major} {format:?}");
    }
}

#[test]
fn it_does_not_matter_in_which_pieces_a_log_comes() {
    for (major, format, log) in CAPTURED {
        let whole = read(format, log, log.len());
        for piece in [1, 2, 3, 7, 64, 4096] {
            assert_eq!(read(format, log, piece), whole, "{major} {format:?} {piece}");
        }
    }
}

#[test]
fn a_log_that_is_read_from_anywhere_is_read_aright_from_the_next_entry_on() {
    for (major, format, log) in CAPTURED {
        let whole = entries(format, log);
        for start in (1..log.len()).step_by(97) {
            let mut reader = reader(format);
            reader.lose_place(log[start - 1] == b'\n');
            let mut heard = Vec::new();
            reader.feed(&log[start..], clock::monotonic(), &mut |entry| heard.push(entry));
            reader.settle(&mut |entry| heard.push(entry));
            // Lines that are in the middle of an entry are the most that is not understood.
            let known: Vec<_> = heard.into_iter().flatten().collect();
            let tail: Vec<_> = whole.iter().flatten().rev().take(known.len()).cloned().collect();
            let read: Vec<_> = known.into_iter().rev().collect();
            assert_eq!(read, tail, "{major} {format:?} from {start}");
        }
    }
}

#[test]
fn where_titles_are_off_none_is_believed() {
    let (_, _, log) = CAPTURED[15];
    let mut tally = Tally::new(Duration::from_secs(1), false);
    reader(Format::Jsonlog).feed(log, clock::monotonic(), &mut |heard| tally.hear(heard));
    assert_eq!(tally.lines.of(LineKind::Refused(Refusal::LoginsUnderWay)), 0);
    assert_eq!(tally.lines.of(LineKind::Refused(Refusal::AllSlotsTaken)), 2);
}

#[test]
fn refusals_in_other_languages_are_told_apart_by_what_is_in_none() {
    let row = |title: &str, code: &str, severity: &str, message: &str| {
        let at = "2026-11-21 15:58:05.123 UTC";
        format!(
            "{at},\"app\",\"shop\",77,\"[local]\",65.2f,1,\"{title}\",{at},,0,{severity},{code},\
             \"{message}\",,,,,,,,,\"\",\"client backend\",,0\n"
        )
    };
    let of = LineKind::Refused;
    let cases = [
        (
            row("initializing", "53300", "FATAL", "tut mir leid, schon zu viele Verbindungen"),
            of(Refusal::AllSlotsTaken),
        ),
        (
            row("", "53300", "ВАЖНО", "извините, уже слишком много клиентов"),
            of(Refusal::LoginsUnderWay),
        ),
        (
            row("startup", "53300", "FATAL", "zu viele Verbindungen von Rolle »app«"),
            of(Refusal::RoleLimit),
        ),
        (
            row("startup", "53300", "FATAL", "zu viele Verbindungen für Datenbank »shop«"),
            of(Refusal::DatabaseLimit),
        ),
        (
            row("startup", "53300", "致命错误", "已保留的连接位置为执行非复制请求的超级用户预留"),
            of(Refusal::ReservedForSuperusers),
        ),
        (
            row("authentication", "28P01", "FATALE", "autenticazione con password fallita"),
            LineKind::LoginFailed,
        ),
        (row("UPDATE", "40P01", "FEHLER", "Verklemmung entdeckt"), LineKind::Deadlock),
        (row("idle", "57P05", "FATAL", "Verbindung wird abgebrochen"), LineKind::IdleTermination),
    ];
    for (line, kind) in cases {
        let lines = read(Format::Csvlog, line.as_bytes(), line.len());
        assert_eq!(lines.of(kind), 1, "{line}: {lines:?}");
    }
}

#[test]
fn a_csvlog_that_lost_a_part_is_read_again_after_a_while() {
    let (_, _, log) = CAPTURED[5];
    let quote = log.iter().rposition(|byte| *byte == b'"').unwrap();
    let mut tally = Tally::new(Duration::from_secs(1), true);
    let (mut reader, now) = (reader(Format::Csvlog), clock::monotonic());
    // The last quote and all behind it never came: what follows seems to be within quotes.
    reader.feed(&log[..quote], now, &mut |heard| tally.hear(heard));
    let before = tally.lines.read;
    reader.feed(log, now, &mut |heard| tally.hear(heard));
    reader.feed(b"x\n", now + Duration::from_secs(31), &mut |heard| tally.hear(heard));
    reader.feed(log, now + Duration::from_secs(32), &mut |heard| tally.hear(heard));
    let whole = read(Format::Csvlog, log, log.len()).read;
    assert!(before + whole <= tally.lines.read, "{} {before} {whole}", tally.lines.read);
    assert!(0 < tally.lines.unclear);
}

fn any_format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Stderr), Just(Format::Csvlog), Just(Format::Jsonlog)]
}

/// Bytes of every kind, and those that mean something more often than chance has them.
fn any_log() -> impl Strategy<Value = Vec<u8>> {
    let telling: Vec<&[u8]> = vec![
        b"\n",
        b"\t",
        b"\"",
        b"\"\"",
        b",",
        b"{",
        b"}",
        b":",
        b"\\",
        b"\\u",
        b"d83d",
        b"\0",
        b"2026-11-21 15:58:05.123 UTC",
        b" [7] ",
        b"FATAL:  ",
        b"DETAIL:  ",
        b"LOG:  duration: ",
        b" ms",
        b"\"error_severity\":\"FATAL\"",
        b"\"message\":\"",
        b"53300",
        b"app@shop/web ",
        b"Process 7: ",
        b"\xff\xfe",
        "冬".as_bytes(),
        b"deadlock detected",
        b",,,,,,,,",
    ];
    let piece = prop_oneof![
        3 => proptest::sample::select(telling).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_line_panics_and_pieces_do_not_matter(
        format in any_format(), log in any_log(), piece in 1..50_usize, at_line: bool,
    ) {
        let whole = read(format, &log, log.len().max(1));
        prop_assert_eq!(read(format, &log, piece), whole);
        let mut reader = reader(format);
        reader.lose_place(at_line);
        reader.feed(&log, clock::monotonic(), &mut |_| {});
        reader.settle(&mut |_| {});
    }

    #[test]
    fn a_prefix_takes_any_line(setting in "[%a-zA-Z0-9 ,:@\\[\\]-]{0,30}", line in "\\PC{0,200}") {
        let prefix = Prefix::new(&setting);
        if let Some(told) = prefix.take(&line) {
            prop_assert!(line.ends_with(told.rest));
        }
    }

    #[test]
    fn json_is_read_as_json(message in ".{0,100}", role in ".{0,15}", other in ".{0,40}") {
        let line = serde_json::json!({
            "other": other, "user": role, "pid": 77, "message": message,
            "error_severity": "ERROR", "statement": other,
        });
        let line = format!("{line}\n");
        let heard = entries(Format::Jsonlog, line.as_bytes());
        let [Some(entry)] = heard.as_slice() else { panic!("{line}: {heard:?}") };
        prop_assert_eq!(&entry.message, &message.chars().take(512).collect::<String>());
        prop_assert_eq!((&entry.role, entry.pid), (&role, Some(77)));
    }
}
