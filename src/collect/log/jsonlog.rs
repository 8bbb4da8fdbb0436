//! jsonlog (15 and later): one flat JSON object a line, read byte by byte as the file grows.
//!
//! Not a JSON parser: it takes what `write_jsonlog` (jsonlog.c) writes, of any length, and keeps
//! the beginning of those values that are looked at. A line break is always the end of a line, so
//! whatever was wrong before it is over.

use super::Hears;
use super::entry::{Field, Fields};

/// Longer than any key.
const MAX_KEY_BYTES: usize = 32;

/// Reads the lines of a file in whatever pieces they come.
#[derive(Debug, Default)]
pub(super) struct Reader {
    at: At,
    key: Vec<u8>,
    field: Option<Field>,
    escape: Escape,
    fields: Fields,
    /// The line that is read began before us.
    partial: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// The beginning of a line.
    #[default]
    Line,
    /// Where a key may begin.
    BeforeKey,
    Key,
    BehindKey,
    BeforeValue,
    Text,
    /// A number.
    Scalar,
    BehindValue,
    BehindObject,
    /// What makes no sense, until the line ends.
    Unclear,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Backslash,
    /// Behind `\u`: how many digits there were, their value, and the half of a pair before them.
    Unicode(u8, u32, Option<u32>),
    /// Behind the first half of a pair, and then its backslash.
    High(u32, bool),
}

impl Reader {
    /// Bytes are missing before the next: the line that is read is not known from its beginning.
    pub(super) fn lose_place(&mut self) {
        self.fields.clear();
        self.at = At::Unclear;
        self.partial = true;
    }

    /// Reads on.
    pub(super) fn feed(&mut self, mut bytes: &[u8], hears: &mut Hears<'_>) {
        while let Some((byte, rest)) = bytes.split_first() {
            match (*byte, self.at) {
                (b'\n', _) => self.end_line(hears),
                (_, At::Text) if self.escape == Escape::None => {
                    let is_special = |b: &u8| matches!(b, b'"' | b'\\' | b'\n');
                    let len = bytes.iter().position(is_special).unwrap_or(bytes.len());
                    self.push(&bytes[..len]);
                    bytes = &bytes[len..];
                    match bytes.split_first() {
                        Some((b'"', rest)) => (self.at, bytes) = (At::BehindValue, rest),
                        Some((b'\\', rest)) => (self.escape, bytes) = (Escape::Backslash, rest),
                        // A line break: the next turn.
                        _ => {}
                    }
                    continue;
                }
                (_, At::Unclear) => {
                    let len = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
                    bytes = &bytes[len..];
                    continue;
                }
                (byte, At::Text) => self.unescape(byte),
                (byte, _) => self.step(byte),
            }
            bytes = rest;
        }
    }

    fn step(&mut self, byte: u8) {
        self.at = match (self.at, byte) {
            // NULs stand where a file was truncated under a writer that does not append.
            (At::Line, b'\0' | b' ') => At::Line,
            (At::Line, b'{') | (At::Scalar | At::BehindValue, b',') => At::BeforeKey,
            (at, b' ' | b'\t' | b'\r') if at != At::Key && at != At::Scalar => at,
            (At::BeforeKey, b'"') => {
                self.key.clear();
                At::Key
            }
            (At::BeforeKey | At::Scalar | At::BehindValue, b'}') => At::BehindObject,
            (At::Key, b'"') => {
                self.field = field(&self.key);
                At::BehindKey
            }
            (At::Key, byte) => {
                if self.key.len() < MAX_KEY_BYTES {
                    self.key.push(byte);
                }
                At::Key
            }
            (At::BehindKey, b':') => At::BeforeValue,
            (At::BeforeValue, b'"') => {
                if let Some(field) = self.field {
                    self.fields.begin(field);
                }
                At::Text
            }
            (
                At::BeforeValue | At::Scalar,
                b'0'..=b'9' | b'-' | b'+' | b'.' | b'a'..=b'z' | b'E',
            ) => {
                self.push(&[byte]);
                At::Scalar
            }
            (At::Scalar, b' ') => At::BehindValue,
            _ => At::Unclear,
        };
    }

    fn unescape(&mut self, byte: u8) {
        self.escape = match (self.escape, byte) {
            (Escape::Backslash, b'u') => Escape::Unicode(0, 0, None),
            (Escape::Backslash, _) => {
                let plain = match byte {
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => other,
                };
                self.push(&[plain]);
                Escape::None
            }
            (Escape::Unicode(digits, value, high), _) => {
                let Some(digit) = char::from(byte).to_digit(16) else {
                    self.at = At::Unclear;
                    return self.escape = Escape::None;
                };
                let value = value << 4 | digit;
                if digits < 3 {
                    Escape::Unicode(digits + 1, value, high)
                } else {
                    self.unit(value, high)
                }
            }
            (Escape::High(high, false), b'\\') => Escape::High(high, true),
            (Escape::High(high, true), b'u') => Escape::Unicode(0, 0, Some(high)),
            // Half a pair, and no other half.
            (Escape::High(..) | Escape::None, _) => {
                self.at = At::Unclear;
                Escape::None
            }
        };
    }

    /// Takes a unit of UTF-16.
    fn unit(&mut self, unit: u32, high: Option<u32>) -> Escape {
        let value = match (high, unit) {
            (None, 0xd800..=0xdbff) => return Escape::High(unit, false),
            (Some(high), 0xdc00..=0xdfff) => 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00),
            _ => unit,
        };
        let c = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.push(c.encode_utf8(&mut [0; 4]).as_bytes());
        Escape::None
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(field) = self.field {
            self.fields.push(field, bytes);
        }
    }

    fn end_line(&mut self, hears: &mut Hears<'_>) {
        let at = std::mem::take(&mut self.at);
        self.escape = Escape::None;
        let partial = std::mem::take(&mut self.partial);
        let is_entry = at == At::BehindObject && self.fields.get(Field::Severity).is_some();
        if is_entry {
            hears(Some(self.fields.take()));
        } else {
            self.fields.clear();
            if at != At::Line && !partial {
                hears(None);
            }
        }
    }
}

/// The keys that are looked at (the manual, "Using JSON-Format Log Output").
fn field(key: &[u8]) -> Option<Field> {
    Some(match key {
        b"user" => Field::Role,
        b"dbname" => Field::Database,
        b"pid" => Field::Pid,
        b"ps" => Field::Title,
        b"error_severity" => Field::Severity,
        b"state_code" => Field::Sqlstate,
        b"message" => Field::Message,
        b"detail" => Field::Detail,
        b"func_name" => Field::Routine,
        b"application_name" => Field::Application,
        b"backend_type" => Field::BackendType,
        _ => return None,
    })
}
