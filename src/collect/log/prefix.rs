//! `log_line_prefix`: taken apart once, and laid over each line of a stderr log to find who it is
//! about and where the message begins.
//!
//! The server writes values without quoting them, so a line can be read in more than one way where
//! a client puts separators into its `application_name`; the shortest values that fit are taken.
//! jsonlog and csvlog do not have that weakness. Source of the rules: `log_status_format` in
//! elog.c, 13 to 18.

use super::entry::Field;
use super::labels;

/// A line that needs more attempts than this is not of this prefix, or was made to be tried.
const MAX_STEPS: usize = 4_096;

/// Host names have at most 255 characters, all other values less.
const MAX_VALUE_BYTES: usize = 300;

/// Without a prefix the severity is looked for so far into a line.
const MAX_PREFIX_BYTES: usize = 512;

/// What a session that has no name for something writes in its place.
const UNKNOWN: &str = "[unknown]";

/// A `log_line_prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// `%p` and the like, and whether it is padded with spaces.
    Value(char, bool),
    /// `%q`: what is no session ends here.
    Stop,
}

/// What a prefix told, and the rest of the line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told<'a> {
    pub(super) values: Vec<(Field, &'a str)>,
    pub(super) rest: &'a str,
}

impl Prefix {
    /// Takes the setting apart. As the server does, it passes over what it does not know.
    pub(super) fn new(setting: &str) -> Self {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut chars = setting.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                literal.push(c);
                continue;
            }
            let mut padded = false;
            while chars.next_if(|c| matches!(c, '-' | '0'..='9')).is_some() {
                padded = true;
            }
            let piece = match chars.next() {
                Some('%') => {
                    literal.push('%');
                    continue;
                }
                Some('q') => Piece::Stop,
                Some(c) if VALUES.contains(c) => Piece::Value(c, padded),
                Some(_) => continue,
                None => break,
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Self(pieces)
    }

    /// Lays it over a line. What follows must open an entry or go on with one.
    pub(super) fn take<'a>(&self, line: &'a str) -> Option<Told<'a>> {
        let mut values = Vec::new();
        let mut steps = MAX_STEPS;
        let rest = lay(&self.0, line, &mut values, &mut steps)?;
        values.retain(|(_, value)| !value.is_empty() && *value != UNKNOWN);
        Some(Told { values, rest })
    }
}

/// Where the message begins if the prefix is not known: behind the first word that could open an
/// entry. Nothing is told of whom it is about.
pub(super) fn without(line: &str) -> Option<Told<'_>> {
    let separators = line.match_indices(": ").take_while(|(at, _)| *at < MAX_PREFIX_BYTES);
    for (at, _) in separators {
        let is_of_word = |c: char| c.is_alphabetic() || c.is_ascii_digit();
        let label = line[..at].trim_end_matches(' ');
        let start = label.trim_end_matches(is_of_word).len();
        if is_message(&line[start..]) {
            return Some(Told { values: Vec::new(), rest: &line[start..] });
        }
    }
    None
}

const VALUES: &str = "audbrhLpPtmnicelsvxQ";

fn is_message(text: &str) -> bool {
    labels::opening(text).is_some() || labels::part(text).is_some()
}

/// What is left of the line behind the pieces. `steps` bounds the attempts.
fn lay<'a>(
    pieces: &[Piece],
    text: &'a str,
    values: &mut Vec<(Field, &'a str)>,
    steps: &mut usize,
) -> Option<&'a str> {
    *steps = steps.checked_sub(1)?;
    let Some((piece, later)) = pieces.split_first() else {
        return is_message(text).then_some(text);
    };
    match piece {
        Piece::Literal(literal) => lay(later, text.strip_prefix(literal.as_str())?, values, steps),
        Piece::Stop => lay(later, text, values, steps).or_else(|| is_message(text).then_some(text)),
        Piece::Value(name, padded) => match shape(*name) {
            Shape::Free(field) => lay_free(field, later, text, values, steps),
            shape => lay_shaped(shape, *padded, later, text, values, steps),
        },
    }
}

