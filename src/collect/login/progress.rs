//! How far a login has come, for those who watch it from outside: the source that says at a tick
//! what it waits for, and the probe that times its steps.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::clock;

/// The moments of the newest attempt at a login.
#[derive(Debug, Default)]
pub(in crate::collect) struct Progress(Mutex<Moments>);

/// When each step of an attempt ended; `None` for those that it has not come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::collect) struct Moments {
    /// The first attempt began: what was needed for it (a password) is there.
    pub(in crate::collect) set_out: Option<Instant>,
    /// The name is looked up, and what stands at its address is asked for a connection.
    pub(in crate::collect) began: Option<Instant>,
    /// Something at an address has accepted the connection.
    pub(in crate::collect) reached: Option<Instant>,
    /// The handshake of TLS is over.
    pub(in crate::collect) encrypted: Option<Instant>,
    /// The server has let us in.
    pub(in crate::collect) let_in: Option<Instant>,
    /// It has answered what was asked of it first.
    pub(in crate::collect) answered: Option<Instant>,
}

impl Progress {
    /// As it stands.
    pub(in crate::collect) fn moments(&self) -> Moments {
        *self.lock()
    }

    /// Whether something at an address has accepted a connection, in this attempt or before it.
    pub(in crate::collect) fn has_reached(&self) -> bool {
        self.lock().reached.is_some()
    }

    /// Another attempt begins, at another host or in another way. What was reached stays reached.
    pub(super) fn note_attempt(&self) {
        let mut moments = self.lock();
        let now = clock::monotonic();
        *moments = Moments {
            set_out: moments.set_out.or(Some(now)),
            began: Some(now),
            reached: moments.reached,
            ..Moments::default()
        };
    }

    pub(super) fn note_reached(&self) {
        self.lock().reached = Some(clock::monotonic());
    }

    pub(super) fn note_encrypted(&self) {
        self.lock().encrypted = Some(clock::monotonic());
    }

    pub(super) fn note_let_in(&self) {
        self.lock().let_in = Some(clock::monotonic());
    }

    /// Noted by whoever asked.
    pub(in crate::collect) fn note_answered(&self) {
        self.lock().answered = Some(clock::monotonic());
    }

    fn lock(&self) -> MutexGuard<'_, Moments> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where no login gets any further: what takes connections and never says a word, as a proxy does
/// whose server is gone.
#[cfg(test)]
pub(in crate::collect) mod silent {
    use tokio::net::{TcpListener, TcpStream};

    pub(in crate::collect) struct Silent(TcpListener);

    impl Silent {
        pub(in crate::collect) async fn listen() -> Self {
            Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
        }

        /// The address of a database that is not there.
        pub(in crate::collect) fn url(&self) -> String {
            let port = self.0.local_addr().unwrap().port();
            format!("postgresql://app@127.0.0.1:{port}/shop?sslmode=disable")
        }

        /// The next login, once it asks to be let in; its end is for the caller to choose.
        pub(in crate::collect) async fn login(&self) -> TcpStream {
            let (connection, _) = self.0.accept().await.unwrap();
            assert_eq!(connection.peek(&mut [0]).await.unwrap(), 1, "it asks to be let in");
            connection
        }
    }
}
