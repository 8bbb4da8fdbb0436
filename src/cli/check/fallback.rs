//! What is good and bad about `fallback = "replication"` of a target. Pure: whether a replication
//! connection gets in was tried by `collect::postgres::inspect`.

use plimsoll_core::reading::Failure;

use super::finding::Finding;
use crate::cli::sql;
use crate::collect::postgres::fallback::Lacking;
use crate::collect::postgres::inspect::Inspection;

const CHECK: &str = "fallback";

/// What there is to say, if settings ask for a fallback.
pub(super) fn find(seen: &Inspection) -> Option<Finding> {
    Some(match seen.fallback.as_ref()? {
        Ok(()) => Finding::ok(
            CHECK,
            "a replication connection gets in, and the server can be read over it",
        ),
        Err(failure) => missing(seen, failure),
    })
}

fn missing(seen: &Inspection, failure: &Failure) -> Finding {
    let text = format!("a replication connection does not get in: {}", failure.text);
    let finding = Finding::warning(CHECK, text);
    match Lacking::of(failure) {
        Some(Lacking::Walsender) => finding.hint(
            "no walsender is free: raise max_wal_senders, with wal_level above minimal, and start \
             the server anew",
        ),
        Some(Lacking::Attribute) if !seen.role.has_replication => finding
            .run(format!("ALTER ROLE {} REPLICATION;", sql::name(&seen.role.name)))
            .hint("with it the role can copy the whole cluster: see docs/operations.md first"),
        Some(Lacking::HbaLine) => finding.hint(
            "pg_hba.conf lets it in by a line that names the database or `all`; lines for \
             `replication` are for other connections",
        ),
        Some(Lacking::Attribute) => {
            finding.hint("the role needs CONNECT on the database of `postgres`")
        }
        None => finding,
    }
}
