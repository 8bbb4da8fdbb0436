//! What it costs us to ask the hundred instances of an application for their pools, each of which
//! shows 20 kB of metrics: our processor time a round, as the daemon that does it spends it.

use std::fmt::Write as _;
use std::time::Duration;

use plimsoll::clock;
use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::drill::server::{Options, Server};

use super::meter::Threads;
use super::parameters::Parameters;
use super::report::{Report, number};
use super::world::{TARGET, watched};
use super::{Failure, Measured, http, machine};

/// A round of all of them.
const ROUND_MS: f64 = 20.0;

/// One of them, as Micrometer writes it, about one pool.
const HIKARI: &str = include_str!("../../core/tests/fixtures/exposition/hikaricp_micrometer.prom");

/// The daemon has seen all of them for the first time.
const SETTLED: Duration = Duration::from_secs(5);

pub(super) async fn measure(parameters: &Parameters) -> Measured<Report> {
    let server = Server::start(Options::default()).await?;
    let roles = "CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor CONNECTION LIMIT 5";
    server.superuser().await?.batch_execute(roles).await?;
    let page = page(parameters.page_bytes);
    let mut instances = Vec::new();
    for _ in 0..parameters.instances {
        instances.push(Receiver::start(Behaviour::with_body(200, &page)).await?);
    }
    let rounds = parameters.rounds;
    eprintln!("   {rounds} s without them, {rounds} s with them");
    let without = spent(parameters, &server, "").await?;
    let urls: Vec<String> =
        instances.iter().map(|one| format!("\"{}/actuator/prometheus\"", one.url())).collect();
    let asked = format!(
        "[[targets.app_pools]]\napplication = \"payment-api\"\nscrape = [{}]\ninterval = \"1s\"\n",
        urls.join(", ")
    );
    let with = spent(parameters, &server, &asked).await?;
    let scrapes: usize = instances.iter().map(|one| one.received().len()).sum();
    let count = parameters.instances;
    let expected = count * rounds as usize;
    if scrapes < expected {
        return Err(format!("{scrapes} scrapes, {expected} were due").into());
    }

    let mut report = Report::new("instances", &[machine::plimsoll(parameters.program()?)]);
    let a_round = with - without;
    report.note(&format!(
        "Our processor time a second, means over {rounds} s; {count} instances with pages of {} \
         bytes, asked every second:",
        page.len()
    ));
    let row = |what: &str, ms: f64| vec![what.to_owned(), number(ms, "ms")];
    report.table(
        &["", "a second"],
        &[row("without them", without), row("with them", with), row("a round", a_round)],
    );
    let what = format!("our processor time for a round of {count} instances");
    report.line(what, a_round, ROUND_MS, "ms");
    Ok(report)
}

/// Milliseconds a second of a daemon that is told this besides.
async fn spent(parameters: &Parameters, server: &Server, more: &str) -> Measured<f64> {
    let (daemon, _receiver) = watched(parameters, server, more).await?;
    tokio::time::sleep(SETTLED).await;
    let mut threads = Threads::of(daemon.pid());
    let (before, began) = (threads.ms(), clock::monotonic());
    let end = began + Duration::from_secs(parameters.rounds.into());
    // Threads that come and go keep what they were last seen with.
    while clock::monotonic() < end {
        tokio::time::sleep(Duration::from_millis(200)).await;
        threads.ms();
    }
    let spent = (threads.ms() - before) / (clock::monotonic() - began).as_secs_f64();
    if !more.is_empty() {
        let path = format!("/api/v1/targets/{TARGET}");
        let answer = http::get(daemon.address(), &path).await?;
        let known = format!("\"instances\":{}", parameters.instances);
        if !answer.body.replace(' ', "").contains(&known) {
            return Err(Failure::from("not all instances are known"));
        }
    }
    daemon.stop().await?;
    Ok(spent)
}

/// A page of so many bytes: the pool, among what a Java application shows besides.
fn page(bytes: usize) -> String {
    let mut page = HIKARI.to_owned();
    let mut nth = 0;
    while page.len() < bytes {
        nth += 1;
        let labels = format!("{{area=\"heap\",id=\"G1 Survivor Space {nth}\",}}");
        // A String takes whatever it is given.
        writeln!(page, "jvm_memory_used_bytes{labels} 1.2345678E7").unwrap_or_default();
    }
    page
}
