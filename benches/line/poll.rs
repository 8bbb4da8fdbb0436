//! What a poll costs: the server's processor and ours, at the real rhythm of a second, beside the
//! bare query with the same keys and the exporters, in the same seconds on the same server. And
//! what it costs when it comes again at once, and finds in memory and in caches what it needs: what
//! is more than that at the rhythm of a second is the machine's.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll::clock;
use plimsoll::drill::server::Session;
use tokio_postgres::Statement;

use super::exporter::{self, Exporter};
use super::http;
use super::meter::{Burst, Threads, Watch, backend_ms, ended_children_ms};
use super::parameters::Parameters;
use super::psql::Psql;
use super::report::{Report, mean, median, number};
use super::world::{World, watched};
use super::{Failure, Measured, machine};

/// The least that answers "who holds the slots": the keys of a poll, and nothing else.
const BARE: &str = "
    SELECT usesysid, datid, application_name, client_addr, state, count(*)
    FROM pg_stat_get_activity(NULL)
    GROUP BY usesysid, datid, application_name, client_addr, state";

const POLL_PER_BARE: f64 = 1.5;
const POLL_PER_SCRAPE: f64 = 0.5;

/// The shipped budget, of one core.
const BUDGET: f64 = 0.005;

const OWN_MS: f64 = 1.0;

/// The size at which our own processor time has its limit.
const OWN_SIZE: usize = 480;

const TICK: Duration = Duration::from_secs(1);

/// Seconds before the first that counts: caches of every backend are filled.
const WARM_UP: u32 = 5;

/// A backend that has answered sleeps within this.
const SETTLED: Duration = Duration::from_millis(20);

/// Polls that come one after the other: as often as settings can say, whatever they cost.
const WITHOUT_REST: &str = "[poll]\ninterval = \"10ms\"\nbudget = 1.0\n";

/// So long.
const WITHOUT_REST_FOR: Duration = Duration::from_secs(10);

/// What was seen at one size. Milliseconds of processor time, but for `seconds`.
struct Seen {
    backends: usize,
    seconds: f64,
    bare: Vec<f64>,
    polls: Vec<f64>,
    own: f64,
    psql: Vec<f64>,
    exporters: Vec<Scraped>,
    without_rest: WithoutRest,
}

/// A poll among polls that have no rest between them: means.
struct WithoutRest {
    server: f64,
    own: f64,
}

/// What an exporter's scrapes cost.
struct Scraped {
    version: String,
    /// The backends that it keeps, a scrape each.
    kept: Vec<f64>,
    /// Backends that it opened and that ended, and the postmaster's own work; of all scrapes.
    ended: f64,
    postmaster: f64,
    own: Vec<f64>,
}

impl Scraped {
    fn server(&self) -> f64 {
        let scrapes = self.kept.len().max(1) as f64;
        median(&self.kept) + (self.ended + self.postmaster) / scrapes
    }
}

pub(super) async fn measure(parameters: &Parameters) -> Measured<Report> {
    let mut versions = vec![machine::plimsoll(parameters.program()?)];
    for program in &parameters.exporters {
        versions.push(format!("postgres_exporter {}", exporter::version(program)?));
    }
    let mut all = Vec::new();
    let mut left_out = Vec::new();
    for backends in &parameters.sizes {
        if let Err(why) = World::fits(*backends) {
            eprintln!("   left out: {why}");
            left_out.push(why);
            continue;
        }
        eprintln!("   {backends} backends: opening");
        let world = World::start(*backends, &[]).await?;
        if all.is_empty() {
            let version = world.superuser.query_one("SELECT version()", &[]).await?;
            let version: String = version.get(0);
            versions.push(version.split(" on ").next().unwrap_or_default().to_owned());
        }
        all.push(at(parameters, &world, *backends).await?);
    }
    Ok(report(&versions, &all, &left_out))
}

