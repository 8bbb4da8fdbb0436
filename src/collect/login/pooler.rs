//! What a pooler says to a login, told by its words: nothing else tells.
//!
//! PgBouncer gives SQLSTATE 08P01 to nearly all that it says itself, a wrong password included,
//! and up to 1.23 also to what the server said to it and it passes on. From 1.24 on the server's
//! SQLSTATE comes through, but not the routine. Its words are not translated; those of a server
//! are, so a server that refuses in another language than English behind a PgBouncer up to 1.23 is
//! not known as one that refuses. Only [`super::failure`] calls this.
//!
//! Sources: PgBouncer's client.c, janitor.c, objects.c and server.c, 1.12 to 1.25.

use plimsoll_core::reading::{FailureKind, Refusal};

/// What it says, and what that is. The first that fits: what a server said stands behind words of
/// the pooler's own (`server login has been failing, cached error: …`).
const SAID: [(&str, FailureKind); 19] = [
    // Limits of its own: `max_client_conn`; from 1.24 on `max_db_client_connections` and
    // `max_user_client_connections`.
    ("no more connections allowed", FailureKind::Refused(Refusal::PoolerClients)),
    ("client connections exceeded", FailureKind::Refused(Refusal::PoolerClients)),
    // The client has waited for a connection to the server for as long as it may.
    ("query_wait_timeout", FailureKind::Refused(Refusal::PoolerWait)),
    ("client_login_timeout (server down)", FailureKind::Refused(Refusal::PoolerWait)),
    ("client_login_timeout", FailureKind::TooSlow),
    // The client itself.
    ("authentication failed", FailureKind::NotAllowed),
    ("no such user", FailureKind::NotAllowed),
    ("no such database", FailureKind::NotAllowed),
    ("does not exist", FailureKind::NotAllowed),
    ("does not allow connections", FailureKind::NotAllowed),
    ("not allowed", FailureKind::NotAllowed),
    ("login rejected", FailureKind::NotAllowed),
    ("pg_hba.conf", FailureKind::NotAllowed),
    // The server, as the pooler finds it.
    ("starting up", FailureKind::Starting),
    ("recovery mode", FailureKind::Starting),
    ("shutting down", FailureKind::Stopped),
    ("connect timeout", FailureKind::Unreachable),
    ("connect failed", FailureKind::Stopped),
    ("server login has been failing", FailureKind::Failing),
];

/// What a server says in English when it refuses for want of a connection (miscinit.c, postinit.c,
/// proc.c, walsender.c). That too many logins are under way is said in the words of a full server.
const REPLAYED: [(&str, Refusal); 6] = [
    ("too many connections for role", Refusal::RoleLimit),
    ("too many connections for database", Refusal::DatabaseLimit),
    ("pg_use_reserved_connections", Refusal::ReservedForRole),
    ("remaining connection slots are reserved", Refusal::ReservedForSuperusers),
    ("max_wal_senders", Refusal::WalSenders),
    ("too many clients already", Refusal::AllSlotsTaken),
];

/// What kind of failure an answer with a pooler's own SQLSTATE is. What it does not like of a
/// startup packet, and anything that is not known, is no way to use it.
pub(super) fn kind(message: &str) -> FailureKind {
    if let Some(refusal) = replayed(message) {
        return FailureKind::Refused(refusal);
    }
    let said = SAID.iter().find(|(words, _)| message.contains(words));
    said.map_or(FailureKind::Unsupported, |(_, kind)| *kind)
}

/// The reason of a server that refuses, by its words.
pub(super) fn replayed(message: &str) -> Option<Refusal> {
    REPLAYED.iter().find(|(words, _)| message.contains(words)).map(|(_, refusal)| *refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poolers_words_are_told_from_those_of_the_server_behind_it() {
        use FailureKind::{Failing, NotAllowed, Refused, Starting, Stopped, TooSlow, Unreachable};
        let cached = |text: &str| {
            format!("server login has been failing, cached error: {text} (server_login_retry)")
        };
        let reserved = "remaining connection slots are reserved for non-replication superuser \
                        connections";
        let for_role = "remaining connection slots are reserved for roles with privileges of the \
                        \"pg_use_reserved_connections\" role";
        let cases = [
            (
                "no more connections allowed (max_client_conn)".to_owned(),
                Refused(Refusal::PoolerClients),
            ),
            (
                "client connections exceeded (max_user_client_connections)".to_owned(),
                Refused(Refusal::PoolerClients),
            ),
            ("query_wait_timeout".to_owned(), Refused(Refusal::PoolerWait)),
            ("client_login_timeout (server down)".to_owned(), Refused(Refusal::PoolerWait)),
            ("client_login_timeout".to_owned(), TooSlow),
            ("sorry, too many clients already".to_owned(), Refused(Refusal::AllSlotsTaken)),
            (cached("sorry, too many clients already"), Refused(Refusal::AllSlotsTaken)),
            (reserved.to_owned(), Refused(Refusal::ReservedForSuperusers)),
            (cached(for_role), Refused(Refusal::ReservedForRole)),
            ("too many connections for role \"app\"".to_owned(), Refused(Refusal::RoleLimit)),
            (
                "too many connections for database \"app\"".to_owned(),
                Refused(Refusal::DatabaseLimit),
            ),
            ("SASL authentication failed".to_owned(), NotAllowed),
            ("no such database: app".to_owned(), NotAllowed),
            (cached("database \"app\" does not exist"), NotAllowed),
            (cached("connect failed"), Stopped),
            (cached("connect timeout"), Unreachable),
            (cached("the database system is starting up"), Starting),
            ("server login has been failing, try again later (server_login_retry)".into(), Failing),
            ("unsupported startup parameter: options".to_owned(), FailureKind::Unsupported),
        ];
        for (message, expected) in cases {
            assert_eq!(kind(&message), expected, "{message}");
        }
    }
}