fn lay_free<'a>(
    field: Option<Field>,
    later: &[Piece],
    text: &'a str,
    values: &mut Vec<(Field, &'a str)>,
    steps: &mut usize,
) -> Option<&'a str> {
    let most = text.floor_char_boundary(MAX_VALUE_BYTES);
    let ends = (0..=most).filter(|end| text.is_char_boundary(*end));
    for end in ends {
        let (value, after) = text.split_at(end);
        if let Some(Piece::Literal(literal)) = later.first()
            && !after.starts_with(literal.as_str())
        {
            continue;
        }
        if let Some(rest) = lay(later, after, values, steps) {
            values.extend(field.map(|field| (field, value.trim_matches(' '))));
            return Some(rest);
        }
        if *steps == 0 {
            return None;
        }
    }
    None
}

fn lay_shaped<'a>(
    shape: Shape,
    padded: bool,
    later: &[Piece],
    text: &'a str,
    values: &mut Vec<(Field, &'a str)>,
    steps: &mut usize,
) -> Option<&'a str> {
    let text = if padded { text.trim_start_matches(' ') } else { text };
    let (field, len) = shape.len(text)?;
    let (value, after) = text.split_at(len);
    let spaces = if padded { after.len() - after.trim_start_matches(' ').len() } else { 0 };
    // A space may be padding, or the separator behind it.
    let rest = (0..=spaces).rev().find_map(|count| lay(later, &after[count..], values, steps))?;
    values.extend(field.map(|field| (field, value)));
    Some(rest)
}

#[derive(Clone, Copy)]
enum Shape {
    /// Anything, also nothing.
    Free(Option<Field>),
    /// At least one of these.
    Of(Option<Field>, fn(char) -> bool),
    /// Any number of these.
    MaybeOf(fn(char) -> bool),
    /// `2026-11-21 15:58:05.123 UTC`, with or without the fraction.
    Time,
    /// Five digits or capitals.
    Sqlstate,
}

fn shape(name: char) -> Shape {
    let digit = |c: char| c.is_ascii_digit();
    match name {
        'a' => Shape::Free(Some(Field::Application)),
        'u' => Shape::Free(Some(Field::Role)),
        'd' => Shape::Free(Some(Field::Database)),
        'b' => Shape::Free(Some(Field::BackendType)),
        'i' => Shape::Free(Some(Field::Title)),
        'p' => Shape::Of(Some(Field::Pid), digit),
        'l' | 'x' => Shape::Of(None, digit),
        'n' => Shape::Of(None, |c| c.is_ascii_digit() || c == '.'),
        'c' => Shape::Of(None, |c| c.is_ascii_hexdigit() || c == '.'),
        'P' => Shape::MaybeOf(digit),
        'Q' => Shape::MaybeOf(|c| c.is_ascii_digit() || c == '-'),
        'v' => Shape::MaybeOf(|c| c.is_ascii_digit() || c == '/'),
        't' | 'm' | 's' => Shape::Time,
        'e' => Shape::Sqlstate,
        _ => Shape::Free(None),
    }
}

impl Shape {
    /// How much of the text it takes, and what that is.
    fn len(&self, text: &str) -> Option<(Option<Field>, usize)> {
        let run = |is: fn(char) -> bool| text.find(|c| !is(c)).unwrap_or(text.len());
        match self {
            Self::Free(field) => Some((*field, 0)),
            Self::Of(field, is) => Some((*field, run(*is))).filter(|(_, len)| 0 < *len),
            Self::MaybeOf(is) => Some((None, run(*is))),
            Self::Time => time(text).map(|len| (None, len)),
            Self::Sqlstate => {
                let code = text.get(..5)?;
                let is_of_code = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase();
                code.chars().all(is_of_code).then_some((Some(Field::Sqlstate), 5))
            }
        }
    }
}

/// How long the time at the beginning of a text is, its zone included.
fn time(text: &str) -> Option<usize> {
    if !is_time(text.as_bytes()) {
        return None;
    }
    let rest = &text[TIME.len()..];
    let fraction = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let zone = rest[fraction..].strip_prefix(' ')?;
    // `UTC`, or `+0330` where a zone has no name.
    let signed = zone.strip_prefix(['+', '-']);
    let is_of_zone: fn(char) -> bool =
        if signed.is_some() { |c| c.is_ascii_digit() } else { |c| c.is_ascii_alphabetic() };
    let name = signed.unwrap_or(zone);
    let name_len = name.find(|c| !is_of_zone(c)).unwrap_or(name.len());
    (0 < name_len).then_some(text.len() - name.len() + name_len)
}

