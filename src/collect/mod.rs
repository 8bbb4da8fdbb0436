//! Reads what is watched: each source has a task of its own and leaves what it saw in a mailbox.
//!
//! `run` starts the sources, takes from their mailboxes and composes readings. Nothing is judged
//! here, and nothing is written anywhere.

pub mod app_pool;
pub mod conninfo;
pub mod log;
mod login;
pub mod mailbox;
pub mod pooler;
pub mod postgres;
pub mod probe;
mod tls;

use plimsoll_core::reading::Happened;

use self::mailbox::Mailbox;

/// A source beside the server itself: what it is told by settings, and how it reads.
pub trait SideSource: Clone + PartialEq + Send + Sync + 'static {
    /// What it sees: a gauge, replaced by the next.
    type Seen: Send + Sync + 'static;
    /// What it hears of: things that happened, added up until they are taken.
    type Happened: Happened + Send + 'static;
    /// The word for it in the log and the API.
    const KIND: &'static str;

    /// Reads, and leaves what it sees in the mailbox, until `stop` is ready. Its first delivery
    /// comes within its own timeout, whatever happens.
    fn run(
        self,
        mailbox: Mailbox<Self::Seen, Self::Happened>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static;
}
