//! Statements as they may be shown: cut to a length, and without what stands in their literals.
//!
//! Not a parser: a lexer that never fails. What it cannot read for certain it takes out, the rest
//! of the text with it. `collect` calls it on all statement text before it becomes part of a
//! reading, so that nothing later can show a customer's data.
//!
//! Source of the rules: the manual, "Lexical Structure", and `src/backend/parser/scan.l`.

mod lexer;

use lexer::{Token, next};

/// Stands for everything that was taken out.
const MARK: char = '?';

/// Ends a text that was cut.
const ELLIPSIS: char = '…';

/// A LIMIT, OFFSET or FETCH FIRST with more digits is no number of rows that anybody asks for.
const MAX_ROW_COUNT_DIGITS: usize = 9;

/// The statement on one line, its literals replaced by `?`, at most `max_chars` characters long.
///
/// Kept are keywords, identifiers (quoted ones too), parameters (`$1`), operators and the row
/// counts after LIMIT, OFFSET and FETCH FIRST. Taken out are strings of every form, numbers,
/// comments, values of settings, and all that follows PASSWORD in the DDL of roles. A literal or
/// comment that does not end (servers cut at `track_activity_query_size`) takes the rest along.
/// What is shown of it can be passed in again and comes out the same.
pub fn redact(text: &str, max_chars: usize) -> String {
    let mut shown = Shown::new(max_chars);
    let mut statement = Statement::default();
    let mut rest = text;
    while let Some((token, len)) = next(rest) {
        let (here, after) = rest.split_at(len);
        rest = after;
        if token == Token::Space {
            shown.space();
            continue;
        }
        let part = statement.take(token, here);
        let fits = match part {
            Part::Keep => shown.push(here),
            Part::Redact => shown.push_mark(),
            Part::RedactRest => {
                shown.push_mark();
                return shown.finish();
            }
            Part::Cut { in_literal } => {
                if in_literal {
                    shown.push_mark();
                }
                shown.overflow();
                return shown.finish();
            }
        };
        if !fits {
            break;
        }
    }
    shown.finish()
}

/// What becomes of a token.
enum Part {
    /// It is shown.
    Keep,
    /// A mark is shown in its place.
    Redact,
    /// A mark is shown in its place and in that of all that follows.
    RedactRest,
    /// The text does not end as it should, or ends here because it was cut.
    Cut {
        /// Within something that a mark stands for, not within a comment.
        in_literal: bool,
    },
}

/// As much as must be known of the statement so far.
#[derive(Default)]
struct Statement {
    /// The words before, upper-cased, the latest last: `FETCH`, `FIRST`.
    before: [String; 2],
    /// How many tokens there were.
    tokens: usize,
    kind: Kind,
    /// Behind the `=` or `TO` of a statement that changes settings.
    in_value: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Other,
    /// `CREATE` or `ALTER`, so far.
    Ddl,
    /// `CREATE` or `ALTER` of what can have a password.
    Role,
    /// `SET`, or `ALTER` of what settings can be attached to.
    Settings,
}

impl Statement {
    fn take(&mut self, token: Token, text: &str) -> Part {
        let part = match token {
            Token::Unclear => Part::Cut { in_literal: true },
            Token::OpenComment => Part::Cut { in_literal: false },
            Token::Number if self.counts_rows() && is_row_count(text) => Part::Keep,
            Token::Literal | Token::Number => Part::Redact,
            // Ours, should the text be read a second time; a word by itself, by the rules.
            Token::Word if text == "…" => Part::Keep,
            Token::Word | Token::Quoted if self.in_value => Part::Redact,
            Token::Word | Token::Quoted | Token::Parameter | Token::Other | Token::Space => {
                Part::Keep
            }
        };
        if self.is_after_password() {
            return Part::RedactRest;
        }
        self.advance(token, text);
        part
    }

    fn counts_rows(&self) -> bool {
        let [earlier, last] = self.before.each_ref().map(String::as_str);
        matches!(last, "LIMIT" | "OFFSET") || earlier == "FETCH" && matches!(last, "FIRST" | "NEXT")
    }

