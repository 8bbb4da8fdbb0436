//! The text in which applications show their metrics: Prometheus' text format 0.0.4 and
//! OpenMetrics 1.0, as exporters really write them.
//!
//! Taken in pieces as they arrive and line by line, so that an answer of any size needs no more
//! memory than its longest line. A sample whose name nobody asked for is never taken apart: its
//! labels cost nothing. What the samples mean is `app_pool::scrape`'s, which calls this.
//!
//! Sources: `docs/instrumenting/exposition_formats.md` and `model/textparse` of Prometheus, the
//! OpenMetrics specification 1.0.0. Types, help and exemplars are passed over.

use std::borrow::Cow;
use std::fmt;

/// Micrometer and client_golang write lines of some hundred bytes; an exemplar adds 128 characters.
/// Beyond this it is no line of metrics, and holding it would cost memory for nothing.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// Prometheus' own users are told to keep below 30 labels a sample.
pub const MAX_LABELS: usize = 64;

/// A large Java application shows some ten thousand lines.
pub const MAX_LINES: u32 = 1_000_000;

/// What ends OpenMetrics; what follows is not read.
const END: &[u8] = b"# EOF";

/// Why a text cannot be read as metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A line is no sample and no comment.
    Line {
        /// Counted from 1.
        number: u32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A line is longer than [`MAX_LINE_BYTES`].
    LongLine {
        /// Counted from 1.
        number: u32,
    },
    /// There are more than [`MAX_LINES`].
    ManyLines,
    /// It says that it is OpenMetrics, and has no `# EOF`: the rest is missing.
    Torn,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { number, why } => write!(f, "line {number} is no metric: {why}"),
            Self::LongLine { number } => {
                write!(f, "line {number} is longer than {} kB", MAX_LINE_BYTES / 1024)
            }
            Self::ManyLines => write!(f, "there are more than {MAX_LINES} lines"),
            Self::Torn => f.write_str("it ends without # EOF: the rest is missing"),
        }
    }
}

/// Takes a text in pieces and gives out its samples.
#[derive(Debug, Default)]
pub struct Feed {
    /// The line that has not ended yet.
    partial: Vec<u8>,
    lines: u32,
    samples: u32,
    ended: bool,
}

impl Feed {
    /// Nothing was taken yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece. `take` sees each sample whose line is complete, and may say what is
    /// wrong with it.
    pub fn push(
        &mut self,
        mut piece: &[u8],
        take: &mut impl FnMut(&Sample<'_>) -> Result<(), &'static str>,
    ) -> Result<(), Fault> {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            piece = rest;
            if self.partial.is_empty() {
                self.line(line, take)?;
            } else {
                self.keep(line)?;
                let whole = std::mem::take(&mut self.partial);
                self.line(&whole, take)?;
            }
        }
        self.keep(piece)
    }

