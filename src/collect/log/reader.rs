//! The reader of a file in its format, and which format that is.

use std::time::Instant;

use plimsoll_core::reading::log::Format;

use super::prefix::{Prefix, is_time};
use super::{Hears, csvlog, jsonlog, stderr};

/// A first line is known by so much of it.
pub(super) const FIRST_LINE_BYTES: usize = 4096;

/// Fewer commas than this make no csvlog.
const MIN_COMMAS: usize = 22;

/// Reads a file of one format.
#[derive(Debug)]
pub(super) enum Reader {
    Json(jsonlog::Reader),
    Csv(csvlog::Reader),
    Stderr(stderr::Reader),
}

impl Reader {
    pub(super) fn new(format: Format) -> Self {
        match format {
            Format::Jsonlog => Self::Json(jsonlog::Reader::default()),
            Format::Csvlog => Self::Csv(csvlog::Reader::default()),
            Format::Stderr => Self::Stderr(stderr::Reader::default()),
        }
    }

    pub(super) fn format(&self) -> Format {
        match self {
            Self::Json(_) => Format::Jsonlog,
            Self::Csv(_) => Format::Csvlog,
            Self::Stderr(_) => Format::Stderr,
        }
    }

    /// Says by which prefix lines are taken apart from here on.
    pub(super) fn behind(&mut self, prefix: Option<&Prefix>) {
        if let Self::Stderr(reader) = self {
            reader.behind(prefix.cloned());
        }
    }

    /// Whether entries tell whom they are about.
    pub(super) fn tells_names(&self) -> bool {
        match self {
            Self::Json(_) | Self::Csv(_) => true,
            Self::Stderr(reader) => reader.has_prefix(),
        }
    }

    /// What comes next is not what follows on what was read; `at_line` if it begins a line.
    pub(super) fn lose_place(&mut self, at_line: bool) {
        match self {
            Self::Json(reader) if at_line => *reader = jsonlog::Reader::default(),
            Self::Json(reader) => reader.lose_place(),
            Self::Csv(reader) => reader.lose_place(at_line),
            Self::Stderr(reader) => reader.lose_place(at_line),
        }
    }

    /// Reads on.
    pub(super) fn feed(&mut self, bytes: &[u8], now: Instant, hears: &mut Hears<'_>) {
        match self {
            Self::Json(reader) => reader.feed(bytes, hears),
            Self::Csv(reader) => reader.feed(bytes, now, hears),
            Self::Stderr(reader) => reader.feed(bytes, hears),
        }
    }

    /// Nothing more came for a while.
    pub(super) fn settle(&mut self, hears: &mut Hears<'_>) {
        if let Self::Stderr(reader) = self {
            reader.settle(hears);
        }
    }

    /// Whether something is held that [`Reader::settle`] would let go.
    pub(super) fn is_held(&self) -> bool {
        matches!(self, Self::Stderr(reader) if reader.is_held())
    }
}

/// The format that a file's name says, as the server's collector names them.
pub(super) fn by_name(name: &std::path::Path) -> Option<Format> {
    match name.extension()?.to_str()? {
        "json" => Some(Format::Jsonlog),
        "csv" => Some(Format::Csvlog),
        _ => None,
    }
}

/// The format of a file that begins with these bytes; `None` while its first line may go on.
pub(super) fn by_first_line(bytes: &[u8]) -> Option<Format> {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\0' | b'\n' | b' '))?;
    let bytes = &bytes[begin..];
    if bytes[0] == b'{' {
        return Some(Format::Jsonlog);
    }
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    if end.is_none() && line.len() + begin < FIRST_LINE_BYTES {
        return None;
    }
    let commas = line.split(|byte| *byte == b',').count() - 1;
    // A long statement may hide the columns behind it.
    let enough = MIN_COMMAS <= commas || end.is_none() && 10 <= commas;
    Some(if is_time(line) && enough { Format::Csvlog } else { Format::Stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_the_first_line() {
        let csv = format!("2026-11-21 15:58:05.123 UTC{}\n", ",".repeat(23));
        let long =
            format!("2026-11-21 15:58:05.123 UTC,,,7{},\"{}", ",x".repeat(10), "x".repeat(5_000));
        let cases = [
            ("{\"timestamp\":", Some(Format::Jsonlog)),
            ("\0\0{", Some(Format::Jsonlog)),
            (csv.as_str(), Some(Format::Csvlog)),
            (long.as_str(), Some(Format::Csvlog)),
            ("2026-11-21 15:58:05.123 UTC [7] LOG:  a, b\n", Some(Format::Stderr)),
            ("2026-11-21 15:58:05.123 UTC [7] LO", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(by_first_line(text.as_bytes()), expected, "{text}");
        }
        let names = ["postgresql.json", "x.csv", "postgresql-15-main.log", "log"];
        let formats = names.map(|name| by_name(name.as_ref()));
        assert_eq!(formats, [Some(Format::Jsonlog), Some(Format::Csvlog), None, None]);
    }
}
