//! One entry of a server's log, in whatever format it was written, and the bounded fields from
//! which each format's reader makes it.
//!
//! Only what [`super::kinds`] and [`super::deadlock`] look at is kept, and of that no more than its
//! bound: an entry can hold a statement of a gigabyte.

use super::labels;

/// What is kept of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Role,
    Database,
    Pid,
    /// The process title: the tag of the running command, `authentication`, `idle`…
    Title,
    Severity,
    Sqlstate,
    Message,
    Detail,
    /// The C function that raised it; csvlog has the file behind it.
    Routine,
    Application,
    BackendType,
}

const FIELDS: usize = 11;

impl Field {
    /// At most so many bytes are kept. Names of roles and databases have 63, what an application
    /// calls itself too; the kinds of messages are told by their beginning; the detail of a
    /// deadlock holds the statements of its sessions, each of `track_activity_query_size` bytes.
    fn most(self) -> usize {
        match self {
            Self::Role | Self::Database | Self::Application | Self::Title => 63,
            Self::Pid | Self::Sqlstate => 16,
            Self::Severity | Self::BackendType => 64,
            Self::Routine => 128,
            Self::Message => 512,
            Self::Detail => 64 * 1024,
        }
    }
}

/// The fields of the entry that is being read.
#[derive(Debug, Default)]
pub(super) struct Fields([Option<Vec<u8>>; FIELDS]);

impl Fields {
    /// Says that there is such a field, be it empty.
    pub(super) fn begin(&mut self, field: Field) {
        self.0[field as usize].get_or_insert_default();
    }

    /// Adds to a field what fits.
    pub(super) fn push(&mut self, field: Field, bytes: &[u8]) {
        let kept = self.0[field as usize].get_or_insert_default();
        let room = field.most().saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// What is kept of a field.
    pub(super) fn get(&self, field: Field) -> Option<&[u8]> {
        self.0[field as usize].as_deref()
    }

    /// The entry that they make; nothing is left of them.
    pub(super) fn take(&mut self) -> Entry {
        let mut text = |field: Field| self.0[field as usize].take().map(text);
        let severity = text(Field::Severity).unwrap_or_default();
        let routine = text(Field::Routine).map(|location| match location.split_once(", ") {
            Some((routine, _)) => routine.to_owned(),
            None => location,
        });
        Entry {
            severity: labels::severity(&severity).unwrap_or(Severity::Other),
            sqlstate: text(Field::Sqlstate).filter(|code| !code.is_empty()),
            routine: routine.filter(|routine| !routine.is_empty()),
            pid: text(Field::Pid).and_then(|pid| pid.parse().ok()),
            title: text(Field::Title),
            backend_type: text(Field::BackendType),
            role: text(Field::Role).unwrap_or_default(),
            database: text(Field::Database).unwrap_or_default(),
            application: text(Field::Application).unwrap_or_default(),
            message: text(Field::Message).unwrap_or_default(),
            detail: text(Field::Detail),
        }
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What is not UTF-8 becomes U+FFFD; a character that was cut through is left out.
fn text(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes);
    text.unwrap_or_else(|wrong| {
        let valid = wrong.utf8_error();
        let mut bytes = wrong.into_bytes();
        if valid.error_len().is_none() {
            bytes.truncate(valid.valid_up_to());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// How bad it is, by the server's own scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// DEBUG, INFO, NOTICE, WARNING: nothing that is counted.
    Other,
    Log,
    Error,
    Fatal,
    Panic,
}

/// One entry. A field that the line does not have is `None` or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) severity: Severity,
    pub(super) sqlstate: Option<String>,
    /// The C function, where `log_error_verbosity` is `verbose`.
    pub(super) routine: Option<String>,
    pub(super) pid: Option<i32>,
    pub(super) title: Option<String>,
    pub(super) backend_type: Option<String>,
    pub(super) role: String,
    pub(super) database: String,
    pub(super) application: String,
    pub(super) message: String,
    pub(super) detail: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_kept_up_to_its_bound_and_cut_between_characters() {
        let mut fields = Fields::default();
        fields.push(Field::Severity, b"ERROR");
        for _ in 0..100_000 {
            fields.push(Field::Message, "grün ".as_bytes());
            fields.push(Field::Detail, b"detail");
        }
        fields.push(Field::Role, &[b'a', 0xff, b'b']);
        let entry = fields.take();
        assert!(entry.message.starts_with("grün grün ") && !entry.message.contains('\u{fffd}'));
        assert!(entry.message.len() <= 512, "{}", entry.message.len());
        assert_eq!(entry.detail.map(|detail| detail.len()), Some(64 * 1024));
        assert_eq!(entry.role, "a\u{fffd}b");
        assert_eq!((entry.severity, entry.sqlstate, entry.title), (Severity::Error, None, None));
        assert!(fields.get(Field::Message).is_none());
    }

    #[test]
    fn a_location_gives_its_function() {
        for location in ["InitProcess, proc.c:357", "InitProcess"] {
            let mut fields = Fields::default();
            fields.push(Field::Routine, location.as_bytes());
            assert_eq!(fields.take().routine.as_deref(), Some("InitProcess"));
        }
    }
}
