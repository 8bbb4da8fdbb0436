//! What looking at PgBouncer costs it, beside the exporter for it, on the same one: with a thousand
//! clients of whom none waits. PgBouncer has one thread, and what it does for us it does not do
//! for them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use plimsoll::clock;
use plimsoll::collect::SideSource;
use plimsoll::collect::mailbox::Mailbox;
use plimsoll::collect::pooler::PoolerSource;
use plimsoll::drill::bouncer::{self, Bouncer};
use plimsoll::drill::server::{Options, Server, Session};
use plimsoll_core::settings::{PoolerSettings, Secret, Surroundings};
use tokio::task::JoinSet;

use super::exporter::Exporter;
use super::parameters::Parameters;
use super::report::{Report, mean, number};
use super::{Failure, Measured, machine, meter};

/// Of the pooler's thread, a look.
const LOOK_MS: f64 = 0.2;

/// Of a scrape of the exporter, a look.
const PART_OF_A_SCRAPE: f64 = 1.0 / 3.0;

/// As it is shipped: a look a second.
const TICK: Duration = Duration::from_secs(1);

/// Clients that come in at once.
const AT_ONCE: usize = 32;

/// The pooler's time is read so long before a look is due, or it works so long for a client; and it
/// is at rest so long after.
const BEFORE: Duration = Duration::from_millis(20);
const AFTER: Duration = Duration::from_millis(5);

pub(super) async fn measure(parameters: &Parameters) -> Measured<Report> {
    let options = Options { max_connections: 40, ..Options::default() };
    let server = Server::start(options).await?;
    server.superuser().await?.batch_execute("CREATE ROLE app LOGIN").await?;
    let bouncer = Bouncer::start(before(&server, parameters.clients)).await?;
    eprintln!("   opening {} clients", parameters.clients);
    let login = bouncer.login("app", "shop");
    let logins = stream::iter(0..parameters.clients).map(|_| Session::open(&login));
    let clients: Vec<Session> = logins.buffer_unordered(AT_ONCE).try_collect().await?;
    let pid = bouncer.pid().ok_or("PgBouncer has ended")?;
    let exporter = Exporter::of_pgbouncer(&parameters.bouncer_exporter, &bouncer).await?;
    // Each of them opens what it opens, and the pooler comes to rest.
    exporter.scrape().await?;

    let looks = parameters.looks;
    eprintln!(
        "   {looks} looks and {looks} scrapes, once a second each, after rest and after work"
    );
    let worker = Session::open(&login).await?;
    let watched = watch(&bouncer).await?;
    let (mut rested, mut busy) = (Costs::default(), Costs::default());
    for nth in 0..looks * 2 {
        // Every other second the pooler has just worked for a client, as one in use has.
        let (costs, worker) =
            if nth % 2 == 0 { (&mut rested, None) } else { (&mut busy, Some(&worker)) };
        costs.looks.push(spent(pid, watched.due(), worker, watched.look()).await?);
        let middle = clock::monotonic() + TICK / 2;
        costs.scrapes.push(spent(pid, middle, worker, scraped(&exporter)).await?);
    }
    drop((watched, worker, clients));

    let release = format!("PgBouncer {}", bouncer.release());
    let version = format!("pgbouncer_exporter {}", exporter.version);
    let versions = [machine::plimsoll(parameters.program()?), release, version.clone()];
    let mut report = Report::new("pooler", &versions);
    report.note(&format!(
        "Processor time of PgBouncer's thread with {} clients, means over {looks}:",
        parameters.clients
    ));
    let row = |what: &str, of: &dyn Fn(&Costs) -> &Vec<f64>| {
        vec![what.to_owned(), number(mean(of(&busy)), "ms"), number(mean(of(&rested)), "ms")]
    };
    report.table(
        &["", "while it works", "woken after half a second of rest"],
        &[
            row("a look of Plimsoll", &|costs| &costs.looks),
            row(&format!("a scrape of {version}"), &|costs| &costs.scrapes),
        ],
    );
    let (look, scrape) = (mean(&busy.looks), mean(&busy.scrapes));
    report.line("a look at PgBouncer, of its thread while it works", look, LOOK_MS, "ms");
    let what = format!("a look ÷ a scrape of {version}");
    report.line(what, look / scrape, PART_OF_A_SCRAPE, "");
    Ok(report)
}