    /// What was left without a newline is a line too; OpenMetrics must have said that it ended.
    /// Says how many samples there were.
    pub fn finish(
        mut self,
        must_end: bool,
        take: &mut impl FnMut(&Sample<'_>) -> Result<(), &'static str>,
    ) -> Result<u32, Fault> {
        let last = std::mem::take(&mut self.partial);
        if !last.is_empty() {
            self.line(&last, take)?;
        }
        if must_end && !self.ended { Err(Fault::Torn) } else { Ok(self.samples) }
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), Fault> {
        if self.partial.len() + piece.len() > MAX_LINE_BYTES {
            return Err(Fault::LongLine { number: self.lines + 1 });
        }
        self.partial.extend_from_slice(piece);
        Ok(())
    }

    fn line(
        &mut self,
        line: &[u8],
        take: &mut impl FnMut(&Sample<'_>) -> Result<(), &'static str>,
    ) -> Result<(), Fault> {
        if self.lines == MAX_LINES {
            return Err(Fault::ManyLines);
        }
        self.lines += 1;
        let number = self.lines;
        if line.len() > MAX_LINE_BYTES {
            return Err(Fault::LongLine { number });
        }
        let line = line.trim_ascii();
        if line == END {
            self.ended = true;
        }
        if self.ended || line.is_empty() || line[0] == b'#' {
            return Ok(());
        }
        let taken = Sample::of(line).and_then(|sample| take(&sample));
        self.samples += 1;
        taken.map_err(|why| Fault::Line { number, why })
    }
}

/// One sample of which only the name is known yet.
#[derive(Debug)]
pub struct Sample<'a> {
    name: Cow<'a, str>,
    /// What stands behind the name.
    rest: &'a [u8],
    /// Whether that is inside of the braces: the name was.
    inside: bool,
}

/// The labels of a sample, in their order.
pub type Labels<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

impl<'a> Sample<'a> {
    /// Begins to read a line that is no comment.
    fn of(line: &'a [u8]) -> Result<Self, &'static str> {
        if line[0] == b'{' {
            return Self::with_name_inside(&line[1..]);
        }
        let end = line.iter().position(|byte| !is_in_name(*byte)).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let begins_well = name.first().is_some_and(|byte| !byte.is_ascii_digit());
        if !begins_well || !matches!(rest.first(), Some(b' ' | b'\t' | b'{')) {
            let is_markup = line[0] == b'<';
            return Err(if is_markup { "it looks like HTML" } else { "it has no name and value" });
        }
        let name = std::str::from_utf8(name).map_err(|_| NOT_UTF8)?;
        Ok(Self { name: Cow::Borrowed(name), rest, inside: false })
    }

    /// The form for names in UTF-8: `{"db.client.connection.count", state="used"} 3`.
    fn with_name_inside(rest: &'a [u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(rest).map_err(|_| NOT_UTF8)?;
        let mut cursor = Cursor(text.trim_start());
        let name = cursor.quoted()?;
        cursor.skip_blanks();
        if !cursor.skip(',') && !cursor.0.starts_with('}') {
            return Err("its name in quotes is followed by neither a comma nor a brace");
        }
        Ok(Self { name, rest: cursor.0.as_bytes(), inside: true })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its labels and its value. A timestamp and an exemplar are looked at and left out.
    pub fn read(&self) -> Result<(Labels<'a>, f64), &'static str> {
        let mut cursor = Cursor(std::str::from_utf8(self.rest).map_err(|_| NOT_UTF8)?);
        cursor.skip_blanks();
        let labels = if self.inside || cursor.skip('{') { cursor.labels()? } else { Labels::new() };
        cursor.skip_blanks();
        let value = cursor.word().parse::<f64>().map_err(|_| "its value is no number")?;
        cursor.skip_blanks();
        if !cursor.0.is_empty() && !cursor.0.starts_with('#') {
            cursor.word().parse::<f64>().map_err(|_| "its timestamp is no number")?;
            cursor.skip_blanks();
        }
        if cursor.0.is_empty() || cursor.0.starts_with('#') {
            Ok((labels, value))
        } else {
            Err("something follows its timestamp")
        }
    }
}

/// A metric and the labels that a sample of it must have, as `name{state="used"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The metric's name.
    pub metric: String,
    /// Labels and their values.
    pub labels: Vec<(String, String)>,
}

impl Selector {
    /// Takes it apart, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, braces) = match text.find('{') {
            Some(at) => (text[..at].trim(), Some(&text[at + 1..])),
            None => (text.trim(), None),
        };
        let begins_well = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        // With dots too: names are compared with dots as underscores.
        if !begins_well || !name.bytes().all(|byte| is_in_name(byte) || byte == b'.') {
            return Err("it does not begin with the name of a metric");
        }
        let mut labels = Vec::new();
        if let Some(braces) = braces {
            let mut cursor = Cursor(braces);
            let owned = |(name, value): (Cow<'_, str>, Cow<'_, str>)| (plain(&name), value.into());
            labels.extend(cursor.labels()?.into_iter().map(owned));
            if !cursor.0.trim().is_empty() {
                return Err("something follows its labels");
            }
        }
        Ok(Self { metric: plain(name), labels })
    }
}

/// A name as exporters write it that know no UTF-8 names: dots become underscores.
pub fn plain(name: &str) -> String {
    name.replace('.', "_")
}

const NOT_UTF8: &str = "it is no UTF-8 text";

fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

/// What is left of a line.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn skip(&mut self, expected: char) -> bool {
        let rest = self.0.strip_prefix(expected);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Up to the next blank.
    fn word(&mut self) -> &'a str {
        let (word, rest) = self.0.split_at(self.0.find([' ', '\t']).unwrap_or(self.0.len()));
        self.0 = rest;
        word
    }

    /// Labels and the brace behind them. The last one may be followed by a comma, as simpleclient
    /// writes it.
    fn labels(&mut self) -> Result<Labels<'a>, &'static str> {
        let mut labels = Labels::new();
        loop {
            self.skip_blanks();
            if self.skip('}') {
                return Ok(labels);
            }
            if labels.len() == MAX_LABELS {
                return Err("it has more than 64 labels");
            }
            let name = self.label_name()?;
            self.skip_blanks();
            if !self.skip('=') {
                return Err("a label has no value");
            }
            self.skip_blanks();
            labels.push((name, self.quoted()?));
            self.skip_blanks();
            if !self.skip(',') && !self.0.starts_with('}') {
                return Err("a label is followed by neither a comma nor a brace");
            }
        }
    }

    fn label_name(&mut self) -> Result<Cow<'a, str>, &'static str> {
        if self.0.starts_with('"') {
            return self.quoted();
        }
        let is_outside = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'_';
        let end = self.0.bytes().position(is_outside).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        if name.is_empty() {
            return Err("a label has no name");
        }
        self.0 = rest;
        Ok(Cow::Borrowed(name))
    }

    /// What stands in quotes. Escapes are `\\`, `\"` and `\n`; any other is two characters.
    fn quoted(&mut self) -> Result<Cow<'a, str>, &'static str> {
        let Some(inside) = self.0.strip_prefix('"') else {
            return Err("a name or value does not stand in quotes");
        };
        let mut unescaped = String::new();
        let mut from = 0;
        let mut bytes = inside.bytes().enumerate();
        while let Some((at, byte)) = bytes.next() {
            if byte == b'"' {
                self.0 = &inside[at + 1..];
                if from == 0 {
                    return Ok(Cow::Borrowed(&inside[..at]));
                }
                unescaped.push_str(&inside[from..at]);
                return Ok(Cow::Owned(unescaped));
            }
            if byte == b'\\' {
                unescaped.push_str(&inside[from..at]);
                let (escaped, length) = match bytes.next() {
                    Some((_, b'n')) => ("\n", 2),
                    Some((_, b'"')) => ("\"", 2),
                    Some((_, b'\\')) => ("\\", 2),
                    // The character behind it is taken with what follows.
                    _ => ("\\", 1),
                };
                unescaped.push_str(escaped);
                from = at + length;
            }
        }
        Err("a quote is not closed")
    }
}

#[cfg(test)]
mod tests;
