//! Which server answers at a target's address, and when that changed: a failover behind one
//! address, a standby that was promoted.
//!
//! The memory keeps both; messages, the status and the record tell of a change. A mere restart is
//! none: the server is the same, and its start is the epoch of its counters.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::reading::postgres::Server;

/// A change is told for so long, and for as long as an incident is open that it may explain.
pub const TOLD_FOR: Duration = Duration::from_hours(1);

/// What tells one server from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// The same on a primary and its physical standbys; `None` where it could not be read.
    pub system_identifier: Option<i64>,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Tells a standby that was promoted from one that was left for its primary.
    pub started_at: Timestamp,
}

/// A change of the server that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The first reading of the server that answers now.
    pub at: Timestamp,
    /// What answers now.
    pub to: SwitchedTo,
    /// Time served since then.
    pub held: Duration,
}

/// What answers after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwitchedTo {
    /// A primary with another system identifier.
    AnotherServer,
    /// A standby with another system identifier.
    AnotherStandby,
    /// A standby of the primary that answered before.
    Standby,
    /// The primary of the standby that answered before.
    Primary,
    /// The same server, which was a standby.
    Promoted,
}

impl SwitchedTo {
    /// The words in messages and the API.
    pub fn words(self) -> &'static str {
        match self {
            Self::AnotherServer => "another server answers",
            Self::AnotherStandby => "another server answers, a standby",
            Self::Standby => "now on the standby",
            Self::Primary => "now on the primary",
            Self::Promoted => "the standby was promoted",
        }
    }
}

impl ServerIdentity {
    pub(super) fn of(server: &Server) -> Self {
        let Server { system_identifier, in_recovery, started_at, .. } = *server;
        Self { system_identifier, in_recovery, started_at }
    }

    /// What `now` is, if it is not the same server in the same part.
    pub(super) fn switched_to(self, now: Self) -> Option<SwitchedTo> {
        let both = self.system_identifier.zip(now.system_identifier);
        let another = both.is_some_and(|(before, now)| before != now);
        match (another, self.in_recovery, now.in_recovery) {
            (true, _, false) => Some(SwitchedTo::AnotherServer),
            (true, _, true) => Some(SwitchedTo::AnotherStandby),
            (false, false, true) => Some(SwitchedTo::Standby),
            (false, true, false) if self.started_at == now.started_at => Some(SwitchedTo::Promoted),
            (false, true, false) => Some(SwitchedTo::Primary),
            (false, false, false) | (false, true, true) => None,
        }
    }
}

impl Switch {
    /// The change after a reading: one that is new, or the last one for as long as it is told.
    pub(super) fn advanced(
        before: Option<Self>,
        to: Option<SwitchedTo>,
        at: Timestamp,
        served: Duration,
        in_incident: bool,
    ) -> Option<Self> {
        if let Some(to) = to {
            return Some(Self { at, to, held: Duration::ZERO });
        }
        let later = |switch: Self| Self { held: switch.held.saturating_add(served), ..switch };
        before.map(later).filter(|switch| in_incident || switch.held < TOLD_FOR)
    }
}
