//! stderr: text, each line behind a `log_line_prefix`; lines that go on with the one before begin
//! with a tab, and those with a detail or a statement have a label of their own.
//!
//! An entry ends where the next begins, so the last one is held until nothing more comes
//! ([`Reader::settle`]). Source: `send_message_to_server_log` (elog.c).

use super::Hears;
use super::entry::{Field, Fields};
use super::labels;
use super::prefix::{Prefix, without};

/// So much of a line is kept: a prefix and a field fit. A statement can be a line of a gigabyte.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Reads the lines of a file in whatever pieces they come.
#[derive(Debug, Default)]
pub(super) struct Reader {
    prefix: Option<Prefix>,
    line: Vec<u8>,
    /// The line that is read began before us.
    partial: bool,
    entry: Option<Pending>,
}

/// An entry of which more lines may come.
#[derive(Debug, Default)]
struct Pending {
    fields: Fields,
    /// Where lines that begin with a tab belong, if they are looked at.
    into: Option<Field>,
}

impl Reader {
    /// Reads lines behind this prefix from here on; `None` if it is not known.
    pub(super) fn behind(&mut self, prefix: Option<Prefix>) {
        self.prefix = prefix;
    }

    /// Whether lines tell names.
    pub(super) fn has_prefix(&self) -> bool {
        self.prefix.is_some()
    }

    /// Bytes are missing before the next, which begin a line or not.
    pub(super) fn lose_place(&mut self, at_line: bool) {
        self.line.clear();
        self.entry = None;
        self.partial = !at_line;
    }

    /// Whether it holds an entry that may go on.
    pub(super) fn is_held(&self) -> bool {
        self.entry.is_some() && self.line.is_empty()
    }

    /// Reads on.
    pub(super) fn feed(&mut self, bytes: &[u8], hears: &mut Hears<'_>) {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        // What stands behind the last line break is the beginning of a line.
        let last = lines.next_back().unwrap_or_default();
        for piece in lines {
            self.push(piece);
            self.end_line(hears);
        }
        self.push(last);
    }

    /// Nothing more came for a while: the entry that is held is whole.
    pub(super) fn settle(&mut self, hears: &mut Hears<'_>) {
        if self.line.is_empty()
            && let Some(mut entry) = self.entry.take()
        {
            hears(Some(entry.fields.take()));
        }
    }

    fn push(&mut self, piece: &[u8]) {
        // NULs stand where a file was truncated under a writer that does not append.
        let begin = if self.line.is_empty() {
            piece.iter().position(|byte| *byte != 0).unwrap_or(piece.len())
        } else {
            0
        };
        let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
        let piece = &piece[begin..];
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn end_line(&mut self, hears: &mut Hears<'_>) {
        let line = std::mem::take(&mut self.line);
        if !std::mem::take(&mut self.partial) {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches('\r');
            if !text.is_empty() {
                self.take_line(text, hears);
            }
        }
        // Its memory is used again, unless one long line had made it large.
        self.line = line;
        self.line.clear();
        self.line.shrink_to(4096);
    }

    fn take_line(&mut self, line: &str, hears: &mut Hears<'_>) {
        if let Some(more) = line.strip_prefix('\t') {
            // One without an entry is of one that began before us.
            if let Some(Pending { fields, into: Some(field) }) = &mut self.entry {
                fields.push(*field, b"\n");
                fields.push(*field, more.as_bytes());
            }
            return;
        }
        let told = match &self.prefix {
            Some(prefix) => prefix.take(line),
            None => without(line),
        };
        let Some(told) = told else {
            self.end_entry(hears);
            return hears(None);
        };
        if let Some((severity, message)) = labels::opening(told.rest) {
            self.end_entry(hears);
            self.entry = Some(Pending::open(&told.values, severity, message));
        } else if let Some((field, text)) = labels::part(told.rest)
            && let Some(entry) = &mut self.entry
        {
            entry.go_on(&told.values, field, text);
        }
    }

    fn end_entry(&mut self, hears: &mut Hears<'_>) {
        if let Some(mut entry) = self.entry.take() {
            hears(Some(entry.fields.take()));
        }
    }
}

impl Pending {
    fn open(values: &[(Field, &str)], severity: &str, message: &str) -> Self {
        let mut fields = Fields::default();
        for (field, value) in values {
            fields.push(*field, value.as_bytes());
        }
        fields.push(Field::Severity, severity.as_bytes());
        let message = match verbose(message) {
            Some((code, message)) => {
                if fields.get(Field::Sqlstate).is_none() {
                    fields.push(Field::Sqlstate, code.as_bytes());
                }
                message
            }
            None => message,
        };
        fields.push(Field::Message, message.as_bytes());
        Self { fields, into: Some(Field::Message) }
    }

    /// A later line, if it is of the same session.
    fn go_on(&mut self, values: &[(Field, &str)], field: Option<Field>, text: &str) {
        let pid = values.iter().find(|(field, _)| *field == Field::Pid);
        let known = self.fields.get(Field::Pid);
        if pid.is_some_and(|(_, pid)| known.is_some_and(|known| known != pid.as_bytes())) {
            self.into = None;
            return;
        }
        self.into = field;
        if let Some(field) = field {
            self.fields.push(field, text.as_bytes());
        }
    }
}

/// `53300: message`, as it stands where `log_error_verbosity` is `verbose`.
fn verbose(message: &str) -> Option<(&str, &str)> {
    let (code, rest) = message.split_once(": ")?;
    let is_of_code = |b: u8| b.is_ascii_digit() || b.is_ascii_uppercase();
    // The classes that there are (errcodes.txt): words of five capitals are none.
    let known = code.starts_with(|c: char| c.is_ascii_digit())
        || ["F0", "HV", "P0", "XX"].iter().any(|class| code.starts_with(class));
    (code.len() == 5 && known && code.bytes().all(is_of_code)).then_some((code, rest))
}
