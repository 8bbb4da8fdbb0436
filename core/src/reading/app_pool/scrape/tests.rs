//! Each preset on what its library shows, and the traps: two exporters of one pool, processes of
//! one instance, no maximum, units, names.

use std::fmt::Write;

use proptest::prelude::*;

use super::super::presets::{PRESETS, Proof, preset};
use super::*;

const HIKARI: &str = include_str!("../../../../tests/fixtures/exposition/hikaricp_micrometer.prom");
const HIKARI_AND_SPRING: &str =
    include_str!("../../../../tests/fixtures/exposition/hikaricp_and_spring.prom");
const GO_SQL: &str = include_str!("../../../../tests/fixtures/exposition/go_sql.prom");

fn scrape(wanted: &Wanted, text: &str) -> Result<Vec<Pool>, NoPools> {
    let mut scrape = Scrape::new(wanted);
    for piece in text.as_bytes().chunks(1000) {
        scrape.push(piece)?;
    }
    scrape.finish(false)
}

/// A pool on a line.
fn line(pool: &Pool) -> String {
    let number = |number: Option<u32>| number.map_or("-".to_owned(), |n| n.to_string());
    let total = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
    let max = match pool.max {
        Max::Unknown => "-".to_owned(),
        Max::Unlimited => "unlimited".to_owned(),
        Max::Of(max) => max.to_string(),
    };
    format!(
        "{} {:?}: {} in use, {} idle, {max} at most, {} waiting; timeouts {}, waits {}, {} s",
        pool.preset,
        pool.name,
        number(pool.in_use),
        number(pool.idle),
        number(pool.waiting),
        total(pool.timeouts_total),
        total(pool.waits_total),
        pool.wait_seconds_total.map_or("-".to_owned(), |seconds| format!("{seconds:.3}")),
    )
}

fn check(text: &str, expected: &[&str]) {
    check_with(&Wanted::of_all_presets(), text, expected);
}

