//! TO COME.

use plimsoll_core::reading::pooler;
use plimsoll_core::settings::{PoolerSettings, Settings, TargetSettings};

use super::SideSource;
use super::conninfo::ConnInfoError;
use super::mailbox::Mailbox;

/// What it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolerSource {}

impl PoolerSource {
    /// As settings say.
    pub fn of(
        _told: &PoolerSettings,
        _target: &TargetSettings,
        _settings: &Settings,
    ) -> Result<Self, ConnInfoError> {
        Ok(Self {})
    }
}

impl SideSource for PoolerSource {
    type Seen = pooler::Observation;
    type Happened = ();
    const KIND: &'static str = "pooler";

    async fn run(
        self,
        _mailbox: Mailbox<Self::Seen, Self::Happened>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        stop.await;
    }
}
