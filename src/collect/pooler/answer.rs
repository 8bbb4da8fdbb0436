//! What a console says to one command: rows as text, columns by name.
//!
//! Every version of every pooler has columns of its own in an order of its own, so nothing is read
//! by its place. Only the columns that somebody reads are kept. Filled by [`super::console`], read
//! by [`super::parts`] and [`super::sockets`].

use std::str::FromStr;

/// Names are 63 bytes in Postgres, and 128 in PgBouncer. What a client calls itself can be longer.
const MAX_TEXT_CHARS: usize = 256;

/// Stands for what is no UTF-8: a client's `application_name` can be any bytes.
const NOT_UTF8: &str = "(not UTF-8)";

/// The rows of one answer, as far as they are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Wanted columns, each with its place in `rows`, if the answer has it.
    columns: Vec<(&'static str, bool)>,
    rows: Vec<Vec<Option<String>>>,
}

/// Why an answer cannot be used: a sentence that ends one about the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unusable(pub(super) String);

impl Answer {
    /// One without rows, of which these columns are there.
    pub(super) fn with(columns: Vec<(&'static str, bool)>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row: a value for each wanted column. `Err` stands for what is no UTF-8.
    pub(super) fn push<'a>(&mut self, values: impl Iterator<Item = Result<Option<&'a str>, ()>>) {
        let cut = |text: &str| text.chars().take(MAX_TEXT_CHARS).collect::<String>();
        let values = values.map(|value| match value {
            Ok(text) => text.map(cut),
            Err(()) => Some(NOT_UTF8.to_owned()),
        });
        self.rows.push(values.collect());
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has this column.
    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|(name, there)| *name == column && *there)
    }

    /// An error unless it has all of these.
    pub(super) fn must_have(&self, columns: &[&str]) -> Result<(), Unusable> {
        let missing: Vec<&str> = columns.iter().copied().filter(|c| !self.has(c)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (word, missing) = (if missing.len() == 1 { "column" } else { "columns" }, missing);
        Err(Unusable(format!("has no {word} {}", missing.join(" and "))))
    }

    /// The rows, one after another.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|values| Row { answer: self, values })
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    answer: &'a Answer,
    values: &'a [Option<String>],
}

impl<'a> Row<'a> {
    /// Text; `None` for NULL and for a column that is not there.
    pub(super) fn text(&self, column: &str) -> Option<&'a str> {
        let place = self.answer.columns.iter().position(|(name, _)| *name == column)?;
        self.values.get(place)?.as_deref()
    }

    /// Text that says something: neither NULL nor empty.
    pub(super) fn some_text(&self, column: &str) -> Option<&'a str> {
        self.text(column).filter(|text| !text.is_empty())
    }

    /// A number, which comes as text whatever its type is, and with spaces before it in some
    /// columns. Nothing, and what is below zero, is not said.
    pub(super) fn number<T: FromStr>(&self, column: &str) -> Result<Option<T>, Unusable> {
        let Some(text) = self.text(column).map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        if let Ok(number) = text.parse() {
            return Ok(Some(number));
        }
        // A whole number with zeros behind the point, as a numeric may come.
        let whole = text.split_once('.').filter(|(_, rest)| rest.bytes().all(|b| b == b'0'));
        if let Some(number) = whole.and_then(|(whole, _)| whole.parse().ok()) {
            return Ok(Some(number));
        }
        let is_below_zero =
            text.strip_prefix('-').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
        if is_below_zero {
            return Ok(None);
        }
        Err(Unusable(format!("has no number for {column}: {text:?}")))
    }

    /// A limit, which is none where it is 0.
    pub(super) fn limit(&self, column: &str) -> Result<Option<u32>, Unusable> {
        Ok(self.number(column)?.filter(|limit| *limit > 0))
    }

    /// `1`, `t`, `true` or `yes`.
    pub(super) fn flag(&self, column: &str) -> bool {
        matches!(self.text(column), Some("1" | "t" | "true" | "yes"))
    }
}

/// An answer from a table as people read it: the columns on its first line, a row on each other,
/// with `|` between them; `\N` is NULL. For tests.
#[cfg(test)]
pub(super) fn table(wanted: &[&'static str], text: &str) -> Answer {
    let mut lines = text.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let place = |name: &str| header.iter().rposition(|column| *column == name);
    let columns = wanted.iter().map(|name| (*name, place(name).is_some())).collect();
    let mut answer = Answer::with(columns);
    for row in lines.filter(|row| row.len() > 1 || !row[0].is_empty()) {
        answer.push(wanted.iter().map(|name| {
            let value = place(name).map(|place| row[place]).filter(|value| *value != "\\N");
            Ok(value)
        }));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_their_names_wherever_they_are() {
        let wanted = ["user", "cl_active", "sv_new"];
        let answer = table(&wanted, "cl_active | strange | user\n 3 | x | app\n 4 | x | \\N");
        assert!(answer.has("user") && !answer.has("sv_new") && !answer.has("strange"));
        let said = answer.must_have(&["user", "sv_new", "host"]).unwrap_err().0;
        assert_eq!(said, "has no columns sv_new and host");
        let rows: Vec<Row<'_>> = answer.rows().collect();
        assert_eq!((rows[0].text("user"), rows[1].text("user")), (Some("app"), None));
        assert_eq!(rows[0].number::<u32>("cl_active"), Ok(Some(3)));
        assert_eq!(rows[0].number::<u32>("sv_new"), Ok(None));
    }

    #[test]
    fn of_two_columns_of_one_name_the_last_counts() {
        let answer = table(&["used_clients"], "used_clients | pools | used_clients\n0 | 1 | 7");
        assert_eq!(answer.rows().next().unwrap().number::<u32>("used_clients"), Ok(Some(7)));
    }

    #[test]
    fn a_number_is_read_or_said_to_be_none() {
        let number = |text: &str| {
            let answer = table(&["n"], &format!("n\n{text}"));
            answer.rows().next().unwrap().number::<u64>("n")
        };
        assert_eq!(number("        20"), Ok(Some(20)));
        assert_eq!(number("18446744073709551615"), Ok(Some(u64::MAX)));
        assert_eq!(number("12.000"), Ok(Some(12)));
        assert_eq!(number("\\N"), Ok(None));
        assert_eq!(number("-1"), Ok(None));
        for garbage in ["many", "1e3", "0x10", "--", "18446744073709551616", "1.5"] {
            let said = number(garbage).unwrap_err().0;
            assert_eq!(said, format!("has no number for n: {garbage:?}"));
        }
    }

    #[test]
    fn text_is_cut_and_what_is_no_utf8_is_called_so() {
        let mut answer = Answer::with(vec![("a", true), ("b", true)]);
        let long = "é".repeat(MAX_TEXT_CHARS + 1);
        answer.push([Ok(Some(long.as_str())), Err(())].into_iter());
        let row = answer.rows().next().unwrap();
        assert_eq!(row.text("a").unwrap().chars().count(), MAX_TEXT_CHARS);
        assert_eq!(row.text("b"), Some(NOT_UTF8));
    }
}
