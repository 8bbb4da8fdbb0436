//! `fallback = "replication"`: which refusals it is for, what it lacks when it is refused, too, and
//! what is said then.
//!
//! Pure. When a login over a replication connection begins is decided by [`super::Source`]; `check`
//! asks what one lacks that it tried.

use plimsoll_core::reading::{Failure, FailureKind, Refusal};

/// Whether a replication connection may get in where an ordinary login was refused so. Walsenders
/// take none of the slots, and are held to no CONNECTION LIMIT of a role or a database (measured
/// on 13 to 18). While too many logins are under way the postmaster refuses both alike, but it
/// does not for long.
pub(super) fn is_for(failure: &Failure) -> Option<Refusal> {
    match failure.kind {
        FailureKind::Refused(Refusal::WalSenders) => None,
        // It is none of the server's doing, and no walsender is behind a pooler.
        FailureKind::Refused(reason) if reason.is_of_pooler() => None,
        FailureKind::Refused(reason) => Some(reason),
        _ => None,
    }
}

/// What a replication connection lacks that does not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// The attribute REPLICATION of the role (or CONNECT on the database, as anybody).
    Attribute,
    /// A walsender that is free.
    Walsender,
    /// A line of `pg_hba.conf`.
    HbaLine,
}

impl Lacking {
    /// What a refused one lacks, where its refusal tells.
    pub fn of(refusal: &Failure) -> Option<Self> {
        match (refusal.kind, refusal.sqlstate.as_deref()) {
            (FailureKind::Refused(Refusal::WalSenders), _) => Some(Self::Walsender),
            // walsender.c wants the attribute; CONNECT on the database is wanted of everybody.
            (FailureKind::NotAllowed, Some("42501")) => Some(Self::Attribute),
            (FailureKind::NotAllowed, Some("28000")) => Some(Self::HbaLine),
            _ => None,
        }
    }
}

/// What is said when neither an ordinary login nor one over a replication connection gets in: the
/// kind is that of the ordinary one, so that rules judge it as they do without a fallback.
/// Anything but a no to this very way is news of the server itself, and said alone.
pub(super) fn both(ordinary: &Failure, replication: Failure, role: Option<&str>) -> Failure {
    let of_this_way = matches!(
        replication.kind,
        FailureKind::Refused(_)
            | FailureKind::TooSlow
            | FailureKind::NotAllowed
            | FailureKind::Unsupported
    );
    if !of_this_way {
        return replication;
    }
    let hint = match Lacking::of(&replication) {
        Some(Lacking::Walsender) => {
            "; hint: no walsender is free; raise max_wal_senders and restart the server".to_owned()
        }
        Some(Lacking::Attribute) => {
            let role = role.unwrap_or("plimsoll").replace('"', "\"\"");
            format!("; hint: run: ALTER ROLE \"{role}\" REPLICATION;")
        }
        Some(Lacking::HbaLine) => {
            "; hint: pg_hba.conf must let the role in to this database by a line that names the \
             database or `all`; lines for `replication` are for other connections"
                .to_owned()
        }
        None => String::new(),
    };
    let text =
        format!("{}; and over a replication connection: {}{hint}", ordinary.text, replication.text);
    Failure { text, ..ordinary.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: FailureKind, text: &str, sqlstate: &str) -> Failure {
        Failure { kind, text: text.to_owned(), sqlstate: Some(sqlstate.to_owned()) }
    }

    #[test]
    fn both_refusals_are_said_and_what_is_missing() {
        let full = failure(FailureKind::Refused(Refusal::AllSlotsTaken), "full", "53300");
        let said =
            |kind, sqlstate: &str| both(&full, failure(kind, "no", sqlstate), Some("wat\"cher"));
        let cases = [
            (FailureKind::NotAllowed, "42501", "run: ALTER ROLE \"wat\"\"cher\" REPLICATION;"),
            (FailureKind::NotAllowed, "28000", "pg_hba.conf must let the role in"),
            (FailureKind::Refused(Refusal::WalSenders), "53300", "raise max_wal_senders"),
        ];
        for (kind, sqlstate, hint) in cases {
            let failure = said(kind, sqlstate);
            assert_eq!(failure.kind, full.kind);
            let text = format!("full; and over a replication connection: no; hint: {hint}");
            assert!(failure.text.starts_with(&text) || failure.text.contains(hint), "{failure:?}");
        }
        let slow = said(FailureKind::TooSlow, "57014");
        assert_eq!(slow.text, "full; and over a replication connection: no");
        // The server has stopped meanwhile.
        assert_eq!(said(FailureKind::Stopped, "57P01").kind, FailureKind::Stopped);
    }

    #[test]
    fn it_is_for_refusals_of_ordinary_logins() {
        let refused = |reason| failure(FailureKind::Refused(reason), "no", "53300");
        let for_it = [Refusal::AllSlotsTaken, Refusal::RoleLimit, Refusal::LoginsUnderWay];
        assert!(for_it.into_iter().all(|reason| is_for(&refused(reason)) == Some(reason)));
        let not_for_it = [Refusal::WalSenders, Refusal::PoolerClients, Refusal::PoolerWait];
        assert!(not_for_it.into_iter().all(|reason| is_for(&refused(reason)).is_none()));
        assert_eq!(is_for(&failure(FailureKind::NotAllowed, "no", "28P01")), None);
    }
}
