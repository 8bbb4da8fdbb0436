//! TO COME.

use plimsoll_core::reading::probe;
use plimsoll_core::settings::{ProbeSettings, Settings, TargetSettings};

use super::SideSource;
use super::conninfo::ConnInfoError;
use super::mailbox::Mailbox;

/// What it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeSource {}

impl ProbeSource {
    /// As settings say.
    pub fn of(
        _told: &ProbeSettings,
        _target: &TargetSettings,
        _settings: &Settings,
    ) -> Result<Self, ConnInfoError> {
        Ok(Self {})
    }
}

impl SideSource for ProbeSource {
    type Seen = probe::Observation;
    type Happened = probe::Attempts;
    const KIND: &'static str = "probe";

    async fn run(
        self,
        _mailbox: Mailbox<Self::Seen, Self::Happened>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        stop.await;
    }
}
