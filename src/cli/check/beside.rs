//! One look through the other sources of a target: its log, probes, poolers, applications' pools.
//!
//! Each is begun as the daemon begins it, from the same settings, until it has left what it saw
//! once. What follows from that is judged in `sources`, without I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use plimsoll_core::reading::postgres::Logging;
use plimsoll_core::reading::{Failure, FailureKind, Logins, Part, Reading, Sourced};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock;
use crate::collect::SideSource;
use crate::collect::log::ServerLogging;
use crate::collect::mailbox::{Delivery, Mailbox};
use crate::collect::postgres::inspect::Inspection;
use crate::run::Told;

/// A source leaves something within its timeout, and none may be longer than five minutes.
const FIRST_DELIVERY_AT_MOST: Duration = Duration::from_mins(6);

/// It ends what it began within this, a goodbye included.
const END_AT_MOST: Duration = Duration::from_secs(2);

/// A reading of the other sources, all read at once. What `server` says of its log is passed on, as
/// the daemon does it; of the server itself nothing is in it.
pub(super) async fn read(mut told: Told, server: Result<&Inspection, &Failure>) -> Reading {
    let (_says, hears) = watch::channel(server.ok().and_then(logging).map(Arc::new));
    for log in told.logs.values_mut() {
        log.server = ServerLogging(hears.clone());
    }
    let Told { logs, probes, poolers, app_pools } = told;
    let (mut logs, probes, poolers, app_pools) =
        tokio::join!(each(logs), each(probes), each(poolers), each(app_pools));
    let not_here = failure("the server itself is looked at apart");
    let postgres = part(Err(server.err().cloned().unwrap_or(not_here)));
    let of_server =
        Reading::of_postgres(clock::wall(), Duration::ZERO, postgres, Logins::default());
    Reading { log: logs.pop(), probes, poolers, app_pools, ..of_server }
}

/// What the server says of its log.
fn logging(seen: &Inspection) -> Option<Logging> {
    let value = |name: &str| seen.settings.get(name).map(|setting| setting.value.clone());
    Some(Logging {
        line_prefix: value("log_line_prefix")?,
        destination: value("log_destination")?,
        process_titles: value("update_process_title").is_none_or(|value| value == "on"),
    })
}

async fn each<S: SideSource>(sources: BTreeMap<String, S>) -> Vec<Sourced<S::Seen, S::Happened>> {
    let looks = sources.into_iter().map(|(name, source)| async move {
        let Some(Delivery { outcome, happened, .. }) = first(source).await else {
            let nothing = failure("it said nothing in six minutes");
            return Sourced { name, part: part(Err(nothing)), happened: S::Happened::default() };
        };
        Sourced { name, part: part(outcome), happened }
    });
    join_all(looks).await
}

/// The first that a source leaves; it is ended then.
async fn first<S: SideSource>(source: S) -> Option<Delivery<S::Seen, S::Happened>> {
    let mailbox = Mailbox::new();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut running = JoinSet::new();
    // An error means that nobody is left who waits for it: the end as well.
    running.spawn(source.run(mailbox.clone(), async move { drop(stopped.await) }));
    tokio::select! {
        _ended = running.join_next() => {}
        _arrived_or_late = timeout(FIRST_DELIVERY_AT_MOST, mailbox.arrived()) => {}
    }
    drop(stop);
    let ended = async { while running.join_next().await.is_some() {} };
    // What has not ended by then ends with the set.
    drop(timeout(END_AT_MOST, ended).await);
    mailbox.take()
}

/// What was seen just now.
fn part<T>(seen: Result<Arc<T>, Failure>) -> Part<T> {
    Part { age: Duration::ZERO, fresh: true, stale_after: Duration::MAX, seen }
}

fn failure(text: &str) -> Failure {
    Failure { kind: FailureKind::Broken, text: text.to_owned(), sqlstate: None }
}
