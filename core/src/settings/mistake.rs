//! A mistake in a configuration, in words for the person who made it.
//!
//! Never holds a value that could be secret: what was found is shown only where it cannot be one,
//! and a line of a file only with all masked that is not plainly harmless.

use std::fmt;

use super::place::{Place, Position};
use super::raw::SECRET_KEYS;

/// One mistake; its text is a line, perhaps an excerpt of the file, perhaps a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands; `None` if it stands nowhere, such as a target that is missing.
    pub place: Option<Place>,
    /// The path of the key, such as `rules.slots.warning.above`; empty if there is none.
    pub path: String,
    /// What was expected and what was found.
    pub message: String,
    /// The line of the file with a mark under the mistake.
    pub excerpt: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Mistake {
    /// A mistake without a place in any file.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: None, path: path.into(), message: message.into(), excerpt: None, hint: None }
    }

    /// With the place where it was made.
    #[must_use]
    pub fn at(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", shown_path(&self.path))?;
        }
        f.write_str(&self.message)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// A path without what cannot be the name of anything: a value that landed where a key belongs.
fn shown_path(path: &str) -> &str {
    match path.split_once(".\"") {
        Some((parent, key)) if key.contains("://") || key.contains('@') => parent,
        _ => path,
    }
}

/// Keys of receivers have 32 characters and tokens more; what an operator should see has fewer.
const MAX_SHOWN_CHARS: usize = 30;

/// What stands in the file, unless it could be secret.
pub(super) fn found(key: &str, kind: &str, written: &str) -> String {
    let shown = kind != "table"
        && kind != "array"
        && !SECRET_KEYS.contains(&key)
        && !written.contains('\n')
        && !could_be_secret(written);
    if shown {
        return written.to_owned();
    }
    match kind {
        "string" => "text",
        "integer" | "float" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "table" => "a table",
        _ => "a date",
    }
    .to_owned()
}

/// True for what is as long as a key, or looks like an address with a password in it.
pub(super) fn could_be_secret(written: &str) -> bool {
    written.trim_matches(['"', '\'']).chars().count() > MAX_SHOWN_CHARS
        || written.contains("://")
        || written.contains('@')
        || written.contains("whsec_")
        || written.to_lowercase().contains("pass")
}

/// The line with a mark under what is wrong, as the TOML parser has it.
pub(super) fn excerpt(line: &str, position: Position, length: usize, known: &[&str]) -> String {
    let line = masked(line, known);
    let number = position.line.to_string();
    let gutter = " ".repeat(number.len());
    let rest = line.chars().count().saturating_sub(position.column - 1);
    let mark = "^".repeat(length.min(rest).max(1));
    let indent = " ".repeat(position.column - 1);
    format!("  {gutter} |\n  {number} | {line}\n  {gutter} | {indent}{mark}")
}

/// A line of which only what cannot be secret is left: words that a configuration knows, and
/// numbers behind a key that holds nothing secret. Every other letter becomes an asterisk.
fn masked(line: &str, known: &[&str]) -> String {
    let Some((key, value)) = line.split_once('=') else { return mask_words(line, known, false) };
    let word = key.trim().rsplit(['.', ' ', '"', '\'']).next().unwrap_or_default();
    // Targets and receivers may stand in one line, with their secrets.
    let harmless = known.contains(&word)
        && word != "targets"
        && word != "receivers"
        && !SECRET_KEYS.iter().any(|secret| line.contains(secret));
    let key = mask_words(key, known, false);
    let value =
        if harmless { mask_words(value, known, true) } else { mask_words(value, &[], false) };
    format!("{key}={value}")
}

fn mask_words(line: &str, known: &[&str], numbers_too: bool) -> String {
    let in_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c| !in_word(c)).unwrap_or(rest.len()));
        if known.contains(&word) || (numbers_too && is_number(word)) {
            masked.push_str(word);
        } else {
            masked.extend(word.chars().map(|_| '*'));
        }
        let (between, after) = after.split_at(after.find(in_word).unwrap_or(after.len()));
        masked.extend(between.chars().map(|c| if c.is_control() { ' ' } else { c }));
        rest = after;
    }
    masked
}

/// A number, perhaps with the unit of a duration.
fn is_number(word: &str) -> bool {
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
    word.len() <= 8 && unit.len() < word.len() && ["", "ms", "s", "m", "h", "d"].contains(&unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_shows_nothing_secret() {
        let known = ["interval", "postgres", "targets", "name", "rules", "slots", "routing_key"];
        for (line, shown) in [
            ("interval = 1s", "interval = 1s"),
            ("[rules.slots", "[rules.slots"),
            ("routing_key = s3cr3t-key", "routing_key = **********"),
            ("postgres = \"postgresql://u:pw@h", "postgres = \"**********://*:**@*"),
            (
                "targets = [{ name = \"x\", postgres = \"pw\" }",
                "targets = [{ **** = \"*\", ******** = \"**\" }",
            ),
            ("\"whsec_abcdef\",,", "\"************\",,"),
            ("host=db password=hunter2", "****=** ********=*******"),
            ("name = \"postgresql://u:pw@h", "name = \"**********://*:**@*"),
            ("name = \"x\"routing_key = \"12345678\"", "name = \"*\"*********** = \"********\""),
            ("# password hunter2", "# ******** *******"),
        ] {
            assert_eq!(masked(line, &known), shown);
        }
    }
}
