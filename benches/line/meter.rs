//! Processor time of processes, from `/proc`.
//!
//! `/proc/PID/schedstat` begins with the time on a processor in nanoseconds
//! (Documentation/scheduler/sched-stats.rst); it is exact once the process sleeps, where `stat`
//! counts ticks of 10 ms. It is of one thread: for a program with threads those of all its tasks
//! are added.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plimsoll::clock;

use super::report::quantile;

/// `USER_HZ`, 100 on every architecture that is still built for (proc(5)).
const TICKS_A_SECOND: f64 = 100.0;

/// How often a backend is looked at. A look costs some microseconds.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// A backend that used no time for so long has ended its poll. All statements of a poll are sent
/// at once, and the next poll is most of a second away; on a busy machine it waits for a processor
/// in between.
const POLL_IS_OVER: Duration = Duration::from_millis(350);

/// What is smaller than this part of a large poll is none.
const PART_OF_POLL: f64 = 10.0;

/// Milliseconds on a processor of a process with one thread, such as a backend.
pub(super) fn backend_ms(pid: i32) -> Option<f64> {
    schedstat(&format!("/proc/{pid}/schedstat"))
}

fn schedstat(file: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let nanoseconds: u64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(nanoseconds as f64 / 1e6)
}

/// Milliseconds on a processor of all children of a process that have ended and were waited for,
/// to 10 ms.
pub(super) fn ended_children_ms(pid: i32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets, and may hold blanks.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = |field: usize| fields.split_ascii_whitespace().nth(field - 3)?.parse::<u64>().ok();
    Some((ticks(16)? + ticks(17)?) as f64 / TICKS_A_SECOND * 1_000.0)
}

/// The time of a process with threads. A thread that has ended keeps what it was last seen with.
#[derive(Debug)]
pub(super) struct Threads {
    pid: i32,
    seen: BTreeMap<String, f64>,
}

impl Threads {
    pub(super) fn of(pid: i32) -> Self {
        Self { pid, seen: BTreeMap::new() }
    }

    /// Milliseconds so far.
    pub(super) fn ms(&mut self) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten();
        for task in tasks.flatten() {
            let path = task.path().join("schedstat");
            if let Some(ms) = schedstat(&path.display().to_string()) {
                self.seen.insert(task.file_name().to_string_lossy().into_owned(), ms);
            }
        }
        self.seen.values().sum()
    }
}

/// A poll, as the processor time of its backend shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    pub(super) began: Instant,
    pub(super) ms: f64,
}

/// Looks at a backend all the time and tells its polls apart.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Burst>>,
}

impl Watch {
    pub(super) fn begin(pid: i32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || bursts(pid, &stopped));
        Self { stop, thread }
    }

    /// The polls that began and ended since.
    pub(super) fn end(self) -> Vec<Burst> {
        self.stop.store(true, Ordering::Relaxed);
        polls(&self.thread.join().unwrap_or_default())
    }
}

/// Bursts that are polls. Some seconds after one a backend hands in its statistics (pgstat.c),
/// which takes a hundredth of its time and is no poll: it is counted to the one before.
fn polls(bursts: &[Burst]) -> Vec<Burst> {
    let sizes: Vec<f64> = bursts.iter().map(|burst| burst.ms).collect();
    let least = quantile(&sizes, 0.9) / PART_OF_POLL;
    let mut polls: Vec<Burst> = Vec::new();
    for burst in bursts {
        match polls.last_mut() {
            Some(poll) if burst.ms < least => poll.ms += burst.ms,
            _ => polls.push(*burst),
        }
    }
    polls
}

fn bursts(pid: i32, stop: &AtomicBool) -> Vec<Burst> {
    let mut bursts = Vec::new();
    let mut last = backend_ms(pid).unwrap_or_default();
    // The burst that goes on: what the backend had before it, when it began, its last change.
    let mut open: Option<(f64, Instant, Instant)> = None;
    // One that is under way when we begin is not whole.
    let mut whole = false;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK_EVERY);
        let (now, Some(ms)) = (clock::monotonic(), backend_ms(pid)) else { break };
        match open {
            _ if ms > last => {
                let (before, began, _) = open.unwrap_or((last, now, now));
                open = Some((before, began, now));
            }
            Some((before, began, changed)) if now - changed >= POLL_IS_OVER => {
                if whole {
                    bursts.push(Burst { began, ms: ms - before });
                }
                (open, whole) = (None, true);
            }
            None => whole = true,
            Some(_) => {}
        }
        last = ms;
    }
    bursts
}
