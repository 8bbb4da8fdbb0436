//! Whose names mean what: a table of the metrics that pools of known libraries show.
//!
//! Data, no code: `scrape` looks names up in it, and `docs/sources.md` holds the same list for
//! people (a test compares them). The names are those that Prometheus' text has: dots are
//! underscores, counters end in `_total`, times carry their unit.

use super::scrape::Field::{self, Idle, InUse, Max, Timeouts, WaitSeconds, Waiting, Waits};

/// Metrics of one library or exporter.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// As it is called in settings and in a reading.
    pub name: &'static str,
    /// How far it is known to be right.
    pub proof: Proof,
    /// The first of these labels that a sample has names its pool.
    pub pool_labels: &'static [&'static str],
    /// Not used where one of these is seen too: it shows the same pools, and they would be
    /// counted twice.
    pub hidden_by: &'static [&'static str],
    /// What its metrics mean.
    pub series: &'static [Series],
}

/// How far a preset is known to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Read from what a real application showed; `make test-interop` runs that application.
    RealApplication,
    /// Read from what a real application showed and somebody published.
    CapturedFile,
    /// From the library's documentation or source.
    Documentation,
}

impl Proof {
    /// As the documentation says it.
    pub fn words(self) -> &'static str {
        match self {
            Self::RealApplication => "a real application",
            Self::CapturedFile => "a captured file",
            Self::Documentation => "documentation",
        }
    }
}

/// What one metric means.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// Its name.
    pub metric: &'static str,
    /// A label and the value that it must have.
    pub label: Option<(&'static str, &'static str)>,
    /// What it says of a pool.
    pub field: Field,
    /// Of several that say the same, the lowest counts; those of one rank are added.
    pub rank: u8,
    /// What its value is multiplied by: seconds in one of its units.
    pub factor: f64,
}

const NANOSECONDS: f64 = 1e-9;
const MILLISECONDS: f64 = 1e-3;

const fn says(metric: &'static str, field: Field) -> Series {
    Series { metric, label: None, field, rank: 0, factor: 1.0 }
}

/// Another name for the same, as other versions have it.
const fn or(rank: u8, metric: &'static str, field: Field) -> Series {
    Series { metric, label: None, field, rank, factor: 1.0 }
}

const fn state(
    rank: u8,
    metric: &'static str,
    label: (&'static str, &'static str),
    field: Field,
) -> Series {
    Series { metric, label: Some(label), field, rank, factor: 1.0 }
}

const fn waited(rank: u8, metric: &'static str, unit_seconds: f64) -> Series {
    Series { metric, label: None, field: WaitSeconds, rank, factor: unit_seconds }
}

/// The names of pools, and of the labels that users give them where the library asks for them.
const USERS_LABELS: [&str; 8] =
    ["pool", "pool_name", "db", "db_name", "db_pool", "name", "database", "application"];

