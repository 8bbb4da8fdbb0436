//! Text as a server sends it, whatever its bytes.
//!
//! `pg_stat_activity` shows the statements of sessions to databases of other encodings, byte by
//! byte, and the driver's own `String` would fail the whole poll at the first of them.

use std::error::Error;

use tokio_postgres::types::{FromSql, Type};

/// Text of any encoding; what is not UTF-8 becomes U+FFFD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(String::from_utf8_lossy(raw).into_owned()))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::TEXT | Type::NAME | Type::VARCHAR | Type::BYTEA)
    }
}