fn check_with(wanted: &Wanted, text: &str, expected: &[&str]) {
    let found: Vec<String> = scrape(wanted, text).unwrap().iter().map(line).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn captured_files() {
    check(
        HIKARI,
        &["hikaricp_micrometer \"HikariPool-1\": 0 in use, 10 idle, 10 at most, 0 waiting; \
           timeouts 0, waits -, 0.000 s"],
    );
    check(
        GO_SQL,
        &["go_sql \"kine\": 1 in use, 2 idle, 90 at most, - waiting; timeouts -, waits 0, 0.000 s"],
    );
}

/// What the applications of `tests/interop` showed, whole, with five connections lent out of five.
#[test]
fn captured_from_real_applications() {
    check(
        include_str!("../../../../tests/fixtures/exposition/go_application.prom"),
        &["go_sql \"payment\": 5 in use, 0 idle, 5 at most, - waiting; \
           timeouts -, waits 2, 0.000 s"],
    );
    check(
        include_str!("../../../../tests/fixtures/exposition/python_application.prom"),
        &["opentelemetry_old \"postgresql+psycopg2://127.0.0.1:41999/postgres\": \
           5 in use, 0 idle, - at most, - waiting; timeouts -, waits -, - s"],
    );
    check(
        include_str!("../../../../tests/fixtures/exposition/javascript_application.prom"),
        &["opentelemetry \"unknown_host:unknown_port/unknown_database\": \
           5 in use, 0 idle, - at most, 0 waiting; timeouts -, waits -, - s"],
    );
}

/// Spring shows the HikariCP again, under the name of its bean.
#[test]
fn two_exporters_of_one_pool_are_not_added() {
    let hikari = "hikaricp_micrometer \"HikariPool-1\": - in use, - idle, - at most, 0 waiting; \
                  timeouts -, waits -, - s";
    check(HIKARI_AND_SPRING, &[hikari]);
    let spring = "spring \"dataSource\": - in use, 10 idle, - at most, - waiting; \
                  timeouts -, waits -, - s";
    check_with(&Wanted::of_preset(preset("spring").unwrap()), HIKARI_AND_SPRING, &[spring]);
    // The conventions of OpenTelemetry in both forms, as `database/dup` writes them.
    let both = "db_client_connection_count{db_client_connection_pool_name=\"p\",\
                db_client_connection_state=\"used\"} 3\n\
                db_client_connections_usage{pool_name=\"p\",state=\"used\"} 3\n";
    check(
        both,
        &["opentelemetry \"p\": 3 in use, - idle, - at most, - waiting; timeouts -, waits -, - s"],
    );
}

#[test]
fn libraries_known_from_their_documentation() {
    check(
        "hikaricp_active_connections{pool=\"a\"} 9\nhikaricp_idle_connections{pool=\"a\"} 1\n\
         hikaricp_max_connections{pool=\"a\"} 10\nhikaricp_pending_threads{pool=\"a\"} 4\n\
         hikaricp_connection_timeout_total{pool=\"a\"} 2\n\
         hikaricp_connection_acquired_nanos_sum{pool=\"a\"} 2500000000\n",
        &["hikaricp_tracker \"a\": 9 in use, 1 idle, 10 at most, 4 waiting; \
           timeouts 2, waits -, 2.500 s"],
    );
    check(
        "r2dbc_pool_acquired_connections{name=\"cf\",} 8.0\n\
         r2dbc_pool_idle_connections{name=\"cf\",} 2.0\n\
         r2dbc_pool_max_allocated_connections{name=\"cf\",} 10.0\n\
         r2dbc_pool_max_pending_connections{name=\"cf\",} 2.147483647E9\n\
         r2dbc_pool_pending_connections{name=\"cf\",} 3.0\n",
        &["r2dbc \"cf\": 8 in use, 2 idle, 10 at most, 3 waiting; timeouts -, waits -, - s"],
    );
    check(
        "agroal_active_count{datasource=\"default\"} 20\n\
         agroal_available_count{datasource=\"default\"} 0\n\
         agroal_awaiting_count{datasource=\"default\"} 37\n\
         agroal_max_used_count{datasource=\"default\"} 20\n\
         agroal_blocking_time_total_milliseconds{datasource=\"default\"} 1500\n",
        &[
            "agroal \"default\": 20 in use, 0 idle, - at most, 37 waiting; timeouts -, waits -, 1.500 s",
        ],
    );
    check(
        "pgxpool_acquired_conns{db=\"main\"} 4\npgxpool_idle_conns{db=\"main\"} 0\n\
         pgxpool_max_conns{db=\"main\"} 4\npgxpool_canceled_acquire_count{db=\"main\"} 7\n\
         pgxpool_empty_acquire{db=\"main\"} 9\npgxpool_acquire_duration_ns{db=\"main\"} 9e9\n\
         pgxpool_empty_acquire_wait_time_ns{db=\"main\"} 3e9\n",
        &["pgxpool \"main\": 4 in use, 0 idle, 4 at most, - waiting; timeouts 7, waits 9, 3.000 s"],
    );
    check(
        "pgx_pool_acquire_connections{database=\"d\"} 1\npgx_pool_max_connections{database=\"d\"} 5\n\
         pgx_pool_canceled_acquires_total{database=\"d\"} 2\n",
        &["pgx_pool \"d\": 1 in use, - idle, 5 at most, - waiting; timeouts 2, waits -, - s"],
    );
    check(
        "prisma_pool_connections_busy 3\nprisma_pool_connections_idle 1\n\
         prisma_client_queries_wait 5\nprisma_client_queries_wait_histogram_ms_sum 250\n\
         prisma_pool_connections_open 4\n",
        &["prisma \"\": 3 in use, 1 idle, - at most, 5 waiting; timeouts -, waits -, 0.250 s"],
    );
    check(
        "jdbc_connections_active{name=\"ds\"} 8\njdbc_connections_idle{name=\"ds\"} 0\n\
         jdbc_connections_max{name=\"ds\"} 8\njdbc_connections_min{name=\"ds\"} 2\n",
        &["spring \"ds\": 8 in use, 0 idle, 8 at most, - waiting; timeouts -, waits -, - s"],
    );
}

#[test]
fn opentelemetry_in_the_ways_that_exporters_write_it() {
    // Dots are kept by exporters that know names in UTF-8.
    check(
        "{\"db.client.connection.count\",\"db.client.connection.pool.name\"=\"p\",\
         \"db.client.connection.state\"=\"used\"} 7\n\
         {\"db.client.connection.max\",\"db.client.connection.pool.name\"=\"p\"} 10\n\
         {\"db.client.connection.timeouts\",\"db.client.connection.pool.name\"=\"p\"} 1\n",
        &["opentelemetry \"p\": 7 in use, - idle, 10 at most, - waiting; timeouts 1, waits -, - s"],
    );
    // The Java agent of today, with HikariCP inside of it.
    check(
        "db_client_connections_usage{pool_name=\"HikariPool-1\",state=\"idle\",otel_scope_name=\"x\"} 6\n\
         db_client_connections_usage{pool_name=\"HikariPool-1\",state=\"used\",otel_scope_name=\"x\"} 4\n\
         db_client_connections_max{pool_name=\"HikariPool-1\",otel_scope_name=\"x\"} 10\n\
         db_client_connections_pending_requests{pool_name=\"HikariPool-1\",otel_scope_name=\"x\"} 2\n\
         db_client_connections_timeouts_total{pool_name=\"HikariPool-1\",otel_scope_name=\"x\"} 5\n\
         db_client_connections_wait_time_milliseconds_sum{pool_name=\"HikariPool-1\"} 1234\n",
        &["opentelemetry_old \"HikariPool-1\": 4 in use, 6 idle, 10 at most, 2 waiting; \
           timeouts 5, waits -, 1.234 s"],
    );
    // Npgsql calls a pool by its connection string.
    check(
        "db_client_connection_count{db_client_connection_pool_name=\"Host=db;Username=app;\
         Password=geheim;Database=x\",db_client_connection_state=\"used\"} 4\n\
         db_client_connection_npgsql_pending_requests{db_client_connection_pool_name=\"Host=db;\
         Username=app;Password=geheim;Database=x\"} 2\n",
        &["opentelemetry \"Host=db;Username=app;Password=***\": 4 in use, - idle, - at most, \
           2 waiting; timeouts -, waits -, - s"],
    );
}

/// One series a process; a thread that died still holds its connection.
#[test]
fn processes_of_one_instance_are_added() {
    let mut text = String::new();
    for (pid, busy, dead, waiting) in [(7, 3, 1, 0), (8, 5, 0, 2)] {
        for (what, count) in
            [("busy", busy), ("dead", dead), ("idle", 0), ("size", 5), ("waiting", waiting)]
        {
            let labels = format!("{{pool_name=\"primary\",pid=\"{pid}\"}}");
            writeln!(text, "ruby_active_record_connection_pool_{what}{labels} {count}").unwrap();
        }
    }
    check(
        &text,
        &["rails \"primary\": 9 in use, 0 idle, 10 at most, 2 waiting; timeouts -, waits -, - s"],
    );
}

#[test]
fn no_maximum_is_said_in_four_ways() {
    for (max, said) in [
        ("0", Max::Unlimited),
        ("-1", Max::Unlimited),
        ("2147483647", Max::Unlimited),
        ("+Inf", Max::Unlimited),
        ("NaN", Max::Unknown),
        ("25.0", Max::Of(25)),
    ] {
        let text = format!(
            "go_sql_in_use_connections{{db_name=\"a\"}} 1\n\
             go_sql_max_open_connections{{db_name=\"a\"}} {max}\n"
        );
        assert_eq!(scrape(&Wanted::of_all_presets(), &text).unwrap()[0].max, said, "{max}");
    }
}

/// A gauge of a pool that was closed is NaN in Micrometer; others count below zero by mistake.
#[test]
fn what_is_no_number_of_connections_is_unknown_and_not_zero() {
    check(
        "hikaricp_connections_active{pool=\"a\"} NaN\nhikaricp_connections_idle{pool=\"a\"} -1\n\
         hikaricp_connections_pending{pool=\"a\"} +Inf\n",
        &["hikaricp_micrometer \"a\": - in use, - idle, - at most, - waiting; \
           timeouts -, waits -, - s"],
    );
}

/// The labels of pgx's exporters are the user's: those that differ tell pools apart.
#[test]
fn pools_without_a_name_are_told_apart_by_what_differs() {
    check(
        "pgxpool_acquired_conns{role=\"writer\",env=\"eu\",pid=\"1\"} 4\n\
         pgxpool_acquired_conns{role=\"reader\",env=\"eu\",pid=\"1\"} 2\n\
         pgxpool_acquired_conns{role=\"reader\",env=\"eu\",pid=\"2\"} 1\n",
        &[
            "pgxpool \"role=reader\": 3 in use, - idle, - at most, - waiting; timeouts -, waits -, - s",
            "pgxpool \"role=writer\": 4 in use, - idle, - at most, - waiting; timeouts -, waits -, - s",
        ],
    );
}

#[test]
fn a_mapping_says_what_no_preset_knows() {
    let selector = |text: &str| Selector::parse(text).unwrap();
    let mapping = Mapping {
        pool_label: Some("pool.name".to_owned()),
        fields: vec![
            (Field::Open, selector("bb8_connections")),
            (Field::Idle, selector("bb8_connections{state=\"idle\"}")),
            (Field::WaitSeconds, selector("bb8_wait")),
        ],
        wait_unit_seconds: 0.001,
    };
    // `open` asks for no state here, so both lines are of it.
    check_with(
        &Wanted::of_mapping(&mapping),
        "bb8_connections{pool_name=\"a\",state=\"idle\"} 3\n\
         bb8_connections{pool_name=\"a\",state=\"busy\"} 4\nbb8_wait{pool_name=\"a\"} 1500\n",
        &["mapping \"a\": 4 in use, 3 idle, - at most, - waiting; timeouts -, waits -, 1.500 s"],
    );
}

#[test]
fn an_answer_without_pools_says_what_it_was() {
    let said = |text: &str| scrape(&Wanted::of_all_presets(), text).unwrap_err().to_string();
    assert_eq!(said(""), "it shows no metric at all");
    assert_eq!(said("# HELP x\n"), "it shows no metric at all");
    assert_eq!(said("up 1\nx 2\n"), "it shows 2 samples, and none of a connection pool");
    // A counter alone shows no pool: the pool may be long gone.
    let counter = "hikaricp_connections_timeout_total{pool=\"a\"} 3\n";
    assert_eq!(said(counter), "it shows one sample, and that is of no connection pool");
    assert_eq!(
        said("<html>"),
        "what it shows cannot be read: line 1 is no metric: it looks like HTML"
    );
    let line = |n| format!("go_sql_in_use_connections{{db_name=\"{n}\"}} 1\n");
    let many: String = (0..=MAX_POOLS).map(line).collect();
    assert_eq!(said(&many), "it shows more than 256 connection pools");
}

#[test]
fn names_are_one_bounded_line_without_passwords() {
    assert_eq!(shown_name("a\nb\u{7}c"), "a b c");
    assert_eq!(shown_name("postgresql://app:ge@heim@db:5432/x"), "postgresql://***@db:5432/x");
    assert_eq!(shown_name("Host=db;Pwd = 'ge heim'; x"), "Host=db;Pwd=***");
    assert_eq!(shown_name("passwords-pool"), "passwords-pool");
    assert_eq!(shown_name("reset_password"), "reset_password");
    assert_eq!(
        shown_name("Host=db;Database=passwords;Password = geheim"),
        "Host=db;Database=passwords;Password=***"
    );
    assert_eq!(
        shown_name("postgresql://app@db/shop?password=geheim"),
        "postgresql://***@db/shop?password=***"
    );
    let long = shown_name(&"\u{e9}".repeat(300));
    assert_eq!(long.chars().count(), MAX_NAME_CHARS + 1);
}

/// The table itself: names once, and a preset hides only presets that there are.
#[test]
fn the_table_of_presets_is_sound() {
    for one in PRESETS {
        assert_eq!(PRESETS.iter().filter(|other| other.name == one.name).count(), 1);
        assert!(one.series.iter().any(|series| series.field == Field::InUse), "{}", one.name);
        for hidden_by in one.hidden_by {
            assert!(preset(hidden_by).is_some_and(|other| !other.hidden_by.contains(&one.name)));
        }
        for (index, series) in one.series.iter().enumerate() {
            assert_eq!(series.metric, plain(series.metric));
            let same = one.series[..index]
                .iter()
                .filter(|other| other.metric == series.metric && other.label == series.label);
            assert_eq!(same.count(), 0, "{} twice", series.metric);
        }
    }
}

/// `docs/sources.md` has a row a preset, with how far it is known to be right.
#[test]
fn the_documentation_lists_each_preset_with_its_proof() {
    let page = include_str!("../../../../../docs/sources.md");
    for one in PRESETS {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` ", one.name)));
        let row = row.unwrap_or_else(|| panic!("{} is not in docs/sources.md", one.name));
        let proofs = [Proof::RealApplication, Proof::CapturedFile, Proof::Documentation];
        for proof in proofs {
            let is_said = row.contains(&format!("*{}*", proof.words()));
            assert_eq!(is_said, proof == one.proof, "{row}");
        }
    }
}

proptest! {
    /// No text of the metrics that are looked for makes it panic, or count what is not there.
    #[test]
    fn samples_of_known_names_never_panic(
        lines in proptest::collection::vec(
            (0..PRESETS.len(), any::<prop::sample::Index>(), "[a-z]{0,2}", any::<f64>()),
            0..40,
        ),
    ) {
        let mut text = String::new();
        for (one, series, pool, value) in &lines {
            let one = &PRESETS[*one];
            let series = series.get(one.series);
            let pool = one.pool_labels.first().map(|label| format!("{label}=\"{pool}\""));
            let state = series.label.map(|(name, value)| format!("{name}=\"{value}\""));
            let labels: Vec<String> = pool.into_iter().chain(state).collect();
            writeln!(text, "{}{{{}}} {value:?}", series.metric, labels.join(",")).unwrap();
        }
        match scrape(&Wanted::of_all_presets(), &text) {
            Ok(pools) => prop_assert!(pools.len() <= lines.len()),
            Err(NoPools::Empty | NoPools::NoneAmong { .. }) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
