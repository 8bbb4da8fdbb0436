//! Statements as they may be shown, worked out once for as long as they are seen.
//!
//! Taking the literals out of a text costs more than reading it, and most sessions show the same
//! text poll after poll. The source keeps one of these; [`super::observe`] asks it.

use std::collections::HashMap;

use plimsoll_core::reading::sql;

/// What is kept of a statement once its literals are taken out.
const MAX_QUERY_CHARS: usize = 400;

/// The statements of the newest two observations, by their text: as many as those have sessions.
#[derive(Default)]
pub(super) struct ShownStatements {
    newest: HashMap<String, String>,
    before: HashMap<String, String>,
}

impl ShownStatements {
    /// Another observation begins: what the last one did not show is forgotten.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.newest);
    }

    /// How this text may be shown.
    pub(super) fn show(&mut self, text: &str) -> String {
        if let Some(shown) = self.newest.get(text) {
            return shown.clone();
        }
        let known = self.before.remove_entry(text);
        let (text, shown) =
            known.unwrap_or_else(|| (text.to_owned(), sql::redact(text, MAX_QUERY_CHARS)));
        let answer = shown.clone();
        self.newest.insert(text, shown);
        answer
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
            assert_eq!(shown.show("SELECT 1"), "SELECT ?");
            assert_eq!(shown.show(&format!("SELECT {nth} FROM a")), "SELECT ? FROM a");
            assert_eq!(shown.show("SELECT 1"), "SELECT ?");
            assert_eq!(shown.newest.len(), 2);
        }
    }
}
