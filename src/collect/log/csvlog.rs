//! csvlog: 23 columns and more, quoted where they must be, read byte by byte as the file grows.
//!
//! A line break within quotes is part of a value, so a reader that does not know whether it is
//! within quotes must find its place first: it waits for a line that begins with a time. It loses
//! its place at the start, and where the server lost a part of what it wrote. Source of the
//! columns: `write_csvlog` (csvlog.c; before 15 in elog.c); 13 has 24, later ones 26.

use std::time::{Duration, Instant};

use super::Hears;
use super::entry::{Field, Fields};
use super::prefix::is_time;

/// A record with fewer columns is none; later majors may have more.
const MIN_COLUMNS: usize = 23;

/// A record is written at once. One that is not whole after this time never will be, and what is
/// taken for its value is other records.
const WHOLE_WITHIN: Duration = Duration::from_secs(30);

/// As much of the first column as tells a time.
const HEAD_BYTES: usize = 19;

/// Reads the records of a file in whatever pieces they come.
#[derive(Debug, Default)]
pub(super) struct Reader {
    at: At,
    column: usize,
    head: Vec<u8>,
    fields: Fields,
    /// When the record that is read was seen first.
    began: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// The beginning of a value.
    #[default]
    Value,
    Plain,
    Quoted,
    /// Behind a quote within quotes: the end of them, or the first of two.
    Quote,
    /// The place is lost; the beginning of a line.
    LostAtLine,
    /// The place is lost; within a line.
    Lost,
}

impl Reader {
    /// Bytes are missing before the next: it is not known whether they are within quotes, nor,
    /// unless `at_line`, within a line.
    pub(super) fn lose_place(&mut self, at_line: bool) {
        self.forget();
        self.at = if at_line { At::LostAtLine } else { At::Lost };
    }

    /// Reads on.
    pub(super) fn feed(&mut self, mut bytes: &[u8], now: Instant, hears: &mut Hears<'_>) {
        if self.began.is_some_and(|began| WHOLE_WITHIN < now.saturating_duration_since(began)) {
            hears(None);
            self.lose_place(false);
        }
        while !bytes.is_empty() {
            let len = self.run(bytes, now, hears);
            bytes = &bytes[len.clamp(1, bytes.len())..];
        }
    }

    /// Takes what belongs together, and says how much that was.
    fn run(&mut self, bytes: &[u8], now: Instant, hears: &mut Hears<'_>) -> usize {
        let until =
            |ends: &[u8]| bytes.iter().position(|b| ends.contains(b)).unwrap_or(bytes.len());
        match self.at {
            At::Lost => {
                let len = until(b"\n");
                if len < bytes.len() {
                    self.at = At::LostAtLine;
                }
                len + 1
            }
            At::LostAtLine => {
                self.find_place(bytes[0], now);
                1
            }
            At::Quoted => {
                let len = until(b"\"");
                self.push(&bytes[..len]);
                if len < bytes.len() {
                    self.at = At::Quote;
                }
                len + 1
            }
            At::Plain => {
                let len = until(b",\n");
                self.push(&bytes[..len]);
                if len < bytes.len() {
                    self.end_value(bytes[len], hears);
                }
                len + 1
            }
            At::Value | At::Quote => {
                self.step(bytes[0], now, hears);
                1
            }
        }
    }

    fn step(&mut self, byte: u8, now: Instant, hears: &mut Hears<'_>) {
        // NULs stand where a file was truncated under a writer that does not append.
        if self.began.is_none() && matches!(byte, b'\0' | b'\n' | b'\r') {
            return;
        }
        self.began.get_or_insert(now);
        match (self.at, byte) {
            (_, b',' | b'\n') => self.end_value(byte, hears),
            (At::Value, b'"') => {
                if let Some(field) = field(self.column) {
                    self.fields.begin(field);
                }
                self.at = At::Quoted;
            }
            (At::Quote, b'"') => {
                self.push(b"\"");
                self.at = At::Quoted;
            }
            _ => {
                self.push(&[byte]);
                self.at = At::Plain;
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.column == 0 {
            let room = HEAD_BYTES.saturating_sub(self.head.len());
            self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        } else if let Some(field) = field(self.column) {
            self.fields.push(field, bytes);
        }
    }

    fn end_value(&mut self, byte: u8, hears: &mut Hears<'_>) {
        self.at = At::Value;
        if byte == b',' {
            self.column = self.column.saturating_add(1);
            return;
        }
        let is_record = MIN_COLUMNS <= self.column + 1 && is_time(&self.head);
        if is_record {
            hears(Some(self.fields.take()));
            self.forget();
        } else {
            hears(None);
            self.lose_place(true);
        }
    }

    /// A line that begins with a time is a record's first.
    fn find_place(&mut self, byte: u8, now: Instant) {
        if byte == b'\n' {
            return self.head.clear();
        }
        self.head.push(byte);
        if self.head.len() < HEAD_BYTES {
            return;
        }
        if is_time(&self.head) {
            self.at = At::Plain;
            self.began = Some(now);
        } else {
            self.lose_place(false);
        }
    }

    fn forget(&mut self) {
        self.fields.clear();
        self.head.clear();
        self.began = None;
        self.column = 0;
        self.at = At::Value;
    }
}

/// The columns that are looked at (the manual, "Using CSV-Format Log Output").
fn field(column: usize) -> Option<Field> {
    Some(match column {
        1 => Field::Role,
        2 => Field::Database,
        3 => Field::Pid,
        7 => Field::Title,
        11 => Field::Severity,
        12 => Field::Sqlstate,
        13 => Field::Message,
        14 => Field::Detail,
        21 => Field::Routine,
        22 => Field::Application,
        23 => Field::BackendType,
        _ => return None,
    })
}
