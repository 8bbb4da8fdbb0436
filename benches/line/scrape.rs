//! How long `/metrics` takes with nearly a thousand series, and that no scrape asks the server
//! anything: its statements are counted by `pg_stat_statements`, without scrapes and with them.

use std::time::Duration;

use plimsoll::clock;

use super::http::{Answer, Kept};
use super::meter::Threads;
use super::parameters::Parameters;
use super::report::{Report, number, quantile};
use super::world::{World, watched};
use super::{Measured, machine};

const P99_MS: f64 = 2.0;

/// Answers before the first that counts.
const WARM_UP: u32 = 20;

/// Scrapes while statements are counted.
const COUNTED_SCRAPES: u32 = 500;

/// Statements that one span may have more than another of the same length.
const NAMES_AND_COUNTERS: f64 = 4.0;

/// The statement of which every poll has exactly one.
const A_POLL: &str = "%pg_stat_get_activity%";

/// Statements of Plimsoll, and polls among them.
struct Counted {
    statements: i64,
    polls: i64,
}

pub(super) async fn measure(parameters: &Parameters) -> Measured<Report> {
    let preload = [("shared_preload_libraries", "pg_stat_statements")];
    eprintln!("   opening {} backends", parameters.scrape_size);
    let world = World::start(parameters.scrape_size, &preload).await?;
    world.superuser.batch_execute("CREATE EXTENSION pg_stat_statements").await?;
    for nth in 0..parameters.databases {
        world.superuser.batch_execute(&format!("CREATE DATABASE shop_{nth}")).await?;
    }
    let (daemon, _receiver) = watched(parameters, &world.server, "").await?;
    let mut kept = Kept::connect(daemon.address()).await?;

    eprintln!("   {} scrapes", parameters.scrapes);
    let mut own = Threads::of(daemon.pid());
    let (mut took, mut nothing, mut spent) = (Vec::new(), Vec::new(), Vec::new());
    let mut series = 0;
    for nth in 0..parameters.scrapes + WARM_UP {
        let reference = timed(&mut kept, "/healthz").await?;
        let before = own.ms();
        let answer = timed(&mut kept, "/metrics").await?;
        if nth >= WARM_UP {
            spent.push(own.ms() - before);
            nothing.push(reference.took.as_secs_f64() * 1_000.0);
            took.push(answer.took.as_secs_f64() * 1_000.0);
            series = series.max(answer.series());
        }
    }
    eprintln!("   counting statements, twice {} s", parameters.count_seconds);
    let quiet = count(parameters, &world, &mut kept, 0).await?;
    let scraped = count(parameters, &world, &mut kept, COUNTED_SCRAPES).await?;

    let mut report = Report::new("scrape", &[machine::plimsoll(parameters.program()?)]);
    let row = |what: &str, took: &[f64]| {
        let ms = |part: f64| number(quantile(took, part), "ms");
        vec![what.to_owned(), took.len().to_string(), ms(0.5), ms(0.99), ms(1.0)]
    };
    report.table(
        &["", "answers", "median", "p99", "longest"],
        &[
            row(&format!("`/metrics`, {series} series"), &took),
            row("our processor time for it, polls at that moment included", &spent),
            row("`/healthz`, as good as nothing, in turn with it", &nothing),
        ],
    );
    let beside_polls = |counted: &Counted| counted.statements - counted.polls;
    let row = |scrapes: u32, counted: &Counted| {
        vec![
            scrapes.to_string(),
            counted.polls.to_string(),
            counted.statements.to_string(),
            beside_polls(counted).to_string(),
        ]
    };
    let seconds = parameters.count_seconds;
    report.note(&format!("Statements of Plimsoll on the server, in {seconds} s:"));
    report.table(
        &["scrapes", "polls", "statements", "of these no polls"],
        &[row(0, &quiet), row(COUNTED_SCRAPES, &scraped)],
    );
    if series <= 1_000 {
        let what = format!("`/metrics` with {series} series, p99");
        report.line(what, quantile(&took, 0.99), P99_MS, "ms");
    } else {
        report.note("More than a thousand series: the limit is not applied. Fewer --databases.");
    }
    // What is no poll comes by the clock: names once a minute, in one of the two spans or none, which
    // are two statements, and counters, one more or less.
    report.line(
        format!("statements that are no polls, more with {COUNTED_SCRAPES} scrapes"),
        (beside_polls(&scraped) - beside_polls(&quiet)) as f64,
        NAMES_AND_COUNTERS,
        "",
    );
    Ok(report)
}

/// An answer, a moment after the last: spread over some polls, and over the moments at which one is
/// under way.
async fn timed(kept: &mut Kept, path: &str) -> Measured<Answer> {
    tokio::time::sleep(Duration::from_millis(5)).await;
    let answer = kept.get(path).await?;
    if answer.status == 200 { Ok(answer) } else { Err(format!("{path}: {}", answer.status).into()) }
}

async fn count(
    parameters: &Parameters,
    world: &World,
    kept: &mut Kept,
    scrapes: u32,
) -> Measured<Counted> {
    let before = counted(world).await?;
    let span = Duration::from_secs(parameters.count_seconds.into());
    let end = clock::monotonic() + span;
    for _ in 0..scrapes {
        kept.get("/metrics").await?;
        tokio::time::sleep(span / (scrapes + scrapes / 4)).await;
    }
    tokio::time::sleep_until(end.into()).await;
    let after = counted(world).await?;
    Ok(Counted {
        statements: after.statements - before.statements,
        polls: after.polls - before.polls,
    })
}

async fn counted(world: &World) -> Measured<Counted> {
    let sql = "SELECT COALESCE(sum(s.calls), 0)::int8, \
               COALESCE(sum(s.calls) FILTER (WHERE s.query LIKE $1), 0)::int8 \
               FROM pg_stat_statements AS s JOIN pg_roles AS r ON r.oid = s.userid \
               WHERE r.rolname = 'plimsoll'";
    let row = world.superuser.query_one(sql, &[&A_POLL]).await?;
    Ok(Counted { statements: row.get(0), polls: row.get(1) })
}
