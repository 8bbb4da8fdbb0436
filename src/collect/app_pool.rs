//! TO COME.

use plimsoll_core::reading::app_pool;
use plimsoll_core::settings::{AppPoolSettings, Settings, TargetSettings};

use super::SideSource;

use super::mailbox::Mailbox;

/// What it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct AppPoolSource {}

impl AppPoolSource {
    /// As settings say.
    pub fn of(_told: &AppPoolSettings, _target: &TargetSettings, _settings: &Settings) -> Self {
        Self {}
    }
}

impl SideSource for AppPoolSource {
    type Seen = app_pool::Observation;
    type Happened = ();
    const KIND: &'static str = "app_pool";

    async fn run(
        self,
        _mailbox: Mailbox<Self::Seen, Self::Happened>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        stop.await;
    }
}
