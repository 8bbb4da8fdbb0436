//! The staged faults, and what the exporters and Plimsoll say of each at the same second. The
//! table is made of their answers; nothing in it is written by hand.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plimsoll::clock;
use plimsoll::drill::daemon::Daemon;
use plimsoll::drill::receiver::Receiver;
use plimsoll::drill::server::{Options, Server, Session};
use plimsoll_core::status::TargetStatus;
use tokio::time::timeout;

use super::exporter::{self, Exporter};
use super::faults::{self, Fault};
use super::http::Answer;
use super::parameters::Parameters;
use super::report::{Report, number};
use super::world::watched;
use super::{Measured, machine};

/// Prometheus' own default: what has not answered by then has failed (`scrape_timeout`).
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// An application gives up a login after this.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The usual rule: `sum(pg_stat_activity_count) / on() pg_settings_max_connections > 0.9`.
const USUAL_RULE: f64 = 0.9;

const REST: Duration = Duration::from_secs(3);

pub(super) async fn measure(parameters: &Parameters) -> Measured<Report> {
    let exporters = &parameters.exporters;
    let mut versions = vec![machine::plimsoll(parameters.program()?)];
    let mut head = vec!["fault".to_owned(), "a login at that second".to_owned()];
    for program in exporters {
        let version = exporter::version(program)?;
        head.push(format!("exporter {version}"));
        versions.push(format!("postgres_exporter {version}"));
    }
    head.push("Plimsoll".to_owned());
    let mut rows = Vec::new();
    for fault in Fault::ALL {
        eprintln!("   {}", fault.words());
        let (row, server) = observe(parameters, exporters, fault).await?;
        rows.push(row);
        if rows.len() == 1 {
            versions.push(server);
        }
    }
    let mut report = Report::new("blind", &versions);
    report.note(&format!(
        "Each was asked {} s after the fault, at the same moment; Plimsoll with the shipped rules \
         and a login every 10 s (a probe), and its page was awaited for {} s. *The usual rule* is \
         `sum(pg_stat_activity_count) / on() pg_settings_max_connections > {USUAL_RULE}`.",
        parameters.after, parameters.page_wait
    ));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    report.table(&head, &rows);
    Ok(report)
}

async fn observe(
    parameters: &Parameters,
    exporters: &[PathBuf],
    fault: Fault,
) -> Measured<(Vec<String>, String)> {
    let mut server = Server::start(Options::default()).await?;
    let superuser = prepared(&server).await?;
    let version: String = superuser.query_one("SHOW server_version", &[]).await?.get(0);
    let _at_rest = faults::at_rest(&server).await?;
    let (daemon, receiver) = watched(parameters, &server, &probe(&server)).await?;
    let mut running = Vec::new();
    for program in exporters {
        let exporter = Exporter::start(program, &server).await?;
        let healthy = exporter.scrape().await?;
        if healthy.values("pg_up") != [1.0] || Usual::of(&healthy) == Usual::Empty {
            return Err(format!("exporter {} is blind before any fault", exporter.version).into());
        }
        running.push(exporter);
    }
    tokio::time::sleep(REST).await;
    let staged = faults::stage(fault, &mut server, &superuser).await?;
    let began = clock::monotonic();
    tokio::time::sleep(Duration::from_secs(parameters.after.into())).await;

    let scrapes = running.iter().map(|one| timeout(SCRAPE_TIMEOUT, one.scrape()));
    let (scrapes, login, status) =
        tokio::join!(futures_util::future::join_all(scrapes), login(&server), daemon.status(),);
    let (login, refused) = login;
    let page = page(&receiver, began, parameters.page_wait).await;
    let mut row = vec![fault.words().to_owned(), login];
    row.extend(scrapes.into_iter().map(|scrape| match scrape {
        Ok(Ok(answer)) => said_by_exporter(&answer, refused),
        Ok(Err(error)) => format!("no answer: {error}"),
        Err(_) => format!("no answer in {} s", SCRAPE_TIMEOUT.as_secs()),
    }));
    row.push(said_by_plimsoll(&status?, page, refused, parameters.page_wait));
    end(daemon, running, staged);
    Ok((row, format!("PostgreSQL {version}")))
}

/// A login as the application makes it, at the rhythm that it is shipped with.
fn probe(server: &Server) -> String {
    let url = server.url("app", "postgres");
    format!("[[targets.probes]]\nname = \"application\"\nurl = \"{url}\"\n")
}

/// The daemon ends before the server does, so that it does not see it go.
fn end(daemon: Daemon, exporters: Vec<Exporter>, staged: faults::Staged) {
    drop((daemon, exporters, staged));
}

/// Roles, and one that must give a password.
async fn prepared(server: &Server) -> Measured<Session> {
    let rules = server.data_dir().join("pg_hba.conf");
    let trusted = fs::read_to_string(&rules)?;
    fs::write(&rules, format!("host all slow 127.0.0.1/32 scram-sha-256\n{trusted}"))?;
    let superuser = server.superuser().await?;
    superuser
        .batch_execute(
            "CREATE ROLE app LOGIN; CREATE ROLE slow LOGIN PASSWORD 'half-way'; \
             CREATE ROLE exporter LOGIN IN ROLE pg_monitor; \
             CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor CONNECTION LIMIT 5; \
             SELECT pg_reload_conf()",
        )
        .await?;
    Ok(superuser)
}