/// All presets. Where several are seen, those stay that no other hides.
pub const PRESETS: [Preset; 13] = [
    // MicrometerMetricsTracker.java of HikariCP. `_max` of the timers are other names.
    Preset {
        name: "hikaricp_micrometer",
        proof: Proof::CapturedFile,
        pool_labels: &["pool"],
        hidden_by: &[],
        series: &[
            says("hikaricp_connections_active", InUse),
            says("hikaricp_connections_idle", Idle),
            says("hikaricp_connections_max", Max),
            says("hikaricp_connections_pending", Waiting),
            says("hikaricp_connections_timeout_total", Timeouts),
            waited(0, "hikaricp_connections_acquire_seconds_sum", 1.0),
        ],
    },
    // HikariCPCollector.java and PrometheusMetricsTracker.java of HikariCP: nanoseconds.
    Preset {
        name: "hikaricp_tracker",
        proof: Proof::Documentation,
        pool_labels: &["pool"],
        hidden_by: &["hikaricp_micrometer"],
        series: &[
            says("hikaricp_active_connections", InUse),
            says("hikaricp_idle_connections", Idle),
            says("hikaricp_max_connections", Max),
            says("hikaricp_pending_threads", Waiting),
            says("hikaricp_connection_timeout_total", Timeouts),
            or(1, "hikaricp_connection_timeout_count", Timeouts),
            waited(0, "hikaricp_connection_acquired_nanos_sum", NANOSECONDS),
        ],
    },
    // AgroalMetricsRecorder.java of Quarkus. `agroal_max_used_count` is a peak, not a maximum.
    Preset {
        name: "agroal",
        proof: Proof::Documentation,
        pool_labels: &["datasource"],
        hidden_by: &[],
        series: &[
            says("agroal_active_count", InUse),
            says("agroal_available_count", Idle),
            says("agroal_awaiting_count", Waiting),
            waited(0, "agroal_blocking_time_total_milliseconds", MILLISECONDS),
        ],
    },
    // ConnectionPoolMetrics.java of Spring Boot (r2dbc). `_max_pending_` is a limit.
    Preset {
        name: "r2dbc",
        proof: Proof::Documentation,
        pool_labels: &["name"],
        hidden_by: &[],
        series: &[
            says("r2dbc_pool_acquired_connections", InUse),
            says("r2dbc_pool_idle_connections", Idle),
            says("r2dbc_pool_max_allocated_connections", Max),
            says("r2dbc_pool_pending_connections", Waiting),
        ],
    },
    // collectors.NewDBStatsCollector of client_golang; 0 is unlimited (database/sql,
    // SetMaxOpenConns).
    Preset {
        name: "go_sql",
        proof: Proof::RealApplication,
        pool_labels: &["db_name"],
        hidden_by: &[],
        series: &[
            says("go_sql_in_use_connections", InUse),
            says("go_sql_idle_connections", Idle),
            says("go_sql_max_open_connections", Max),
            says("go_sql_wait_count_total", Waits),
            waited(0, "go_sql_wait_duration_seconds_total", 1.0),
        ],
    },
    // collector.go of IBM/pgxpoolprometheus. A cancelled acquire is one whose context ended first.
    Preset {
        name: "pgxpool",
        proof: Proof::Documentation,
        pool_labels: &USERS_LABELS,
        hidden_by: &[],
        series: &[
            says("pgxpool_acquired_conns", InUse),
            says("pgxpool_idle_conns", Idle),
            says("pgxpool_max_conns", Max),
            says("pgxpool_canceled_acquire_count", Timeouts),
            or(1, "pgxpool_canceled_acquire_count_total", Timeouts),
            says("pgxpool_empty_acquire", Waits),
            or(1, "pgxpool_empty_acquire_count_total", Waits),
            waited(0, "pgxpool_empty_acquire_wait_time_ns", NANOSECONDS),
            waited(1, "pgxpool_acquire_duration_ns", NANOSECONDS),
        ],
    },
    // README of cmackenzie1/pgxpool-prometheus; counters with `_total` as pgxprom has them.
    Preset {
        name: "pgx_pool",
        proof: Proof::Documentation,
        pool_labels: &USERS_LABELS,
        hidden_by: &["pgxpool"],
        series: &[
            says("pgx_pool_acquire_connections", InUse),
            says("pgx_pool_idle_connections", Idle),
            says("pgx_pool_max_connections", Max),
            says("pgx_pool_canceled_acquire_count", Timeouts),
            or(1, "pgx_pool_canceled_acquires_total", Timeouts),
            says("pgx_pool_empty_acquire_count", Waits),
            or(1, "pgx_pool_empty_acquires_total", Waits),
        ],
    },
    // RecordStats of exaring/otelpgx, as OpenTelemetry's exporter writes its names.
    Preset {
        name: "otelpgx",
        proof: Proof::Documentation,
        pool_labels: &USERS_LABELS,
        hidden_by: &["pgxpool", "pgx_pool"],
        series: &[
            says("pgxpool_acquired_connections", InUse),
            says("pgxpool_idle_connections", Idle),
            says("pgxpool_max_connections", Max),
            says("pgxpool_canceled_acquires_total", Timeouts),
            says("pgxpool_empty_acquire_total", Waits),
            waited(0, "pgxpool_empty_acquire_wait_time_nanoseconds_total", NANOSECONDS),
        ],
    },
    // `metrics` of Prisma's query engine (a preview feature). `_open` is how many there are now.
    Preset {
        name: "prisma",
        proof: Proof::Documentation,
        pool_labels: &[],
        hidden_by: &[],
        series: &[
            says("prisma_pool_connections_busy", InUse),
            says("prisma_pool_connections_idle", Idle),
            says("prisma_client_queries_wait", Waiting),
            waited(0, "prisma_client_queries_wait_histogram_ms_sum", MILLISECONDS),
        ],
    },
    // active_record.rb of discourse/prometheus_exporter, with its usual prefix and without. One
    // series a process (`pid`), added up; those of threads that died are still lent out.
    Preset {
        name: "rails",
        proof: Proof::Documentation,
        pool_labels: &["pool_name"],
        hidden_by: &[],
        series: &[
            says("ruby_active_record_connection_pool_busy", InUse),
            says("ruby_active_record_connection_pool_dead", InUse),
            says("ruby_active_record_connection_pool_idle", Idle),
            says("ruby_active_record_connection_pool_size", Max),
            says("ruby_active_record_connection_pool_waiting", Waiting),
            or(1, "active_record_connection_pool_busy", InUse),
            or(1, "active_record_connection_pool_dead", InUse),
            or(1, "active_record_connection_pool_idle", Idle),
            or(1, "active_record_connection_pool_size", Max),
            or(1, "active_record_connection_pool_waiting", Waiting),
        ],
    },
    // Semantic conventions for database metrics, from 1.26 on, and what Npgsql 10 adds to them
    // (its own names for what the conventions had not made stable).
    Preset {
        name: "opentelemetry",
        proof: Proof::RealApplication,
        pool_labels: &["db_client_connection_pool_name", "pool_name"],
        hidden_by: &["hikaricp_micrometer", "hikaricp_tracker", "agroal"],
        series: &[
            state(0, "db_client_connection_count", NEW_USED, InUse),
            state(0, "db_client_connection_count", NEW_IDLE, Idle),
            state(1, "db_client_connection_count", OLD_USED, InUse),
            state(1, "db_client_connection_count", OLD_IDLE, Idle),
            says("db_client_connection_max", Max),
            says("db_client_connection_pending_requests", Waiting),
            or(1, "db_client_connection_npgsql_pending_requests", Waiting),
            says("db_client_connection_timeouts_total", Timeouts),
            or(1, "db_client_connection_timeouts", Timeouts),
            or(2, "db_client_connection_npgsql_timeouts_total", Timeouts),
            or(3, "db_client_connection_npgsql_timeouts", Timeouts),
            waited(0, "db_client_connection_wait_time_seconds_sum", 1.0),
            waited(1, "db_client_connection_wait_time_sum", 1.0),
        ],
    },
    // The same conventions up to 1.25, which most agents still follow, Npgsql 8 and 9 too:
    // milliseconds. Exporters differ in how they write the unit.
    Preset {
        name: "opentelemetry_old",
        proof: Proof::RealApplication,
        pool_labels: &["pool_name"],
        hidden_by: &["opentelemetry", "hikaricp_micrometer", "hikaricp_tracker", "agroal"],
        series: &[
            state(0, "db_client_connections_usage", OLD_USED, InUse),
            state(0, "db_client_connections_usage", OLD_IDLE, Idle),
            state(1, "db_client_connections_usage_connections", OLD_USED, InUse),
            state(1, "db_client_connections_usage_connections", OLD_IDLE, Idle),
            says("db_client_connections_max", Max),
            or(1, "db_client_connections_max_connections", Max),
            says("db_client_connections_pending_requests", Waiting),
            or(1, "db_client_connections_pending_requests_requests", Waiting),
            says("db_client_connections_timeouts_total", Timeouts),
            or(1, "db_client_connections_timeouts", Timeouts),
            or(2, "db_client_connections_timeouts_timeouts_total", Timeouts),
            waited(0, "db_client_connections_wait_time_milliseconds_sum", MILLISECONDS),
            waited(1, "db_client_connections_wait_time_ms_sum", MILLISECONDS),
            waited(2, "db_client_connections_wait_time_sum", MILLISECONDS),
        ],
    },
    // DataSourcePoolMetrics.java of Spring Boot: any JDBC pool (Tomcat, DBCP2, UCP, c3p0). A
    // HikariCP shows there too, under the bean's name instead of its own.
    Preset {
        name: "spring",
        proof: Proof::Documentation,
        pool_labels: &["name"],
        hidden_by: &[
            "hikaricp_micrometer",
            "hikaricp_tracker",
            "agroal",
            "opentelemetry",
            "opentelemetry_old",
        ],
        series: &[
            says("jdbc_connections_active", InUse),
            says("jdbc_connections_idle", Idle),
            says("jdbc_connections_max", Max),
        ],
    },
];

const NEW_USED: (&str, &str) = ("db_client_connection_state", "used");
const NEW_IDLE: (&str, &str) = ("db_client_connection_state", "idle");
const OLD_USED: (&str, &str) = ("state", "used");
const OLD_IDLE: (&str, &str) = ("state", "idle");

/// The preset of this name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
