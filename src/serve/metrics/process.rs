//! What the system says of this process. Own reading of `/proc`, because the metrics library
//! counts whole seconds of CPU only, and Plimsoll uses a few in an hour.

use std::fs;

/// Clock ticks in a second in `/proc/self/stat`: `USER_HZ`, 100 on every architecture that is
/// still built for (proc(5)).
const TICKS_A_SECOND: f64 = 100.0;

/// The process at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::serve) struct Numbers {
    /// User and system time.
    pub(super) cpu_seconds: f64,
    /// Memory in use.
    pub(super) resident_bytes: u64,
    /// Addresses in use.
    pub(super) virtual_bytes: u64,
    /// Open file descriptors.
    pub(super) open_fds: usize,
    /// How many there may be; `None` for no limit.
    pub(super) max_fds: Option<u64>,
    /// Threads.
    pub(super) threads: u64,
}

/// Reads the process' numbers; `None` where there is no `/proc` (macOS) or it says otherwise.
pub(in crate::serve) fn read() -> Option<Numbers> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    // The folder itself is open while it is counted.
    let open_fds = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    parse(&stat, &status, &limits, open_fds)
}

fn parse(stat: &str, status: &str, limits: &str, open_fds: usize) -> Option<Numbers> {
    // The second field is the program's name in brackets, and may hold blanks and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = |field: usize| fields.split_ascii_whitespace().nth(field - 3)?.parse::<u64>().ok();
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let max_fds = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    Some(Numbers {
        cpu_seconds: (ticks(14)? + ticks(15)?) as f64 / TICKS_A_SECOND,
        resident_bytes: value("VmRSS:")? * 1024,
        virtual_bytes: value("VmSize:")? * 1024,
        open_fds,
        max_fds: max_fds.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()),
        threads: value("Threads:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_even_when_the_name_is_odd() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 900 0 0 0 123 45 0 0 20 0 5 0 100 1 2";
        let status = "Name:\ta) b (c)\nVmSize:\t  2048 kB\nVmRSS:\t 1024 kB\nThreads:\t5\n";
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024  4096  files\n";
        let expected = Numbers {
            cpu_seconds: 1.68,
            resident_bytes: 1_048_576,
            virtual_bytes: 2_097_152,
            open_fds: 9,
            max_fds: Some(1024),
            threads: 5,
        };
        assert_eq!(parse(stat, status, limits, 9), Some(expected));
        assert_eq!(parse("", status, limits, 9), None);
        let unlimited = parse(stat, status, "Max open files unlimited unlimited files", 9);
        assert_eq!(unlimited.and_then(|numbers| numbers.max_fds), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn reads_this_process() {
        let numbers = read().expect("Linux has /proc");
        assert!(numbers.resident_bytes > 1_000_000, "{numbers:?}");
        assert!(numbers.virtual_bytes >= numbers.resident_bytes, "{numbers:?}");
        assert!(numbers.open_fds >= 3 && numbers.threads >= 1, "{numbers:?}");
    }
}
