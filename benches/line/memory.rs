//! What Plimsoll keeps in memory after some minutes beside a large server.

use std::time::Duration;

use plimsoll::clock;

use super::http::Kept;
use super::machine::kibibytes;
use super::parameters::Parameters;
use super::report::{Report, number};
use super::world::{World, watched};
use super::{Measured, machine};

const LIMIT_MIB: f64 = 16.0;

const SCRAPE_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn measure(parameters: &Parameters) -> Measured<Report> {
    let backends = parameters.memory_size;
    World::fits(backends)?;
    eprintln!("   opening {backends} backends");
    let world = World::start(backends, &[]).await?;
    let (daemon, _receiver) = watched(parameters, &world.server, "").await?;
    let status = format!("/proc/{}/status", daemon.pid());
    let resident = || kibibytes(&status, "VmRSS:") as f64 / 1024.0;
    let mut kept = Kept::connect(daemon.address()).await?;

    eprintln!("   {} minutes", parameters.minutes);
    let began = clock::monotonic();
    let end = began + Duration::from_secs_f64(parameters.minutes * 60.0);
    let (first, mut most, mut scrapes) = (resident(), 0.0_f64, 0_u32);
    while clock::monotonic() < end {
        let answer = kept.get("/metrics").await?;
        if answer.status != 200 {
            return Err(format!("/metrics answered {}", answer.status).into());
        }
        scrapes += 1;
        most = most.max(resident());
        tokio::time::sleep(SCRAPE_EVERY).await;
    }
    let last = resident();
    let mut report = Report::new("memory", &[machine::plimsoll(parameters.program()?)]);
    let mib = |value: f64| number(value, "MiB");
    let minutes = parameters.minutes;
    let row =
        vec![backends.to_string(), scrapes.to_string(), mib(first), mib(last), mib(most.max(last))];
    let after = format!("after {minutes} min");
    report.table(&["backends", "scrapes", "at the first reading", &after, "most"], &[row]);
    report.line(
        format!("resident memory after {minutes} min at {backends} backends"),
        most.max(last),
        LIMIT_MIB,
        "MiB",
    );
    Ok(report)
}
