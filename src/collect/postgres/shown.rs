//! Statements as they may be shown, worked out once for as long as they are seen.
//!
//! Taking the literals out of a text costs more than reading it, and most sessions show the same
//! text poll after poll. A session keeps one of these, and asks it as it reads its rows: no text
//! goes further with its literals in it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use plimsoll_core::reading::sql;

/// What is kept of a statement once its literals are taken out.
const MAX_QUERY_CHARS: usize = 400;

/// The statements of the newest two observations, by their text: as many as those have sessions.
#[derive(Default)]
pub(super) struct ShownStatements {
    newest: HashMap<String, Arc<str>>,
    before: HashMap<String, Arc<str>>,
}

impl ShownStatements {
    /// Another observation begins: what the last one did not show is forgotten.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.newest);
    }

    /// How this text may be shown.
    pub(super) fn show(&mut self, text: &str) -> Arc<str> {
        if let Some(shown) = self.newest.get(text) {
            return Arc::clone(shown);
        }
        let known = self.before.remove_entry(text);
        let (text, shown) =
            known.unwrap_or_else(|| (text.to_owned(), sql::redact(text, MAX_QUERY_CHARS).into()));
        let answer = Arc::clone(&shown);
        self.newest.insert(text, shown);
        answer
    }
}

impl fmt::Debug for ShownStatements {
    /// Their number alone: their texts still have all literals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShownStatements({})", self.newest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_seen_is_forgotten() {
        let mut shown = ShownStatements::default();
        for nth in 0..10 {
            shown.begin();
            assert_eq!(*shown.show("SELECT 1"), *"SELECT ?");
            assert_eq!(*shown.show(&format!("SELECT {nth} FROM a")), *"SELECT ? FROM a");
            assert_eq!(*shown.show("SELECT 1"), *"SELECT ?");
            assert_eq!(shown.newest.len(), 2);
        }
    }
}