/// Milliseconds of each.
#[derive(Default)]
struct Costs {
    looks: Vec<f64>,
    scrapes: Vec<f64>,
}

async fn scraped(exporter: &Exporter) -> Measured<()> {
    let answer = exporter.scrape().await?;
    if answer.values("pgbouncer_up") == [1.0] {
        return Ok(());
    }
    Err(Failure::from("the exporter does not read the pooler"))
}

fn before(server: &Server, clients: usize) -> bouncer::Options {
    let database = format!("shop = host=127.0.0.1 port={} dbname=postgres", server.port());
    let own = [
        ("max_client_conn", (clients + 100).to_string()),
        // What its exporter asks to be set.
        ("ignore_startup_parameters", "extra_float_digits".to_owned()),
    ];
    bouncer::Options {
        databases: vec![database],
        settings: own.map(|(name, value)| (name.to_owned(), value)).into(),
        ..bouncer::Options::default()
    }
}

/// What a process with one thread spends on something that is due then, from just before it until
/// it has come to rest; after it has worked for somebody, if one is named.
async fn spent(
    pid: i32,
    due: Instant,
    worker: Option<&Session>,
    something: impl Future<Output = Measured<()>>,
) -> Measured<f64> {
    let now = || meter::backend_ms(pid).ok_or_else(|| Failure::from("PgBouncer has ended"));
    tokio::time::sleep_until(earlier(due, BEFORE).into()).await;
    if let Some(worker) = worker {
        let end = earlier(due, BEFORE / 4);
        while clock::monotonic() < end {
            worker.batch_execute("SELECT 1").await?;
        }
    }
    let before = now()?;
    something.await?;
    tokio::time::sleep(AFTER).await;
    Ok(now()? - before)
}

fn earlier(at: Instant, by: Duration) -> Instant {
    at.checked_sub(by).unwrap_or(at)
}

/// The source of a daemon, in this process: what it costs the pooler is the same, and its looks can
/// be counted.
struct Watched {
    mailbox: Mailbox<plimsoll_core::reading::pooler::Observation>,
    /// When the last look began.
    began: Cell<Instant>,
    _task: JoinSet<()>,
}

async fn watch(bouncer: &Bouncer) -> Measured<Watched> {
    let told = PoolerSettings {
        name: "pgbouncer".to_owned(),
        url: Secret::new(bouncer.url("stats", "pgbouncer")),
        password: None,
        interval: TICK,
        timeout: Duration::from_secs(5),
    };
    let source = PoolerSource::of(&told, &Surroundings::default())?;
    let mailbox = Mailbox::new();
    let mut task = JoinSet::new();
    task.spawn(source.run(mailbox.clone(), std::future::pending()));
    let watched = Watched { mailbox, began: Cell::new(clock::monotonic()), _task: task };
    // The first look asks for everything.
    watched.look().await?;
    Ok(watched)
}

impl Watched {
    /// When the next look begins.
    fn due(&self) -> Instant {
        self.began.get() + TICK
    }

    /// The next look, which saw something.
    async fn look(&self) -> Measured<()> {
        self.mailbox.arrived().await;
        let Some(delivery) = self.mailbox.take() else { return Ok(()) };
        let seen = delivery.outcome.map_err(|failure| failure.text)?;
        let took = Duration::from_secs_f64(seen.seconds);
        self.began.set(earlier(delivery.taken_at, took));
        Ok(())
    }
}
