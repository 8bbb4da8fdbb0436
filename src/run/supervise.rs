//! Starts a task again when it panics, and gives it up when that does not help.
//!
//! A panic is a mistake of ours, and no reason to stop watching: the others go on, this one begins
//! again from what is committed. Three in ten minutes, and it is said aloud instead.

use std::collections::VecDeque;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::clock;

/// So many panics …
const MAX_PANICS: usize = 3;

/// … within this time, and the task is given up.
const PANIC_WINDOW: Duration = Duration::from_mins(10);

/// A breath before a task begins again, so that a panic at every start cannot spin.
const PAUSE: Duration = Duration::from_secs(1);

/// How a supervised task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself.
    Done,
    /// It panicked too often.
    GivenUp,
}

/// Runs what `start` makes until it ends by itself. `on_panic` hears of every panic.
pub(super) async fn supervise<F>(
    what: &str,
    start: impl Fn() -> F,
    mut on_panic: impl FnMut(),
) -> Ended
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut panics: VecDeque<Instant> = VecDeque::new();
    loop {
        let mut task = JoinSet::new();
        task.spawn(start());
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                // The panic hook has logged its message and place.
                tracing::error!(task = what, "a task of ours failed; it begins again");
            }
            _ => return Ended::Done,
        }
        on_panic();
        let now = clock::monotonic();
        panics.push_back(now);
        panics.retain(|at| now.saturating_duration_since(*at) < PANIC_WINDOW);
        if MAX_PANICS <= panics.len() {
            tracing::error!(task = what, "a task of ours failed too often and is given up");
            return Ended::GivenUp;
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A task that panics in its first `panics` lives, and then ends well.
    async fn live(panics: usize) -> (Ended, usize) {
        let lives = Arc::new(AtomicUsize::new(0));
        let mut heard = 0;
        let start = || {
            let lives = Arc::clone(&lives);
            async move {
                assert!(panics <= lives.fetch_add(1, Ordering::SeqCst), "one of its panics");
            }
        };
        let ended = supervise("a test", start, || heard += 1).await;
        (ended, heard)
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_begins_again_and_is_given_up_at_the_third() {
        assert_eq!(live(0).await, (Ended::Done, 0));
        assert_eq!(live(2).await, (Ended::Done, 2));
        assert_eq!(live(9).await, (Ended::GivenUp, 3));
    }
}