const TIME: &str = "2026-11-21 15:58:05";

/// Whether this begins with a date and a time of day.
pub(super) fn is_time(bytes: &[u8]) -> bool {
    let shaped = |(byte, model): (&u8, u8)| match model {
        b'0'..=b'9' => byte.is_ascii_digit(),
        _ => *byte == model,
    };
    TIME.len() <= bytes.len() && bytes.iter().zip(TIME.bytes()).all(shaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a prefix tells of a line, as `field=value` and the rest.
    fn told(prefix: &str, line: &str) -> String {
        match Prefix::new(prefix).take(line) {
            None => "nothing".to_owned(),
            Some(Told { mut values, rest }) => {
                values.reverse();
                let values: Vec<_> = values.iter().map(|(f, v)| format!("{f:?}={v}")).collect();
                format!("{} | {rest}", values.join(" "))
            }
        }
    }

    #[test]
    fn prefixes_that_are_in_use_are_read() {
        let cases = [
            // PostgreSQL's default, Debian's, that of Amazon RDS, pgBadger's.
            ("%m [%p] ", "2026-11-21 15:58:05.123 UTC [77] LOG:  x", "Pid=77 | LOG:  x"),
            (
                "%m [%p] %q%u@%d ",
                "2026-11-21 15:58:05.123 CET [77] app@shop FATAL:  x",
                "Pid=77 Role=app Database=shop | FATAL:  x",
            ),
            ("%m [%p] %q%u@%d ", "2026-11-21 15:58:05.123 CET [7] LOG:  x", "Pid=7 | LOG:  x"),
            (
                "%m [%p] %q%u@%d ",
                "2026-11-21 15:58:05.123 +03 [7] [unknown]@[unknown] LOG:  x",
                "Pid=7 | LOG:  x",
            ),
            (
                "%t:%r:%u@%d:[%p]:",
                "2021-10-16 18:09:32 UTC:172.31.9.74(60264):postgres@ocr:[12645]:ERROR:  x",
                "Role=postgres Database=ocr Pid=12645 | ERROR:  x",
            ),
            (
                "%t:%r:%u@%d:[%p]:",
                "2021-10-16 18:09:32 UTC::@:[12645]:LOG:  x",
                "Pid=12645 | LOG:  x",
            ),
            (
                "%t [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ",
                "2026-11-21 15:58:05 UTC [9]: [3-1] user=app,db=shop,app=web 2,client=10.0.0.1 DETAIL:  x",
                "Pid=9 Role=app Database=shop Application=web 2 | DETAIL:  x",
            ),
            (
                "%-10u|%5p|%e|%b|%i ",
                "app       |   77|53300|client backend|authentication FATAL:  x",
                "Role=app Pid=77 Sqlstate=53300 BackendType=client backend \
                 Title=authentication | FATAL:  x",
            ),
            ("%c %n %v %x %Q %% %P%y", "6560.2f 1732.123 3/12 0 -77 % 12LOG:  x", " | LOG:  x"),
            ("", "LOG:  x", " | LOG:  x"),
            ("%m [%p] ", "pg_dump: error: x", "nothing"),
            ("%m [%p] ", "2026-11-21 15:58:05.123 UTC [77] nothing", "nothing"),
        ];
        for (prefix, line, expected) in cases {
            assert_eq!(told(prefix, line), expected, "{prefix}");
        }
    }

    #[test]
    fn a_prefix_and_a_line_made_to_be_tried_end() {
        let line = "a".repeat(100_000);
        assert_eq!(told("%a%u%d%h%b%a%u%d%h", &line), "nothing");
        assert_eq!(told("%a,%a,%a,%a,%a,%a,%a", &",a".repeat(10_000)), "nothing");
    }

    #[test]
    fn the_message_is_found_without_a_prefix() {
        let cases = [
            ("2026-11-21 15:58:05.123 UTC [77] app@shop FATAL:  sorry", Some("FATAL:  sorry")),
            ("user: app ОШИБКА:  x", Some("ОШИБКА:  x")),
            ("x [3] DETAIL:  Process 1", Some("DETAIL:  Process 1")),
            ("x [3] ASTUCE :  y", Some("ASTUCE :  y")),
            ("rsync: connection failed", None),
        ];
        for (line, expected) in cases {
            assert_eq!(without(line).map(|told| told.rest), expected, "{line}");
        }
    }
}
