//! What is measured, how large and for how long; the defaults are the figures that are published.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

/// A part of the benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// The size of the program.
    Size,
    /// What a poll costs the server and us, beside the bare query and the exporters.
    Poll,
    /// How long `/metrics` takes, and that it asks the server nothing.
    Scrape,
    /// From the login that crosses the line to the webhook.
    Latency,
    /// What a commit of a transition takes, beside a bare fdatasync.
    Commit,
    /// A thousand incidents that open within a second.
    Burst,
    /// Resident memory after some minutes.
    Memory,
    /// What looking at PgBouncer costs it, beside the exporter for it.
    Pooler,
    /// What asking a hundred instances for their pools costs us.
    Instances,
    /// The staged faults, and what everybody says of them. Not part of the default.
    Blind,
    /// Puts the saved tables between their marks in README.md and docs/benchmarks.md.
    Publish,
}

impl Part {
    /// Its name, as it is asked for.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Poll => "poll",
            Self::Scrape => "scrape",
            Self::Latency => "latency",
            Self::Commit => "commit",
            Self::Burst => "burst",
            Self::Memory => "memory",
            Self::Pooler => "pooler",
            Self::Instances => "instances",
            Self::Blind => "blind",
            Self::Publish => "publish",
        }
    }

    /// All that `make bench` runs, the short ones first.
    const ALL: [Self; 9] = [
        Self::Size,
        Self::Commit,
        Self::Burst,
        Self::Instances,
        Self::Pooler,
        Self::Scrape,
        Self::Poll,
        Self::Latency,
        Self::Memory,
    ];
}

/// Measures what Plimsoll costs and how fast it tells.
#[derive(Clone, Debug, Parser)]
#[command(name = "line", max_term_width = 100)]
pub(super) struct Parameters {
    /// The parts to run; all but `blind` and `publish` if none is named
    #[arg(value_enum)]
    parts: Vec<Part>,

    /// poll: client backends of the servers, one server after the other
    #[arg(long, value_delimiter = ',', default_value = "85,480,1980,4980")]
    pub(super) sizes: Vec<usize>,

    /// poll: seconds at each size, each with a poll, a bare query and a scrape of each exporter
    #[arg(long, default_value_t = 100)]
    pub(super) ticks: u32,

    /// scrape: client backends
    #[arg(long, default_value_t = 480)]
    pub(super) scrape_size: usize,

    /// scrape: databases beside those of every server: each has seven series, so that `/metrics`
    /// has nearly a thousand
    #[arg(long, default_value_t = 80)]
    pub(super) databases: u32,

    /// scrape: how often `/metrics` is read
    #[arg(long, default_value_t = 2_000)]
    pub(super) scrapes: u32,

    /// scrape: seconds in which statements are counted, once without scrapes and once with 500
    #[arg(long, default_value_t = 20)]
    pub(super) count_seconds: u32,

    /// latency: how often the line is crossed
    #[arg(long, default_value_t = 100)]
    pub(super) crossings: u32,

    /// commit: transitions that are committed, each after a bare fdatasync of either kind
    #[arg(long, default_value_t = 300)]
    pub(super) commits: u32,

    /// burst: incidents that open within a second
    #[arg(long, default_value_t = 1_000)]
    pub(super) incidents: u32,

    /// burst: how often
    #[arg(long, default_value_t = 3)]
    pub(super) bursts: u32,

    /// memory: client backends
    #[arg(long, default_value_t = 1_980)]
    pub(super) memory_size: usize,

    /// memory: minutes, with a scrape every five seconds
    #[arg(long, default_value_t = 10.0)]
    pub(super) minutes: f64,

    /// pooler: clients of PgBouncer, of whom none waits
    #[arg(long, default_value_t = 1_000)]
    pub(super) clients: usize,

    /// pooler: looks, and scrapes of the exporter, while it works, and a fifth of them at rest. In
    /// five minutes everything is asked at least once
    #[arg(long, default_value_t = 300)]
    pub(super) looks: u32,

    /// pooler: the exporter to compare with, which `make bench` fetches
    #[arg(long, default_value = "/usr/bin/prometheus-pgbouncer-exporter")]
    pub(super) bouncer_exporter: PathBuf,

    /// instances: how many
    #[arg(long, default_value_t = 100)]
    pub(super) instances: usize,

    /// instances: rounds, one a second
    #[arg(long, default_value_t = 60)]
    pub(super) rounds: u32,

    /// instances: what each of them shows
    #[arg(long, default_value_t = 20_000)]
    pub(super) page_bytes: usize,

    /// blind: seconds from the fault to the moment at which everybody is asked
    #[arg(long, default_value_t = 5)]
    pub(super) after: u32,

    /// blind: seconds from the fault for which Plimsoll's page is awaited
    #[arg(long, default_value_t = 60)]
    pub(super) page_wait: u32,

    /// The program that is measured
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/release/plimsoll"))]
    pub(super) program: PathBuf,

    /// Exporters to compare with, separated by colons; the one of the distribution, and for
    /// `blind` the later one that `make bench-blind` fetches
    #[arg(long, value_delimiter = ':', default_value = "/usr/bin/prometheus-postgres-exporter")]
    pub(super) exporters: Vec<PathBuf>,

    /// A folder on a real disk for what is written and synced
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target"))]
    pub(super) folder: PathBuf,

    /// Where tables are saved
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench"))]
    pub(super) out: PathBuf,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Parameters {
    /// What is to be run, in order.
    pub(super) fn parts(&self) -> Vec<Part> {
        if self.parts.is_empty() { Part::ALL.to_vec() } else { self.parts.clone() }
    }

    /// The program, or how to make it.
    pub(super) fn program(&self) -> Result<&Path, super::Failure> {
        if self.program.is_file() {
            return Ok(&self.program);
        }
        let program = self.program.display();
        Err(format!("there is no {program}\nhint: `cargo build --release`, or --program").into())
    }
}
