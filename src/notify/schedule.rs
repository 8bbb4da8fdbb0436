//! What is to be sent to one receiver now, what need not be sent any more, and when to look again.
//!
//! Pure: rows and the time in, a plan out. The rows of one key go out in their order, one at a
//! time. Of updates in a row that nobody has been sent only the newest goes, and none before a
//! resolve; triggers and resolves always go. Called by the sender, before everything it does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::judge::telling::NotificationKind;

/// The delay after the first failure, before jitter: most failures are a restart or a hiccup.
pub const FIRST_DELAY: Duration = Duration::from_secs(1);

/// Delays double up to this: a receiver that is back is found within five minutes.
pub const LONGEST_DELAY: Duration = Duration::from_mins(5);

/// What a receiver asks for is honoured up to this. A page that waits an hour because somebody's
/// limiter says so is a page that nobody gets.
pub const LONGEST_ASKED: Duration = Duration::from_mins(15);

/// A receiver that asks to be called again at once is still not called in a tight loop.
pub const SHORTEST_ASKED: Duration = Duration::from_millis(500);

/// A notification that could not be delivered for so long is parked at its next failure: whoever
/// it was for has found out. Long enough for a certificate or a key to be renewed by day.
pub const LONGEST_OWED: Duration = Duration::from_hours(24);

/// So many attempts at least are made before that, because the wall clock may be wrong: a machine
/// that starts in 1970 and hears the time a minute later must not give up a page of that minute.
/// With the longest pauses that there can be, a day has 65 of them.
pub const FEWEST_ATTEMPTS: u32 = 60;

/// A row of the outbox, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Rows of one key wait for each other.
    pub key: &'a str,
    /// Their order.
    pub sequence: u64,
    /// What it does.
    pub kind: NotificationKind,
    /// Not before this long after `previous_accepted_at`.
    pub after_previous: Duration,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// Attempts that failed.
    pub attempts: u32,
    /// The next attempt is not before this.
    pub next_at: Option<Timestamp>,
    /// When the receiver last accepted something under this key.
    pub previous_accepted_at: Option<Timestamp>,
}

/// What to do now. Rows are named by their place in what was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows that a newer one has made pointless.
    pub supersede: Vec<usize>,
    /// Rows to be sent now, in this order, one a key.
    pub send: Vec<Turn>,
    /// The first of the others is due after this long; `None` if none is left or room was short.
    pub wake_after: Option<Duration>,
}

/// A row that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its place.
    pub row: usize,
    /// Failed attempts so far, of those before it that it stands for too.
    pub attempts: u32,
}

/// Plans what to send of `rows`, at most `room` at once, none under a key of `in_flight`.
///
/// `before_trigger` is how long after anything else under its key a trigger waits.
pub fn plan(
    rows: &[Row<'_>],
    in_flight: &BTreeSet<&str>,
    now: Timestamp,
    room: usize,
    before_trigger: Duration,
) -> Plan {
    let mut keys: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, row) in rows.iter().enumerate() {
        keys.entry(row.key).or_default().push(place);
    }
    let mut plan = Plan::default();
    let mut due = Vec::new();
    for (key, mut places) in keys {
        if in_flight.contains(key) {
            continue;
        }
        places.sort_by_key(|place| rows[*place].sequence);
        let queue = Queue::of(rows, &places);
        // Behind the head nothing was attempted yet, and nothing is lost by dropping it early.
        plan.supersede.extend(&queue.behind);
        let wait = queue.wait(rows, now, before_trigger);
        if wait.is_zero() {
            due.push(queue);
        } else {
            plan.wake_after = Some(plan.wake_after.map_or(wait, |other| other.min(wait)));
        }
    }
    // A page is not kept waiting by the repeats of others.
    due.sort_by_key(|queue| {
        let row = &rows[queue.head];
        (row.kind == NotificationKind::Update, row.decided_at, row.sequence)
    });
    for queue in due.into_iter().take(room) {
        // Before it is sent, and not when it is planned: what waits keeps its place in the queue,
        // and with it the delay that its failures have earned.
        plan.supersede.extend(&queue.before);
        let attempts = queue.attempts(rows);
        plan.send.push(Turn { row: queue.head, attempts });
    }
    plan.supersede.sort_unstable();
    plan
}

