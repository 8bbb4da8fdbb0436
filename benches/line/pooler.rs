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
use super::recorder::Recorder;
use super::report::{Report, mean, median, number};
use super::{Failure, Measured, machine, meter};

/// Of the pooler's thread, a look.
const LOOK_MS: f64 = 0.2;

/// Of a scrape of the exporter, a look.
const PART_OF_A_SCRAPE: f64 = 1.0 / 3.0;

/// How often all that was asked at work is asked once more.
const REPEATS: u32 = 9;

/// Once a minute or so: what each client costs the pooler.
const LISTS: [&str; 2] = ["SHOW CLIENTS", "SHOW SERVERS"];

/// As it is shipped: a look a second.
const TICK: Duration = Duration::from_secs(1);

/// Clients that come in at once.
const AT_ONCE: usize = 32;

/// The pooler's time is read so long before a look is due, and so long after it was told.
const BEFORE: Duration = Duration::from_millis(10);
const AFTER: Duration = Duration::from_millis(10);

/// What it takes for its clients is measured for so long before that.
const WITHOUT: Duration = Duration::from_millis(100);

/// So many of the clients work while it is at work, each at rest for so long between statements.
const WORKERS: usize = 8;
const REST: Duration = Duration::from_millis(4);

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
    let console =
        |through: &Recorder| format!("postgresql://stats@127.0.0.1:{}/pgbouncer", through.port);
    let theirs = Recorder::before(bouncer.port()).await?;
    let exporter = Exporter::of_pgbouncer(&parameters.bouncer_exporter, &console(&theirs)).await?;
    let version = format!("pgbouncer_exporter {}", exporter.version);
    // Each of them opens what it opens, and the pooler comes to rest.
    exporter.scrape().await?;

    let looks = parameters.looks;
    eprintln!(
        "   {looks} looks and as many scrapes, once a second each, and a fifth of it at rest"
    );
    let ours = Recorder::before(bouncer.port()).await?;
    let watched = watch(&console(&ours)).await?;
    let (mut at_rest, mut at_work) = (Costs::default(), Costs::default());
    at_rest.measure(looks / 5, pid, &watched, &exporter).await?;
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(work(Session::open(&login).await?));
    }
    drop((ours.take(), theirs.take()));
    at_work.measure(looks, pid, &watched, &exporter).await?;
    let asked = [ours.take(), theirs.take()];
    let commands = asked.each_ref().map(|asked| asked.len() as f64 / f64::from(looks));
    let [look, scrape] = asked;
    let without_lists = look.iter().filter(|sql| !LISTS.contains(&sql.as_str())).cloned().collect();
    let asked = [look, without_lists, scrape];
    if let Some(ended) = workers.try_join_next() {
        ended??;
    }
    drop((watched, workers, exporter));
    eprintln!("   what they asked at work, once more and without rest, {REPEATS} times");
    let session = Session::open(&bouncer.login("stats", "pgbouncer")).await?;
    let mut without_rest = [const { Vec::new() }; 3];
    for _ in 0..REPEATS {
        for (asked, costs) in asked.iter().zip(&mut without_rest) {
            costs.push(again(pid, &session, asked).await? / f64::from(looks));
        }
    }
    drop(clients);

    let release = format!("PgBouncer {}", bouncer.release());
    let versions = [machine::plimsoll(parameters.program()?), release, version.clone()];
    let mut report = Report::new("pooler", &versions);
    report.note(&format!(
        "Processor time of PgBouncer's thread with {} clients; {looks} looks at work, {} at rest:",
        parameters.clients,
        looks / 5
    ));
    let [look, without_lists, scrape] = without_rest.map(|costs| median(&costs));
    let row = |what: &str, without_rest: f64, of: &dyn Fn(&Costs) -> &Vec<f64>| {
        let figure = |costs: &Costs| number(mean(of(costs)), "ms");
        vec![what.to_owned(), number(without_rest, "ms"), figure(&at_work), figure(&at_rest)]
    };
    report.table(
        &["", "without rest", "while it works for clients", "woken after half a second of rest"],
        &[
            row("a look of Plimsoll", look, &|costs| &costs.looks),
            row("of these, without single clients and servers", without_lists, &|costs| {
                &costs.without_clients
            }),
            row(&format!("a scrape of {version}"), scrape, &|costs| &costs.scrapes),
        ],
    );
    report.note(&format!(
        "{} commands a look, {} a scrape.",
        number(commands[0], ""),
        number(commands[1], "")
    ));
    let thread = "of a thread without rest";
    report.line(format!("a look at PgBouncer, {thread}"), look, LOOK_MS, "ms");
    let what = format!("a look ÷ a scrape of {version}, {thread}");
    report.line(what, look / scrape, PART_OF_A_SCRAPE, "");
    Ok(report)
}

