//! Text as a server sends it, whatever its bytes.
//!
//! `pg_stat_activity` shows the statements of sessions to databases of other encodings, byte by
//! byte, and the driver's own `String` would fail the whole poll at the first of them.

use std::borrow::Cow;
use std::error::Error;

use tokio_postgres::types::{FromSql, Type};

/// Text of any encoding; what is not UTF-8 becomes U+FFFD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'a> FromSql<'a> for Text<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        // Nearly all of it is UTF-8, and that is seen sooner than what is not is searched for.
        Ok(Self(str::from_utf8(raw).map_or_else(|_| String::from_utf8_lossy(raw), Cow::Borrowed)))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::TEXT | Type::NAME | Type::VARCHAR | Type::BYTEA)
    }
}
