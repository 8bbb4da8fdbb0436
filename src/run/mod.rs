//! The daemon: wires the parts, starts a loop a target, hears the signals, ends in good order.
//!
//! ```text
//!  settings ─▶ store ─▶ port ─▶ targets (a source and a loop each) ─▶ sender ─▶ signals
//!  SIGTERM:   loops end ─▶ what is owed is sent within the grace ─▶ HTTP ends ─▶ the file closes
//! ```
//! Called by `cli`. What it wires does not know of it.

mod beside;
mod record;
mod rules;
mod sender;
mod signals;
mod supervise;
mod targets;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::settings::{ParsedTarget, Secret, Settings, Surroundings};
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::chain::chain;
use crate::clock;
use crate::collect::conninfo::ConnInfo;
use crate::health::{Health, ReloadHealth};
use crate::load::{LoadError, LoadRequest, load};
use crate::serve::{self, ServeError};
use crate::store::{Store, StoreError};
pub(crate) use beside::Told;
pub(crate) use rules::rules_of;
use sender::{Receivers, ReceiversError, Sending};
use signals::{Heard, Signals};
use targets::{TargetError, Targets};
pub(crate) use targets::{source_of, told};

/// The HTTP server has so long to end what it answers. With the grace of the sender (20 s by
/// default), the wait for the last commits and for the file, all is over within the 30 s that
/// Kubernetes and others give before they kill.
const HTTP_GRACE: Duration = Duration::from_secs(2);