/// An ordinary login, and whether it was kept out.
async fn login(server: &Server) -> (String, bool) {
    let began = clock::monotonic();
    match timeout(LOGIN_TIMEOUT, server.connect("app", "postgres")).await {
        Ok(Ok(_session)) => {
            let seconds = (clock::monotonic() - began).as_secs_f64();
            (format!("accepted in {}", number(seconds, "s")), false)
        }
        Ok(Err(error)) => match error.sqlstate() {
            Some(code) => (format!("refused ({code})"), true),
            None => ("no connection".to_owned(), true),
        },
        Err(_) => (format!("no answer in {} s", LOGIN_TIMEOUT.as_secs()), true),
    }
}

/// What the usual rule says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Usual {
    Empty,
    Silent(f64),
    Fires(f64),
}

impl Usual {
    fn of(answer: &Answer) -> Self {
        let activity = answer.values("pg_stat_activity_count");
        let max = answer.values("pg_settings_max_connections");
        let (Some(max), false) = (max.first(), activity.is_empty()) else { return Self::Empty };
        let ratio = activity.iter().sum::<f64>() / max;
        if ratio > USUAL_RULE { Self::Fires(ratio) } else { Self::Silent(ratio) }
    }

    fn words(self) -> String {
        match self {
            Self::Empty => "empty: it resolves, or never fires".to_owned(),
            Self::Silent(ratio) => format!("silent ({ratio:.2})"),
            Self::Fires(ratio) => format!("fires ({ratio:.2})"),
        }
    }
}

const DOES_NOT_SEE: &str = "**does not see that logins fail**";

fn said_by_exporter(answer: &Answer, refused: bool) -> String {
    let one = |name: &str| match answer.values(name).first() {
        Some(value) => format!("{value}"),
        None => "absent".to_owned(),
    };
    let activity = answer.values("pg_stat_activity_count");
    let usual = Usual::of(answer);
    let mut said = vec![
        format!("HTTP {} in {}", answer.status, number(answer.took.as_secs_f64(), "s")),
        format!(
            "`pg_up` {}, `last_scrape_error` {}",
            one("pg_up"),
            one("pg_exporter_last_scrape_error")
        ),
        match activity.len() {
            0 => "`pg_stat_activity_count` absent".to_owned(),
            series => {
                let sum: f64 = activity.iter().sum();
                format!("`pg_stat_activity_count`: {series} series, sum {sum}")
            }
        },
        format!("`pg_settings_max_connections` {}", one("pg_settings_max_connections")),
        format!("the usual rule: {}", usual.words()),
    ];
    let says_down = answer.values("pg_up").first() == Some(&0.0);
    if refused && !says_down && !matches!(usual, Usual::Fires(_)) {
        said.push(DOES_NOT_SEE.to_owned());
    }
    said.join("<br>")
}

fn said_by_plimsoll(
    status: &TargetStatus,
    page: Option<(f64, String)>,
    refused: bool,
    page_wait: u32,
) -> String {
    let mut said = Vec::new();
    said.push(match &status.slots {
        Some(slots) => format!("{} of {} usable slots in use", slots.used, slots.usable),
        None => "slots unknown".to_owned(),
    });
    for source in &status.sources {
        let error = source.error.as_deref().map(|error| format!(": {}", cell(error)));
        said.push(format!("{} {}{}", source.source, source.state, error.unwrap_or_default()));
    }
    let firing = status.alerts.iter().filter(|alert| alert.state == "firing");
    let firing: Vec<_> = firing.map(|a| format!("{} {}", a.severity, a.rule)).collect();
    let pending = status.alerts.iter().filter(|alert| alert.state == "pending");
    let pending: Vec<_> = pending.map(|a| format!("{} {}", a.severity, a.rule)).collect();
    if !firing.is_empty() {
        said.push(format!("firing: {}", firing.join(", ")));
    }
    if !pending.is_empty() {
        said.push(format!("pending: {}", pending.join(", ")));
    }
    let is_full = status.slots.as_ref().is_some_and(|slots| slots.free <= 0);
    let is_well = status.sources.iter().all(|source| source.state == "ok");
    let sees = page.is_some() || !firing.is_empty() || !pending.is_empty() || is_full || !is_well;
    said.push(match page {
        Some((seconds, line)) => format!("page after {}: “{}”", number(seconds, "s"), cell(&line)),
        None => format!("no page within {page_wait} s"),
    });
    if refused && !sees {
        said.push(DOES_NOT_SEE.to_owned());
    }
    said.join("<br>")
}

/// The first page, and how long after the fault it came.
async fn page(receiver: &Receiver, began: Instant, wait: u32) -> Option<(f64, String)> {
    let left =
        (began + Duration::from_secs(wait.into())).saturating_duration_since(clock::monotonic());
    let page = timeout(left, receiver.next()).await.ok()?;
    // The receiver's clock is the wall's: how long ago it came.
    let ago = clock::wall().duration_since(page.at).as_secs_f64();
    let seconds = (clock::monotonic() - began).as_secs_f64() - ago;
    let line = page.json()["incident"]["summary"].as_str()?.to_owned();
    Some((seconds, line))
}

/// Text that does not end a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
