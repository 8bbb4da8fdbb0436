//! `make bench` and `make bench-blind`: what Plimsoll costs, how fast it tells, and what it sees
//! where others see nothing. Everything is measured on this machine, on real servers, beside the
//! real exporters; nothing is simulated. Not a test: a limit that is missed is said, not an error.
//!
//! Each part can be run alone: `cargo bench --bench line -- poll latency`. Progress goes to stderr,
//! tables to stdout and to `target/bench`, from where `publish` puts them into README.md and docs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod blind;
mod burst;
mod commit;
mod exporter;
mod faults;
mod http;
mod instances;
mod latency;
mod machine;
mod memory;
mod meter;
mod parameters;
mod poll;
mod pooler;
mod psql;
mod publish;
mod recorder;
mod report;
mod scrape;
mod size;
mod world;

use std::process::ExitCode;

use clap::Parser;

use parameters::{Parameters, Part};
use report::Report;

/// Why a part could not be measured.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a part gives.
type Measured<T> = Result<T, Failure>;

fn main() -> ExitCode {
    let parameters = Parameters::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut broken = false;
    let mut reports: Vec<Report> = Vec::new();
    for part in parameters.parts() {
        eprintln!("== {}", part.name());
        let measured = runtime.block_on(run(part, &parameters));
        let saved = measured.and_then(|report| {
            report.save(&parameters.out)?;
            Ok(report)
        });
        match saved {
            Ok(report) => reports.push(report),
            Err(error) => {
                broken = true;
                eprintln!("error: {}: {}", part.name(), plimsoll::chain::chain(&*error));
            }
        }
    }
    for report in &reports {
        println!("{}", report.markdown());
    }
    if let Err(error) = report::save_summary(&parameters.out) {
        broken = true;
        eprintln!("error: {}", plimsoll::chain::chain(&*error));
    }
    if reports.len() > 1 {
        println!("{}", report::summary(&reports));
    }
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn run(part: Part, parameters: &Parameters) -> Measured<Report> {
    match part {
        Part::Size => size::measure(parameters),
        Part::Poll => poll::measure(parameters).await,
        Part::Scrape => scrape::measure(parameters).await,
        Part::Latency => latency::measure(parameters).await,
        Part::Commit => commit::measure(parameters).await,
        Part::Burst => burst::measure(parameters).await,
        Part::Memory => memory::measure(parameters).await,
        Part::Pooler => pooler::measure(parameters).await,
        Part::Instances => instances::measure(parameters).await,
        Part::Blind => blind::measure(parameters).await,
        Part::Publish => publish::publish(parameters),
    }
}