/// The file has so long to take what waits. Longer than a commit waits: here nothing is lost by
/// waiting, and much by not.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] LoadError),
    /// The address is not to be had.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The state folder is another's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A target cannot be watched as it was set.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A receiver cannot be built from its settings.
    #[error(transparent)]
    Receivers(#[from] ReceiversError),
    /// The system does not let us hear a signal.
    #[error("listening for signals")]
    Signals(#[source] std::io::Error),
}

impl RunError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Serve(error) => Some(error.hint()),
            Self::Store(StoreError::InUse { .. }) => Some(
                "end the other one, or give this one a folder of its own with --state-dir"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Returns once `stop` is true, or nobody is left who could say so.
pub(crate) async fn stopped(stop: &mut channel::Receiver<bool>) {
    // An error means that the sender is gone, which is the end as well.
    let _gone = stop.wait_for(|stop| *stop).await;
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// What is wrong before anything is watched. After that nothing ends it but a signal.
pub async fn run(request: LoadRequest) -> Result<(), RunError> {
    let settings = load(&request, &parse_postgres)?;
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let health = Health::starting(clock::wall());
    let receivers = Receivers::prepare(&settings.receivers)?;
    let listener = serve::bind(settings.server.listen).await?;
    // With port 0 the system chose one: what is said is where it really is.
    let address = listener.local_addr().unwrap_or(settings.server.listen);
    let store = open_store(&settings, &health)?;
    let (targets_shown, shown) = channel::channel(Arc::new(serve::Targets::new()));
    let mut targets = Targets::new(store.clone(), health.clone(), targets_shown);
    targets.apply(&settings).await?;

    if settings.receivers.is_empty() {
        tracing::warn!("no receiver is set: nobody is told of anything");
    }
    let owed = owed(&store);
    if owed > 0 {
        tracing::info!(owed, "notifications of before are still owed");
    }
    let (stop_http, mut http_stop) = channel::channel(false);
    let mut http = JoinSet::new();
    let shared = serve::Shared {
        targets: shown,
        health: health.clone(),
        incidents: record::reader(store.clone()),
    };
    http.spawn(async move {
        serve::run(listener, shared, async move { stopped(&mut http_stop).await }).await;
    });
    let mut sender = Sending::start(receivers, &store, &health);
    tracing::info!(
        listen = %address,
        targets = settings.targets.len(),
        receivers = settings.receivers.len(),
        "watching"
    );

    let mut grace = settings.server.shutdown_grace;
    while signals.next().await == Heard::Reload {
        match reload(&request, &mut targets, &mut sender, &store, &health).await {
            Ok(new) => {
                grace = new.server.shutdown_grace;
                say_what_needs_a_restart(&settings, &new);
            }
            Err(error) => say_why_not_reloaded(&error),
        }
    }

    tracing::info!("ending");
    targets.stop().await;
    sender.stop(grace).await;
    stop_http.send_replace(true);
    if timeout(HTTP_GRACE, http.join_all()).await.is_err() {
        tracing::warn!("some HTTP clients did not take their answers in time");
    }
    let owed = self::owed(&store);
    if owed > 0 {
        tracing::warn!(owed, "notifications stay owed; the next start sends them");
    }
    store.close(CLOSE_GRACE).await;
    tracing::info!("ended");
    Ok(())
}

fn open_store(settings: &Settings, health: &Health) -> Result<Store, StoreError> {
    let opened = Store::open(&settings.state_dir, clock::wall(), health.clone())?;
    let folder = settings.state_dir.display().to_string();
    match (&opened.problem, &opened.set_aside) {
        (Some(problem), Some(aside)) => {
            tracing::error!(folder, problem, aside = %aside.display(), "state was set aside");
        }
        (Some(problem), None) => {
            tracing::error!(folder, problem, "state is kept in memory only");
        }
        (None, _) if opened.fresh => tracing::info!(folder, "the state folder was empty"),
        (None, _) => {}
    }
    Ok(opened.store)
}

fn owed(store: &Store) -> usize {
    let outbox = store.outbox();
    outbox.receivers().iter().map(|receiver| outbox.owed(receiver).len()).sum()
}

fn say_what_needs_a_restart(old: &Settings, new: &Settings) {
    let changed = [
        ("server.listen", old.server.listen != new.server.listen),
        ("state_dir", old.state_dir != new.state_dir),
    ];
    for (setting, _) in changed.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(setting, "changed, and needs a restart");
    }
}

/// A line for each mistake: they are found by their places.
fn say_why_not_reloaded(error: &RunError) {
    let kept = "the settings were not reloaded; those from before are kept";
    match error {
        RunError::Settings(LoadError::Mistakes(mistakes)) => {
            for mistake in mistakes {
                tracing::error!(%mistake, "a mistake in the settings");
            }
            tracing::error!(mistakes = mistakes.len(), "{kept}");
        }
        other => tracing::error!(error = %chain(other), "{kept}"),
    }
}

/// Checks first, swaps second, keeps the old settings on error.
async fn reload(
    request: &LoadRequest,
    targets: &mut Targets,
    sender: &mut Sending,
    store: &Store,
    health: &Health,
) -> Result<Settings, RunError> {
    let checked = check(request);
    let ok = checked.is_ok();
    {
        let mut values = health.values();
        let failures = values.reload.failures + u64::from(!ok);
        values.reload = ReloadHealth { ok, at: clock::wall(), failures };
    }
    let (settings, receivers) = checked?;
    targets.apply(&settings).await?;
    sender.replace(receivers, store, health).await;
    tracing::info!(targets = settings.targets.len(), "the settings were reloaded");
    Ok(settings)
}

/// What the driver makes of an address; settings know nothing of drivers.
pub(crate) fn parse_postgres(text: &Secret, around: &Surroundings) -> Result<ParsedTarget, String> {
    let info = ConnInfo::parse_in(text, around).map_err(|error| chain(&error))?;
    Ok(ParsedTarget { default_name: info.default_name(), user: info.user().map(str::to_owned) })
}

fn check(request: &LoadRequest) -> Result<(Settings, Receivers), RunError> {
    let settings = load(request, &parse_postgres)?;
    let receivers = Receivers::prepare(&settings.receivers)?;
    Targets::check(&settings)?;
    Ok((settings, receivers))
}