async fn at(parameters: &Parameters, world: &World, backends: usize) -> Measured<Seen> {
    // One bare query's connection is older than Plimsoll's, one younger: where a backend stands in
    // the server's list makes a difference of its own.
    let mut asked = vec![Bare::open(world).await?];
    let (daemon, receiver) = watched(parameters, &world.server, "").await?;
    asked.push(Bare::open(world).await?);
    let mut scrapers = Vec::new();
    for program in &parameters.exporters {
        scrapers.push(Scraper::start(program, world).await?);
    }
    let mut client = Psql::start(&world.server)?;
    let backend = world.our_backend().await?;
    let mut threads = Threads::of(daemon.pid());

    eprintln!("   {backends} backends: {} ticks", parameters.ticks);
    let first = next_poll(backend).await?;
    let (mut bare, mut psql) = (Vec::new(), Vec::new());
    let mut watch = Watch::begin(backend);
    let (mut began, mut before) = (clock::monotonic(), (threads.ms(), backend_ms(backend)));
    // Ours come at the full second; the others share what is left of it.
    let turns = 2 + u32::try_from(scrapers.len())?;
    for tick in 0..WARM_UP + parameters.ticks {
        if tick == WARM_UP {
            drop(std::mem::replace(&mut watch, Watch::begin(backend)));
            (began, before) = (clock::monotonic(), (threads.ms(), backend_ms(backend)));
        }
        let warm = tick >= WARM_UP;
        let second = first + TICK * (tick + 1);
        let turn = |nth: u32| second + TICK * nth / (turns + 1);
        tokio::time::sleep_until(turn(1).into()).await;
        let ms = asked[tick as usize % 2].run().await?;
        tokio::time::sleep_until(turn(2).into()).await;
        let printed = client.ask(BARE)?;
        if warm {
            bare.push(ms);
            psql.push(printed);
        }
        for (nth, scraper) in (3..).zip(&mut scrapers) {
            tokio::time::sleep_until(turn(nth).into()).await;
            scraper.scrape(world, warm).await?;
        }
    }
    // To the end of the last second, so that the cost over time is that of whole seconds.
    let end = first + TICK * (WARM_UP + parameters.ticks) + TICK * 9 / 10;
    tokio::time::sleep_until(end.into()).await;
    let seconds = (clock::monotonic() - began).as_secs_f64();
    let polls: Vec<f64> = watch.end().iter().map(|poll: &Burst| poll.ms).collect();
    if polls.is_empty() {
        return Err("no poll was seen".into());
    }
    let (own_before, backend_before) = before;
    let own = (threads.ms() - own_before) / polls.len() as f64;
    let spent = backend_ms(backend).zip(backend_before).map(|(now, before)| now - before);
    let spent = spent.ok_or("Plimsoll changed its backend while it was measured")?;
    eprintln!(
        "   {backends} backends: {} polls, one in {:.2} s, {:.2} ms a second",
        polls.len(),
        seconds / polls.len() as f64,
        spent / seconds
    );
    let exporters = scrapers.into_iter().map(|scraper| scraper.scraped).collect();
    drop((daemon, receiver, asked, client));
    let without_rest = without_rest(parameters, world).await?;
    Ok(Seen { backends, seconds, bare, polls, own, psql, exporters, without_rest })
}

/// With a daemon of its own, after the one that was measured at the rhythm of a second.
async fn without_rest(parameters: &Parameters, world: &World) -> Measured<WithoutRest> {
    while !world.backends_of("application_name", "plimsoll").await?.is_empty() {
        tokio::time::sleep(TICK / 10).await;
    }
    let (daemon, _receiver) = watched(parameters, &world.server, WITHOUT_REST).await?;
    let (backend, mut own) = (world.our_backend().await?, Threads::of(daemon.pid()));
    tokio::time::sleep(TICK).await;
    let mut now = async || {
        let polls = polls_so_far(daemon.address()).await?;
        let server = backend_ms(backend).ok_or("Plimsoll changed its backend")?;
        Measured::Ok((polls, server, own.ms()))
    };
    let before = now().await?;
    tokio::time::sleep(WITHOUT_REST_FOR).await;
    let after = now().await?;
    let polls = after.0 - before.0;
    if polls < 1.0 {
        return Err("no poll was seen".into());
    }
    Ok(WithoutRest { server: (after.1 - before.1) / polls, own: (after.2 - before.2) / polls })
}

/// Polls of a daemon since it began, those included whose reading was never composed.
async fn polls_so_far(daemon: SocketAddr) -> Measured<f64> {
    let answer = http::get(daemon, "/metrics").await?;
    let of = |name| answer.values(name).iter().sum::<f64>();
    Ok(of("plimsoll_readings_total") + of("plimsoll_observations_replaced_total"))
}

/// When the next poll begins.
async fn next_poll(backend: i32) -> Measured<Instant> {
    let watch = Watch::begin(backend);
    tokio::time::sleep(TICK * 4).await;
    let last = watch.end().last().map(|poll| poll.began);
    last.ok_or_else(|| Failure::from("no poll was seen in four seconds"))
}

/// A connection of our own that runs the bare query.
struct Bare {
    session: Session,
    statement: Statement,
    backend: i32,
}

impl Bare {
    async fn open(world: &World) -> Measured<Self> {
        let session = world.server.connect("bench", "postgres").await?;
        let statement = session.prepare(BARE).await?;
        let backend = session.backend_pid().await?;
        Ok(Self { session, statement, backend })
    }

    async fn run(&mut self) -> Measured<f64> {
        let before = backend_ms(self.backend).ok_or("the bare query's backend is gone")?;
        self.session.query(&self.statement, &[]).await?;
        tokio::time::sleep(SETTLED).await;
        let after = backend_ms(self.backend).ok_or("the bare query's backend is gone")?;
        Ok(after - before)
    }
}

/// An exporter that is scraped.
struct Scraper {
    exporter: Exporter,
    threads: Threads,
    backends: Vec<i32>,
    own_before: f64,
    scraped: Scraped,
}

