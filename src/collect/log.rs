//! TO COME.

use plimsoll_core::reading::log;
use plimsoll_core::settings::{LogSettings, Settings, TargetSettings};

use super::SideSource;

use super::mailbox::Mailbox;

/// What it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSource {}

impl LogSource {
    /// As settings say.
    pub fn of(_told: &LogSettings, _target: &TargetSettings, _settings: &Settings) -> Self {
        Self {}
    }
}

impl SideSource for LogSource {
    type Seen = log::Observation;
    type Happened = log::Lines;
    const KIND: &'static str = "log";

    async fn run(
        self,
        _mailbox: Mailbox<Self::Seen, Self::Happened>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        stop.await;
    }
}