    fn is_after_password(&self) -> bool {
        self.kind == Kind::Role && self.before[1] == "PASSWORD"
    }

    fn advance(&mut self, token: Token, text: &str) {
        if text == ";" {
            *self = Self::default();
            return;
        }
        // Keywords are ASCII and short; a longer word is none, nor is one that was taken out.
        let short = text.len() <= "SUBSCRIPTION".len();
        let word = if token == Token::Word && short && !self.in_value {
            text.to_ascii_uppercase()
        } else {
            String::new()
        };
        self.kind = match (self.tokens, self.kind, word.as_str()) {
            (0, _, "CREATE" | "ALTER") => Kind::Ddl,
            (1, Kind::Ddl, "ROLE" | "USER" | "GROUP" | "SERVER" | "SUBSCRIPTION") => Kind::Role,
            (0, _, "SET") | (1, Kind::Ddl, "DATABASE" | "SYSTEM") => Kind::Settings,
            (_, kind, _) => kind,
        };
        let sets = matches!(self.kind, Kind::Settings | Kind::Role);
        self.in_value |= sets && (text == "=" || word == "TO");
        self.tokens = self.tokens.saturating_add(1);
        self.before.swap(0, 1);
        self.before[1] = word;
    }
}

fn is_row_count(text: &str) -> bool {
    text.len() <= MAX_ROW_COUNT_DIGITS && text.bytes().all(|b| b.is_ascii_digit())
}

/// The text that comes out: whole tokens, so that what was cut reads the same a second time.
struct Shown {
    text: String,
    chars: usize,
    max_chars: usize,
    /// Where the text ends if the ellipsis must follow: the last token before `max_chars`.
    cut_at: usize,
    space_owed: bool,
    cut: bool,
}

impl Shown {
    fn new(max_chars: usize) -> Self {
        Self { text: String::new(), chars: 0, max_chars, cut_at: 0, space_owed: false, cut: false }
    }

    fn space(&mut self) {
        self.space_owed = !self.text.is_empty();
    }

    /// False when it was too much, and nothing more can come.
    fn push(&mut self, token: &str) -> bool {
        let space = usize::from(std::mem::take(&mut self.space_owed));
        // Counting stops where it no longer matters: a token can be as long as the text.
        let room = self.max_chars.saturating_sub(self.chars + space);
        let chars = token.chars().take(room.saturating_add(1)).count();
        if chars > room {
            self.overflow();
            return false;
        }
        if space > 0 {
            self.text.push(' ');
        }
        self.text.extend(token.chars().map(visible));
        self.chars += space + chars;
        if self.chars < self.max_chars {
            self.cut_at = self.text.len();
        }
        true
    }

    fn push_mark(&mut self) -> bool {
        self.push(MARK.encode_utf8(&mut [0; 4]))
    }

    fn overflow(&mut self) {
        self.cut = true;
    }

    fn finish(mut self) -> String {
        if self.cut && self.max_chars > 0 {
            self.text.truncate(self.cut_at);
            // What was cut once, and shown, ends in one already.
            if !self.text.ends_with(ELLIPSIS) {
                self.text.push(ELLIPSIS);
            }
        }
        self.text
    }
}

/// The character, or another for one that would be unseen or move others: controls, line
/// separators, marks of direction, what has no width. What was part of a word stays part of one.
fn visible(c: char) -> char {
    if c.is_ascii_control() {
        return MARK;
    }
    let unseen = c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        || ('\u{200b}'..='\u{200f}').contains(&c)
        || ('\u{2028}'..='\u{202e}').contains(&c)
        || ('\u{2060}'..='\u{206f}').contains(&c)
        || ('\u{fff0}'..='\u{fffb}').contains(&c)
        || ('\u{e0000}'..='\u{e0fff}').contains(&c);
    if unseen { char::REPLACEMENT_CHARACTER } else { c }
}

#[cfg(test)]
mod tests;
