//! Statements and their rows, over an ordinary connection and over a walsender's.
//!
//! A walsender takes simple queries alone: nothing prepared, no parameters, and all values as text,
//! which the driver gives up where it is not UTF-8. So there each row travels as one value, the
//! binary form of its record in hexadecimal digits (rowtypes.c, `record_send`): the bytes of each
//! column are those that the extended protocol carries, whatever is set for dates or floats, and
//! are read by the same code. It is planned anew each time, which an emergency may cost.
//!
//! [`super::poll`] and [`super::names`] read through this, and see no difference.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use plimsoll_core::reading::{Failure, FailureKind};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::collect::login::{Way, failure};

/// A connection that is logged in, and what can be sent over it.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    way: Way,
}

/// A statement of one connection.
#[derive(Debug)]
pub(super) enum Statement {
    /// Planned once.
    Prepared(tokio_postgres::Statement),
    /// Sent as it is, each time.
    Simple { sql: &'static str, columns: Arc<[String]> },
}

/// What a statement's only parameter, `$1`, stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parameter<'a> {
    None,
    Oids(&'a [u32]),
    Pids(&'a [i32]),
    Count(i64),
}

/// A row, read by the names of its columns: soonest in the order of the statement.
#[derive(Debug)]
pub(super) struct Row {
    values: Values,
    /// The column after the one that was read last: most often the next that is asked for. Seeking
    /// each by its name was a tenth of what a poll cost us.
    next: Cell<usize>,
}

#[derive(Debug)]
enum Values {
    Prepared(tokio_postgres::Row),
    Simple(Record),
}

/// A row in the binary form of a record: the number of columns, then for each the OID of its type,
/// its length (−1 for NULL) and its bytes.
#[derive(Debug)]
pub(super) struct Record {
    columns: Arc<[String]>,
    bytes: Vec<u8>,
    /// The type, and where the value lies; `None` for NULL.
    fields: Vec<(u32, Option<Range<usize>>)>,
}

/// Why a statement gave no rows.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatementError {
    /// The connection or the server.
    #[error("{}", failure::chain(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// A row is not what was asked for.
    #[error("reading {what}: {why}")]
    Row { what: String, why: String },
}

impl StatementError {
    /// Whether the connection is gone with it.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Postgres(error) => failure::ends_connection(error),
            Self::Row { .. } => false,
        }
    }

    /// What the judge is told of it.
    pub(super) fn failure(&self, doing: &str) -> Failure {
        match self {
            Self::Postgres(error) => failure::of_statement(error, doing),
            Self::Row { .. } => Failure {
                kind: FailureKind::Unsupported,
                text: format!("{doing}: {self}"),
                sqlstate: None,
            },
        }
    }
}

impl Connection {
    pub(super) fn new(client: Client, way: Way) -> Self {
        Self { client, way }
    }

    /// Carries out statements that give no rows.
    pub(super) async fn execute(&self, sql: &str) -> Result<(), StatementError> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Prepares a statement, or where that cannot be, asks for the names of its columns. On a fresh
    /// connection either reads catalogs.
    pub(super) async fn prepare(&self, sql: &'static str) -> Result<Statement, StatementError> {
        if self.way == Way::Ordinary {
            return Ok(Statement::Prepared(self.client.prepare(sql).await?));
        }
        let describing = format!("SELECT * FROM ({}\n) AS r LIMIT 0", sql.replace("$1", "NULL"));
        for message in self.client.simple_query(&describing).await? {
            if let SimpleQueryMessage::RowDescription(columns) = message {
                let columns = columns.iter().map(|column| column.name().to_owned()).collect();
                return Ok(Statement::Simple { sql, columns });
            }
        }
        Err(wrong("a description of rows", "there is none"))
    }

    /// Prepares a statement and carries it out once.
    pub(super) async fn query_once(
        &self,
        sql: &'static str,
        parameter: Parameter<'_>,
    ) -> Result<Vec<Row>, StatementError> {
        self.query(&self.prepare(sql).await?, parameter).await
    }

    /// Carries out a statement of this connection.
    pub(super) async fn query(
        &self,
        statement: &Statement,
        parameter: Parameter<'_>,
    ) -> Result<Vec<Row>, StatementError> {
        let (sql, columns) = match statement {
            Statement::Prepared(statement) => {
                let rows = match parameter {
                    Parameter::None => self.client.query(statement, &[]).await?,
                    Parameter::Oids(oids) => self.client.query(statement, &[&oids]).await?,
                    Parameter::Pids(pids) => self.client.query(statement, &[&pids]).await?,
                    Parameter::Count(count) => self.client.query(statement, &[&count]).await?,
                };
                return Ok(rows.into_iter().map(|row| Row::new(Values::Prepared(row))).collect());
            }
            Statement::Simple { sql, columns } => (sql, columns),
        };
        let sql = sql.replace("$1", &parameter.literal());
        let sql = format!(
            "SELECT pg_catalog.encode(pg_catalog.record_send(r), 'hex') FROM ({sql}\n) AS r"
        );
        let mut rows = Vec::new();
        for message in self.client.simple_query(&sql).await? {
            if let SimpleQueryMessage::Row(row) = message {
                let digits = row.try_get(0)?.unwrap_or_default();
                let record = Record::read(digits, Arc::clone(columns));
                let record = record.ok_or_else(|| wrong("a record", "it is cut short"))?;
                rows.push(Row::new(Values::Simple(record)));
            }
        }
        Ok(rows)
    }