/// The unsent rows of one key.
struct Queue {
    /// The next to be sent.
    head: usize,
    /// What stood before it and need not be sent once it is.
    before: Vec<usize>,
    /// What stands behind it and need not be sent at all.
    behind: Vec<usize>,
}

impl Queue {
    /// Sorts out `places`, which are in order and not empty.
    fn of(rows: &[Row<'_>], places: &[usize]) -> Self {
        let is_pointless = |at: usize| {
            let row = &rows[places[at]];
            let says_all = |next: &Row<'_>| match next.kind {
                NotificationKind::Resolve => true,
                // One that is to come later than what follows it is a reminder, not a state.
                NotificationKind::Update => row.after_previous <= next.after_previous,
                NotificationKind::Trigger => false,
            };
            let next = places.get(at + 1).map(|place| &rows[*place]);
            row.kind == NotificationKind::Update && next.is_some_and(says_all)
        };
        let head = (0..places.len()).find(|at| !is_pointless(*at)).unwrap_or(places.len() - 1);
        let behind = (head + 1..places.len()).filter(|at| is_pointless(*at));
        Self {
            head: places[head],
            before: places[..head].to_vec(),
            behind: behind.map(|at| places[at]).collect(),
        }
    }

    fn attempts(&self, rows: &[Row<'_>]) -> u32 {
        self.all(rows).map(|row| row.attempts).max().unwrap_or(0)
    }

    /// The head and what it stands for.
    fn all<'a>(&'a self, rows: &'a [Row<'a>]) -> impl Iterator<Item = &'a Row<'a>> {
        self.before.iter().chain([&self.head]).map(|place| &rows[*place])
    }

    /// How long until the head may be sent; zero if it is due.
    fn wait(&self, rows: &[Row<'_>], now: Timestamp, before_trigger: Duration) -> Duration {
        let head = &rows[self.head];
        let retry = self.all(rows).filter_map(|row| row.next_at).map(|at| until(at, now));
        let retry = retry.max().unwrap_or(Duration::ZERO);
        // The clock went back if the next attempt is further away than any delay: then at once.
        let retry = if retry > LONGEST_ASKED.mul_f64(2.0) { Duration::ZERO } else { retry };
        retry.max(self.wait_for_previous(rows, now, head, before_trigger))
    }

    fn wait_for_previous(
        &self,
        rows: &[Row<'_>],
        now: Timestamp,
        head: &Row<'_>,
        before_trigger: Duration,
    ) -> Duration {
        // An update stands for those before it, with their patience; a resolve does not.
        let after = match head.kind {
            NotificationKind::Trigger => head.after_previous.max(before_trigger),
            NotificationKind::Update => {
                self.all(rows).map(|row| row.after_previous).max().unwrap_or_default()
            }
            NotificationKind::Resolve => head.after_previous,
        };
        // Accepted in the future: the clock went back, and nothing can be said.
        match head.previous_accepted_at {
            Some(accepted) if accepted <= now => after.saturating_sub(until(now, accepted)),
            _ => Duration::ZERO,
        }
    }
}

/// From `now` until `at`; zero if that is past.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// How long to wait after the failure that makes `attempts` of them, with `jitter` in 0 to 1.
///
/// `asked` is what the receiver asked for, and is never undercut within its bounds.
pub fn delay(attempts: u32, asked: Option<Duration>, jitter: f64) -> Duration {
    if let Some(asked) = asked {
        // A little more, so that all who were told the same do not come back at once.
        return asked.clamp(SHORTEST_ASKED, LONGEST_ASKED).mul_f64(1.0 + 0.1 * jitter);
    }
    let doublings = attempts.saturating_sub(1).min(31);
    let delay = FIRST_DELAY.saturating_mul(1 << doublings).min(LONGEST_DELAY);
    delay.mul_f64(0.5 + 0.5 * jitter)
}

/// Whether a notification that failed again, after so many `attempts` that failed before, has been
/// owed for too long.
pub fn is_too_old(decided_at: Timestamp, now: Timestamp, attempts: u32) -> bool {
    until(now, decided_at) > LONGEST_OWED && FEWEST_ATTEMPTS <= attempts
}

#[cfg(test)]
mod tests;
