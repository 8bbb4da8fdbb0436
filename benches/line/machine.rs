//! The machine, the date and the versions of what is measured.

use std::fs;
use std::path::Path;
use std::process::Command;

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