    /// The same for a statement that gives exactly one row.
    pub(super) async fn query_one(&self, statement: &Statement) -> Result<Row, StatementError> {
        let mut rows = self.query(statement, Parameter::None).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(wrong("one row", "there is another number of them")),
        }
    }
}

impl Parameter<'_> {
    /// As SQL has it: digits and commas, nothing that needs quoting.
    fn literal(self) -> String {
        match self {
            Self::None => "NULL".to_owned(),
            Self::Oids(oids) => array(oids),
            Self::Pids(pids) => array(pids),
            Self::Count(count) => count.to_string(),
        }
    }
}

fn array(numbers: &[impl ToString]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!("'{{{}}}'", numbers.join(","))
}

impl Row {
    fn new(values: Values) -> Self {
        Self { values, next: Cell::new(0) }
    }

    /// The value of a column.
    pub(super) fn get<'a, T: FromSql<'a>>(&'a self, column: &str) -> Result<T, StatementError> {
        let next = self.next.get();
        let index = if self.name(next) == Some(column) {
            next
        } else {
            let mut names = (0..).map_while(|index| self.name(index));
            names.position(|name| name == column).ok_or_else(|| wrong(column, "there is none"))?
        };
        self.next.set(index + 1);
        match &self.values {
            Values::Prepared(row) => Ok(row.try_get(index)?),
            Values::Simple(record) => record.get(index).map_err(|why| wrong(column, &why)),
        }
    }

    fn name(&self, index: usize) -> Option<&str> {
        match &self.values {
            Values::Prepared(row) => row.columns().get(index).map(tokio_postgres::Column::name),
            Values::Simple(record) => record.columns.get(index).map(String::as_str),
        }
    }
}

impl Record {
    /// From two digits a byte; `None` if it is not what a record is.
    fn read(digits: &str, columns: Arc<[String]>) -> Option<Self> {
        let bytes = bytes(digits)?;
        let mut at = 0;
        let word = |at: &mut usize| {
            let word = bytes.get(*at..*at + 4)?.try_into().ok()?;
            *at += 4;
            Some(u32::from_be_bytes(word))
        };
        let count = word(&mut at)?;
        let mut fields = Vec::with_capacity(columns.len());
        for _ in 0..count {
            let (kind, length) = (word(&mut at)?, word(&mut at)?);
            let value = usize::try_from(length).ok().filter(|_| length != u32::MAX);
            let value = value.map(|length| at..at.saturating_add(length));
            at = value.as_ref().map_or(at, |value| value.end);
            fields.push((kind, value));
        }
        let is_whole = at == bytes.len() && fields.len() == columns.len();
        is_whole.then_some(Self { columns, bytes, fields })
    }

    fn get<'a, T: FromSql<'a>>(&'a self, index: usize) -> Result<T, String> {
        let (oid, range) = self.fields.get(index).ok_or("there is none")?;
        let kind = Type::from_oid(*oid).filter(T::accepts);
        let kind = kind.ok_or_else(|| format!("its type has the OID {oid}"))?;
        let value = range.clone().and_then(|range| self.bytes.get(range));
        T::from_sql_nullable(&kind, value).map_err(|error| error.to_string())
    }
}

fn wrong(what: &str, why: &str) -> StatementError {
    StatementError::Row { what: what.to_owned(), why: why.to_owned() }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::text::Text;
    use super::*;

    fn columns(names: &[&str]) -> Arc<[String]> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// As a server sent it for `1::int4 AS a, 'x''y'::text AS b, NULL::float8 AS c, true AS d`.
    const DIGITS: &str = "000000040000001700000004000000010000001900000003782779\
                          000002bdffffffff000000100000000101";

    #[test]
    fn a_record_is_read_by_the_names_of_its_columns() {
        let record = Record::read(DIGITS, columns(&["a", "b", "c", "d"])).unwrap();
        let row = Row::new(Values::Simple(record));
        assert_eq!(row.get::<i32>("a").unwrap(), 1);
        assert_eq!(row.get::<Text>("b").unwrap().0, "x'y");
        assert_eq!(row.get::<Option<f64>>("c").unwrap(), None);
        assert!(row.get::<bool>("d").unwrap());
        let said = |error: StatementError| error.to_string();
        assert_eq!(said(row.get::<i32>("e").unwrap_err()), "reading e: there is none");
        assert_eq!(said(row.get::<i64>("a").unwrap_err()), "reading a: its type has the OID 23");
        assert!(said(row.get::<f64>("c").unwrap_err()).starts_with("reading c: "));
    }

    #[test]
    fn what_is_no_record_is_not_read_as_one() {
        let names = ["a", "b", "c", "d"];
        for cut in 0..DIGITS.len() {
            assert!(Record::read(&DIGITS[..cut], columns(&names)).is_none(), "{cut}");
        }
        assert!(Record::read(DIGITS, columns(&names[..3])).is_none());
        assert!(Record::read(&DIGITS.replace('7', "x"), columns(&names)).is_none());
        let endless = format!("00000001{}{}", "00000017", "fffffffe");
        assert!(Record::read(&endless, columns(&["a"])).is_none());
    }

    #[test]
    fn a_parameter_is_written_as_a_literal() {
        assert_eq!(Parameter::Oids(&[1, 16_384]).literal(), "'{1,16384}'");
        assert_eq!(Parameter::Oids(&[]).literal(), "'{}'");
        assert_eq!(Parameter::Pids(&[7]).literal(), "'{7}'");
        assert_eq!(Parameter::Count(20_000).literal(), "20000");
    }
}
