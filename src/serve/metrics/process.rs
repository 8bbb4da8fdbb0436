//! What the system says of this process. Own reading of `/proc`, because the metrics library
//! counts whole seconds of CPU only, and Plimsoll uses a few in an hour.

use std::fs;

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

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
    // The folder itself is open while it is counted.
    let open_fds = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    let max_fds = getrlimit(Resource::Nofile).current;
    parse(&stat, page_size() as u64, open_fds, max_fds)
}

/// The fields are those of `/proc/PID/stat` in proc(5), which counts them from 1.
fn parse(stat: &str, page: u64, open_fds: usize, max_fds: Option<u64>) -> Option<Numbers> {
    // The second field is the program's name in brackets, and may hold blanks and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    let value = |field: usize| fields.split_ascii_whitespace().nth(field - 3)?.parse::<u64>().ok();
    Some(Numbers {
        cpu_seconds: (value(14)? + value(15)?) as f64 / TICKS_A_SECOND,
        resident_bytes: value(24)?.saturating_mul(page),
        virtual_bytes: value(23)?,
        open_fds,
        max_fds,
        threads: value(20)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_even_when_the_name_is_odd() {
        let stat =
            "7 (a) b (c)) S 1 7 7 0 -1 4194560 900 0 0 0 123 45 0 0 20 0 5 0 100 2097152 256 1";
        let expected = Numbers {
            cpu_seconds: 1.68,
            resident_bytes: 1_048_576,
            virtual_bytes: 2_097_152,
            open_fds: 9,
            max_fds: Some(1024),
            threads: 5,
        };
        assert_eq!(parse(stat, 4096, 9, Some(1024)), Some(expected));
        assert_eq!(parse("", 4096, 9, None), None);
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