impl Scraper {
    async fn start(program: &Path, world: &World) -> Measured<Self> {
        let earlier = world.backends_of("usename", "exporter").await?;
        let exporter = Exporter::start(program, &world.server).await?;
        let answer = exporter.scrape().await?;
        if answer.values("pg_up") != [1.0] {
            return Err(format!("{} does not reach the server", program.display()).into());
        }
        // What it opened for this scrape alone is gone after a moment.
        tokio::time::sleep(TICK / 2).await;
        let mut backends = world.backends_of("usename", "exporter").await?;
        backends.retain(|pid| !earlier.contains(pid));
        let mut threads = Threads::of(exporter.pid());
        let version = exporter.version.clone();
        let scraped =
            Scraped { version, kept: Vec::new(), ended: 0.0, postmaster: 0.0, own: Vec::new() };
        let own_before = threads.ms();
        Ok(Self { exporter, threads, backends, own_before, scraped })
    }

    async fn scrape(&mut self, world: &World, warm: bool) -> Measured<()> {
        let postmaster = world.server.pid().ok_or("the server is gone")?;
        let kept = |pids: &[i32]| pids.iter().map(|pid| backend_ms(*pid)).sum::<Option<f64>>();
        let server = |pid| Some((ended_children_ms(pid)?, backend_ms(pid)?));
        // Its own time is counted from scrape to scrape, with all that it does between them.
        let own = self.threads.ms();
        let (kept_before, server_before) = (kept(&self.backends), server(postmaster));
        let answer = self.exporter.scrape().await?;
        if answer.status != 200 || answer.values("pg_up") != [1.0] {
            return Err(format!("exporter {} failed", self.scraped.version).into());
        }
        // Backends that it opened are on their way out.
        tokio::time::sleep(SETTLED * 4).await;
        let gone = || format!("exporter {} changed its backends", self.scraped.version);
        let kept = kept(&self.backends).zip(kept_before).ok_or_else(gone)?;
        let server = server(postmaster).zip(server_before).ok_or("the server is gone")?;
        if warm {
            self.scraped.own.push(own - self.own_before);
            self.scraped.kept.push(kept.0 - kept.1);
            self.scraped.ended += server.0.0 - server.1.0;
            self.scraped.postmaster += server.0.1 - server.1.1;
        }
        self.own_before = own;
        Ok(())
    }
}

fn report(versions: &[String], all: &[Seen], left_out: &[String]) -> Report {
    let mut report = Report::new("poll", versions);
    let mut head = vec!["backends", "bare query", "whole poll", "÷ bare"];
    let names: Vec<(String, String)> = all.first().map_or(Vec::new(), |seen| {
        let named = |one: &Scraped| {
            (format!("scrape of exporter {}", one.version), format!("poll ÷ {}", one.version))
        };
        seen.exporters.iter().map(named).collect()
    });
    for (scrape, ratio) in &names {
        head.extend([scrape.as_str(), ratio.as_str()]);
    }
    head.extend(["of one core", "a poll in", "a poll without rest (mean)"]);
    let ms = |value: f64| number(value, "ms");
    let mut rows = Vec::new();
    for seen in all {
        let (bare, poll) = (median(&seen.bare), median(&seen.polls));
        let mut row = vec![seen.backends.to_string(), ms(bare), ms(poll), number(poll / bare, "")];
        report.line(
            format!("a poll ÷ the bare query, {} backends", seen.backends),
            poll / bare,
            POLL_PER_BARE,
            "",
        );
        for scraped in &seen.exporters {
            let ratio = poll / scraped.server();
            row.extend([ms(scraped.server()), number(ratio, "")]);
            report.line(
                format!(
                    "a poll ÷ a scrape of exporter {}, {} backends",
                    scraped.version, seen.backends
                ),
                ratio,
                POLL_PER_SCRAPE,
                "",
            );
        }
        let share = seen.polls.iter().sum::<f64>() / 1_000.0 / seen.seconds;
        report.line(
            format!("polls, of one core of the server, {} backends", seen.backends),
            share * 100.0,
            BUDGET * 100.0,
            "%",
        );
        row.push(number(share * 100.0, "%"));
        row.push(number(seen.seconds / seen.polls.len() as f64, "s"));
        row.push(ms(seen.without_rest.server));
        rows.push(row);
    }
    report.note("Processor time of the server, medians:");
    report.table(&head, &rows);

    let mut head = vec!["backends".to_owned(), "Plimsoll, a poll (mean)".to_owned()];
    head.push("psql, the bare query (mean)".to_owned());
    head.extend(names.iter().map(|(name, _)| format!("{name} (mean)")));
    head.push("polls".to_owned());
    head.push("Plimsoll, a poll without rest (mean)".to_owned());
    let mut rows = Vec::new();
    for seen in all {
        let mut row = vec![seen.backends.to_string(), ms(seen.own), ms(mean(&seen.psql))];
        row.extend(seen.exporters.iter().map(|one| ms(mean(&one.own))));
        row.push(seen.polls.len().to_string());
        row.push(ms(seen.without_rest.own));
        rows.push(row);
        if seen.backends == OWN_SIZE {
            let what = format!("our own processor time a poll, {OWN_SIZE} backends");
            report.line(what, seen.own, OWN_MS, "ms");
        }
    }
    report.note("Their own processor time:");
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    report.table(&head, &rows);
    for why in left_out {
        report.note(&format!("Left out: {why}."));
    }
    report
}
