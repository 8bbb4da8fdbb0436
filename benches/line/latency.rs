//! From the login that crosses the line to the webhook that says so, over a real server, the real
//! program, its real disk and a real receiver.

use std::time::Duration;

use plimsoll::clock;
use plimsoll::drill::receiver::Receiver;
use plimsoll::drill::server::{Options, Server};
use tokio::time::timeout;

use super::parameters::Parameters;
use super::report::{Report, number, quantile};
use super::world::watched;
use super::{Measured, machine};

const P50_SECONDS: f64 = 0.6;
const P99_SECONDS: f64 = 1.15;

/// The line: crossed by one login, and left by the end of that session.
const RULES: &str = r#"
[rules.slots]
warning = { above = 0.80, for = "0s", clear_below = 0.80, keep_firing_for = "0s" }
critical = { enabled = false }
"#;

/// Of 97 usable slots, so many are just below the line, Plimsoll's own included.
const BELOW: usize = 77;

/// Ten times what a message may take.
const PATIENCE: Duration = Duration::from_secs(12);

pub(super) async fn measure(parameters: &Parameters) -> Measured<Report> {
    let server = Server::start(Options::default()).await?;
    let superuser = server.superuser().await?;
    superuser
        .batch_execute(
            "CREATE ROLE app LOGIN; CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor CONNECTION LIMIT 5",
        )
        .await?;
    superuser.close().await;
    let (daemon, receiver) = watched(parameters, &server, RULES).await?;
    // Plimsoll holds one of them.
    let _sessions = server.fill("app", "service", BELOW - 1).await?;
    eprintln!("   crossing {} times", parameters.crossings);
    let mut seconds = Vec::new();
    for nth in 0..parameters.crossings {
        // At any phase of the second.
        tokio::time::sleep(Duration::from_secs_f64(0.2 + fastrand::f64())).await;
        let began = clock::monotonic();
        let last = server.connect("app", "postgres").await?;
        next(&receiver, "trigger").await?;
        seconds.push((clock::monotonic() - began).as_secs_f64());
        last.close().await;
        next(&receiver, "resolve").await?;
        if nth % 20 == 19 {
            eprintln!("   {} of {}", nth + 1, parameters.crossings);
        }
    }
    drop(daemon);
    let mut report = Report::new("latency", &[machine::plimsoll(parameters.program()?)]);
    let at = |part: f64| number(quantile(&seconds, part), "s");
    let row = vec![seconds.len().to_string(), at(0.0), at(0.5), at(0.99), at(1.0)];
    report.table(&["crossings", "shortest", "median", "p99", "longest"], &[row]);
    let what = |part: &str| format!("from the login that crosses the line to the webhook, {part}");
    report.line(what("p50"), quantile(&seconds, 0.5), P50_SECONDS, "s");
    report.line(what("p99"), quantile(&seconds, 0.99), P99_SECONDS, "s");
    Ok(report)
}

/// The next message, which must be of this kind: each crossing is told once and ended once.
async fn next(receiver: &Receiver, event: &str) -> Measured<()> {
    let arrived = timeout(PATIENCE, receiver.next()).await;
    let arrived = arrived.map_err(|_| format!("no {event} within {} s", PATIENCE.as_secs()))?;
    let said = arrived.json()["event"].as_str().unwrap_or_default().to_owned();
    if said == event { Ok(()) } else { Err(format!("{said} came in place of {event}").into()) }
}