/// Milliseconds of each.
#[derive(Default)]
struct Costs {
    looks: Vec<f64>,
    /// Those of them that asked for no list of all clients.
    without_clients: Vec<f64>,
    scrapes: Vec<f64>,
}

impl Costs {
    async fn measure(
        &mut self,
        looks: u32,
        pid: i32,
        watched: &Watched,
        exporter: &Exporter,
    ) -> Measured<()> {
        for _ in 0..looks {
            let look = spent(pid, watched.due(), watched.look()).await?;
            self.looks.push(look);
            if !watched.has_listed.get() {
                self.without_clients.push(look);
            }
            let middle = clock::monotonic() + TICK / 2;
            self.scrapes.push(spent(pid, middle, scraped(exporter)).await?);
        }
        Ok(())
    }
}

/// A client that has something to do, without end.
async fn work(session: Session) -> Measured<()> {
    loop {
        session.batch_execute("SELECT 1").await?;
        tokio::time::sleep(REST).await;
    }
}

/// What a process with one thread spends on all of this, one after the other and at once.
async fn again(pid: i32, console: &Session, statements: &[String]) -> Measured<f64> {
    let now = || meter::backend_ms(pid).ok_or_else(|| Failure::from("PgBouncer has ended"));
    let before = now()?;
    for sql in statements {
        console.batch_execute(sql).await?;
    }
    // It is exact once it sleeps.
    tokio::time::sleep(AFTER).await;
    Ok(now()? - before)
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
        // At rest: above 70 % it would be looked at more closely.
        ("max_client_conn", (clients * 2).to_string()),
        // What its exporter asks to be set.
        ("ignore_startup_parameters", "extra_float_digits".to_owned()),
    ];
    bouncer::Options {
        databases: vec![database],
        settings: own.map(|(name, value)| (name.to_owned(), value)).into(),
        ..bouncer::Options::default()
    }
}

/// What a process with one thread spends on something that is due then, beyond what it spends on
/// its clients as measured just before.
async fn spent(
    pid: i32,
    due: Instant,
    something: impl Future<Output = Measured<()>>,
) -> Measured<f64> {
    let now = || {
        let spent = meter::backend_ms(pid).ok_or_else(|| Failure::from("PgBouncer has ended"))?;
        Measured::Ok((clock::monotonic(), spent))
    };
    let a_second = |from: (Instant, f64), to: (Instant, f64)| {
        (to.1 - from.1) / to.0.saturating_duration_since(from.0).as_secs_f64()
    };
    tokio::time::sleep_until(earlier(due, BEFORE + WITHOUT).into()).await;
    let first = now()?;
    tokio::time::sleep_until(earlier(due, BEFORE).into()).await;
    let before = now()?;
    something.await?;
    tokio::time::sleep(AFTER).await;
    let after = now()?;
    let took = after.0.saturating_duration_since(before.0).as_secs_f64();
    Ok(after.1 - before.1 - a_second(first, before) * took)
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
    /// Whether it asked for single clients.
    has_listed: Cell<bool>,
    _task: JoinSet<()>,
}

async fn watch(console: &str) -> Measured<Watched> {
    let told = PoolerSettings {
        name: "pgbouncer".to_owned(),
        url: Secret::new(console),
        password: None,
        interval: TICK,
        timeout: Duration::from_secs(5),
    };
    let source = PoolerSource::of(&told, &Surroundings::default())?;
    let mailbox = Mailbox::new();
    let mut task = JoinSet::new();
    task.spawn(source.run(mailbox.clone(), std::future::pending()));
    let began = Cell::new(clock::monotonic());
    let watched = Watched { mailbox, began, has_listed: Cell::new(false), _task: task };
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
        self.has_listed.set(seen.sockets.as_ref().is_some_and(|listed| listed.age < TICK / 2));
        let took = Duration::from_secs_f64(seen.seconds);
        self.began.set(earlier(delivery.taken_at, took));
        Ok(())
    }
}
