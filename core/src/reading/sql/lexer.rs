//! Cuts statement text into tokens. Only [`super::redact`] calls it.

/// A token; its text is the first bytes of what was given to [`next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// White space or a comment.
    Space,
    /// A comment that does not end.
    OpenComment,
    /// A keyword or an unquoted identifier.
    Word,
    /// A quoted identifier.
    Quoted,
    /// `$1`.
    Parameter,
    /// A number, with whatever is glued to it.
    Number,
    /// A string of any form.
    Literal,
    /// A string or identifier that does not end, or that ends in two places depending on a
    /// setting; everything that follows.
    Unclear,
    /// One character of an operator or of punctuation.
    Other,
}

/// `$65535` is the last parameter that the protocol can bind.
const MAX_PARAMETER_DIGITS: usize = 5;

/// The first token and its length in bytes, which is never 0; `None` at the end.
pub(super) fn next(text: &str) -> Option<(Token, usize)> {
    let first = text.chars().next()?;
    let bytes = text.as_bytes();
    let found = match first {
        _ if is_space(first) => (Token::Space, len_while(text, is_space)),
        '-' if text.starts_with("--") => (Token::Space, len_while(text, |c| !is_line_end(c))),
        '/' if text.starts_with("/*") => comment(bytes),
        '\'' => string(bytes, 0, Backslash::IsUnclear),
        '"' => quoted(bytes, 0),
        '$' => dollar(text),
        '.' if bytes.get(1).is_some_and(u8::is_ascii_digit) => number(bytes),
        '0'..='9' => number(bytes),
        _ if starts_word(first) => word(text),
        _ => (Token::Other, first.len_utf8()),
    };
    Some(found)
}

/// scan.l: space, tab, newline, carriage return, form feed, from 16 on vertical tab.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

/// scan.l: `ident_start`, in which every character outside ASCII is a letter.
fn starts_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn continues_word(c: char) -> bool {
    starts_word(c) || c.is_ascii_digit() || c == '$'
}

fn len_while(text: &str, holds: impl Fn(char) -> bool) -> usize {
    text.find(|c| !holds(c)).unwrap_or(text.len())
}

/// Comments nest.
fn comment(bytes: &[u8]) -> (Token, usize) {
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return (Token::Space, at);
        }
    }
    (Token::OpenComment, at)
}

/// What a backslash in a string does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    /// As in `E'…'`.
    Escapes,
    /// As in `'…'`, where `standard_conforming_strings` decides: an odd number of them before a
    /// quote ends the string or does not.
    IsUnclear,
}

/// A string whose opening quote is at `open`.
fn string(bytes: &[u8], open: usize, backslash: Backslash) -> (Token, usize) {
    let (mut at, mut backslashes) = (open + 1, 0_usize);
    while at < bytes.len() {
        let odd = backslashes % 2 == 1;
        match bytes[at] {
            b'\\' => backslashes += 1,
            b'\'' if odd && backslash == Backslash::IsUnclear => break,
            b'\'' if odd => backslashes = 0,
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => (at, backslashes) = (at + 1, 0),
            b'\'' => return (Token::Literal, at + 1),
            _ => backslashes = 0,
        }
        at += 1;
    }
    (Token::Unclear, bytes.len())
}

/// A quoted identifier whose opening quote is at `open`.
fn quoted(bytes: &[u8], open: usize) -> (Token, usize) {
    let mut at = open + 1;
    while at < bytes.len() {
        match &bytes[at..] {
            [b'"', b'"', ..] => at += 2,
            [b'"', ..] => return (Token::Quoted, at + 1),
            _ => at += 1,
        }
    }
    (Token::Unclear, bytes.len())
}

/// `$1`, `$$…$$`, `$tag$…$tag$`, or a lone dollar sign.
fn dollar(text: &str) -> (Token, usize) {
    let behind = &text[1..];
    let digits = len_while(behind, |c| c.is_ascii_digit());
    if digits > 0 {
        let token = if digits > MAX_PARAMETER_DIGITS { Token::Number } else { Token::Parameter };
        return (token, 1 + digits);
    }
    let tag = len_while(behind, |c| continues_word(c) && c != '$');
    if !behind[tag..].starts_with('$') {
        return (Token::Other, 1);
    }
    let (delimiter, body) = text.split_at(tag + 2);
    match body.find(delimiter) {
        Some(end) => (Token::Literal, delimiter.len() + end + delimiter.len()),
        None => (Token::Unclear, text.len()),
    }
}

/// Integers, decimals, exponents, 0x, underscores; letters that are glued to it belong to it, for
/// they are no identifier that anybody meant.
fn number(bytes: &[u8]) -> (Token, usize) {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let following = bytes.get(at + 1);
        let goes_on = match byte {
            b'.' => following != Some(&b'.'),
            b'+' | b'-' => {
                matches!(bytes[at - 1], b'e' | b'E') && following.is_some_and(u8::is_ascii_digit)
            }
            _ => byte.is_ascii_alphanumeric() || *byte == b'_',
        };
        if !goes_on {
            break;
        }
        at += 1;
    }
    (Token::Number, at)
}

/// A word, or the string or quoted identifier that it is the prefix of.
fn word(text: &str) -> (Token, usize) {
    let len = len_while(text, continues_word);
    let bytes = text.as_bytes();
    match (&text[..len], bytes.get(len), bytes.get(len + 1)) {
        ("e" | "E", Some(b'\''), _) => string(bytes, len, Backslash::Escapes),
        ("b" | "B" | "x" | "X" | "n" | "N", Some(b'\''), _) => {
            string(bytes, len, Backslash::IsUnclear)
        }
        ("u" | "U", Some(b'&'), Some(b'\'')) => string(bytes, len + 1, Backslash::IsUnclear),
        ("u" | "U", Some(b'&'), Some(b'"')) => quoted(bytes, len + 1),
        _ => (Token::Word, len),
    }
}
