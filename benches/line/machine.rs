//! The machine, the date and the versions of what is measured.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use plimsoll::clock;

use super::report::median;

/// Memory that is left at rest, and touched again.
const PAGES: usize = 1024;
const PAGE_BYTES: usize = 4096;

/// How long it is at rest: from one poll to the next.
const REST: Duration = Duration::from_secs(1);

/// How often, for a median.
const RESTS: usize = 5;

/// Cores, model, memory, kernel and date, in one line.
pub(super) fn described() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = kibibytes("/proc/meminfo", "MemTotal:") as f64 / f64::from(1 << 20);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let today = plimsoll::clock::wall().strftime("%Y-%m-%d");
    format!(
        "{today}; {cores} cores, {}, {memory:.0} GiB, Linux {}, {}",
        model(),
        kernel.trim(),
        distribution()
    )
}

/// The same, and how quiet it is now, which takes some seconds.
pub(super) fn described_now() -> String {
    format!("{}; a page of memory after a second of rest: {:.2} µs", described(), rested_page_us())
}

/// What it costs to touch a page of memory that has been at rest for a second, in microseconds.
///
/// Far below one where memory is memory. Some virtual machines take from their guests what is at
/// rest; there it is many, and all that comes once a second costs that for each page it needs, the
/// server's work as well as ours.
fn rested_page_us() -> f64 {
    let mut memory = vec![1_u8; PAGES * PAGE_BYTES];
    let once = |nth: usize| {
        std::thread::sleep(REST);
        let began = clock::monotonic();
        for page in memory.chunks_mut(PAGE_BYTES) {
            page[0] = std::hint::black_box(nth as u8);
        }
        clock::monotonic().duration_since(began).as_secs_f64() * 1e6 / PAGES as f64
    };
    median(&(0..RESTS).map(once).collect::<Vec<f64>>())
}

fn model() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = cpus.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(": ")).map(|(_, name)| name.trim());
    name.unwrap_or("a processor without a name").to_owned()
}

fn distribution() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("an unknown system").trim_matches('"').to_owned()
}

/// Memory that could be had now, in bytes.
pub(super) fn memory_available() -> u64 {
    kibibytes("/proc/meminfo", "MemAvailable:") * 1024
}

/// A line such as `VmRSS:  1024 kB` of a file under `/proc`; 0 if it is not there.
pub(super) fn kibibytes(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Plimsoll and its commit.
pub(super) fn plimsoll(program: &Path) -> String {
    let said = said(program, &["--version"]).unwrap_or_else(|| "plimsoll".to_owned());
    let folder = env!("CARGO_MANIFEST_DIR");
    let git = ["-C", folder, "rev-parse", "--short", "HEAD"];
    match self::said(Path::new("git"), &git) {
        Some(commit) => format!("{said} ({commit})"),
        None => said,
    }
}

/// The first line that a program says.
pub(super) fn said(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let line = text.lines().next()?.trim().to_owned();
    (!line.is_empty() && output.status.success()).then_some(line)
}
