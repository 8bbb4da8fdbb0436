//! A thousand incidents that open within a second, until the last of them is with its receiver: the
//! real store, the real sender and a real socket, with a target each.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll::clock;
use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::health::Health;
use plimsoll::notify::http::Client;
use plimsoll::notify::{self, Stop};
use plimsoll::store::{Opened, Store};
use plimsoll_core::judge::Severity;
use plimsoll_core::settings::{ReceiverKind, ReceiverSettings, Secret};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::commit::{RECEIVER, opening};
use super::parameters::Parameters;
use super::report::{Report, number, quantile};
use super::{Measured, machine};

const P99_SECONDS: f64 = 3.0;

/// In which they open.
const SPAN: Duration = Duration::from_secs(1);

/// Ten times and more what they may take.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) async fn measure(parameters: &Parameters) -> Measured<Report> {
    let mut rows = Vec::new();
    let mut worst = 0.0_f64;
    for nth in 1..=parameters.bursts {
        eprintln!("   {nth} of {}", parameters.bursts);
        let seconds = burst(parameters).await?;
        let at = |part: f64| quantile(&seconds, part);
        worst = worst.max(at(0.99));
        let mut row = vec![nth.to_string(), seconds.len().to_string()];
        row.extend([0.5, 0.99, 1.0].map(|part| number(at(part), "s")));
        rows.push(row);
    }
    let mut report = Report::new("burst", &[machine::plimsoll(parameters.program()?)]);
    report.table(&["burst", "incidents", "median", "p99", "longest"], &rows);
    let incidents = parameters.incidents;
    let what = format!("{incidents} incidents within a second, commit to arrival, worst p99");
    report.line(what, worst, P99_SECONDS, "s");
    Ok(report)
}

/// Seconds from the moment at which each was decided to its arrival.
async fn burst(parameters: &Parameters) -> Measured<Vec<f64>> {
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&parameters.folder)?;
    let receiver = Receiver::start(Behaviour::status(200)).await?;
    let health = Health::starting(clock::wall());
    let Opened { store, .. } = Store::open(folder.path(), clock::wall(), health.clone())?;
    let settings = ReceiverSettings {
        name: RECEIVER.to_owned(),
        kind: ReceiverKind::Webhook {
            url: Secret::new(receiver.url()),
            signing_secrets: Vec::new(),
        },
        min_severity: Severity::Warning,
        send_resolved: true,
        rules: Vec::new(),
        targets: Vec::new(),
        repeat_interval: Duration::from_mins(15),
        repeat_interval_warning: Duration::from_hours(4),
        timeout: Duration::from_secs(15),
    };
    let (stop, stopped) = watch::channel(Stop::No);
    let mut senders = JoinSet::new();
    let receivers = vec![notify::Receiver::new(&settings)?];
    let client = Client::from_environment();
    senders.spawn(notify::run(receivers, store.outbox(), health, client, stopped));

    let began = clock::monotonic();
    let mut commits = JoinSet::new();
    let mut decided: BTreeMap<String, Timestamp> = BTreeMap::new();
    for nth in 0..parameters.incidents {
        tokio::time::sleep_until((began + SPAN * nth / parameters.incidents).into()).await;
        let (target, now) = (format!("db-{nth:04}"), clock::wall());
        let change = opening(&target, nth.into(), now);
        decided.insert(target, now);
        commits.spawn(store.commit(change));
    }
    let mut seconds = Vec::new();
    while seconds.len() < decided.len() {
        let left = (began + PATIENCE).saturating_duration_since(clock::monotonic());
        let arrived = tokio::time::timeout(left, receiver.next()).await;
        let arrived = arrived.map_err(|_| format!("only {} arrived", seconds.len()))?;
        let target = arrived.json()["incident"]["target"].as_str().unwrap_or_default().to_owned();
        let decided = decided.get(&target).ok_or("something else arrived")?;
        seconds.push(arrived.at.duration_since(*decided).as_secs_f64());
    }
    commits.join_all().await;
    stop.send_replace(Stop::Drain { until: clock::monotonic() + SPAN });
    while senders.join_next().await.is_some() {}
    store.close(PATIENCE).await;
    Ok(seconds)
}
