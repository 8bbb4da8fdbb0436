//! How often each command is asked.
//!
//! PgBouncer has one thread, and what it does for us it does not do for its clients. Measured on
//! 1.18, 1.24 and 1.26 with a thousand clients, in time on its processor: pools, lists, databases,
//! users, state and totals 0.008 to 0.023 ms each, `SHOW CONFIG` 0.04 to 0.05 ms, `SHOW CLIENTS`
//! 0.8 ms on a quiet machine and 1.8 to 2.8 ms on a busy one; being woken costs it 0.06 to 0.3 ms,
//! as other programs have left the processor's caches. So pools are asked for at each tick, all
//! else less often, and single clients once a minute; every five seconds while it matters.
//!
//! Where a command takes long all the same (thousands of pools, or of clients), it is asked less
//! often: what it takes longer than the quickest of them, which is the way there and back, is at
//! most so small a part of the time between. Called by [`super::look`] and [`super`].

use std::time::{Duration, Instant};

/// At most this part of the pooler's time is for a command of ours.
const SHARE: f64 = 0.005;

/// And this part for the list of single clients while nobody waits: as soon as somebody does, it is
/// asked for. A thousand are listed each minute by it on a quiet machine (1.3 ms from question to
/// answer); on one that takes 2 ms, each minute, they alone would be a quarter of what a scrape of
/// `pgbouncer_exporter` takes.
const SHARE_OF_LISTS_AT_REST: f64 = 0.000_025;

/// Who is connected is known as of two minutes ago, however long the list.
const LISTS_REST_AT_MOST: Duration = Duration::from_mins(2);

/// However dear a command is, it is asked as often as this.
const REST_AT_MOST: Duration = Duration::from_mins(5);

/// The look itself comes as often as this: a pooler that is not looked at for long is not watched.
const LOOK_AT_MOST: Duration = Duration::from_secs(15);

/// The cheapest of so many is what a command costs: the time of one that came while the pooler was
/// busy is not its work for us.
const WEIGHED: usize = 5;

/// The commands, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Command {
    Version,
    Pools,
    Lists,
    Databases,
    Users,
    Config,
    State,
    StatsTotals,
    Stats,
    Clients,
    Servers,
}

impl Command {
    /// What is sent. No `;`: some look-alikes take it for a part of the name.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Version => "SHOW VERSION",
            Self::Pools => "SHOW POOLS",
            Self::Lists => "SHOW LISTS",
            Self::Databases => "SHOW DATABASES",
            Self::Users => "SHOW USERS",
            Self::Config => "SHOW CONFIG",
            Self::State => "SHOW STATE",
            Self::StatsTotals => "SHOW STATS_TOTALS",
            Self::Stats => "SHOW STATS",
            Self::Clients => "SHOW CLIENTS",
            Self::Servers => "SHOW SERVERS",
        }
    }

    /// How often at most it is asked, at rest or while it matters; zero is at each look.
    fn base(self, matters: bool) -> Duration {
        match self {
            Self::Pools => Duration::ZERO,
            Self::Version | Self::Config => Duration::from_mins(1),
            Self::Users => Duration::from_secs(15),
            _ if matters => Duration::from_secs(5),
            Self::Clients | Self::Servers => Duration::from_mins(1),
            // PAUSE, RELOAD and SET show in these, clients that have no pool, and who is served.
            Self::Lists | Self::Databases | Self::State | Self::StatsTotals | Self::Stats => {
                Duration::from_secs(15)
            }
        }
    }
}

/// When a command was asked, and what it cost.
#[derive(Clone, Debug, Default)]
pub(super) struct Rhythm {
    asked_at: Option<Instant>,
    /// The newest last.
    costs: Vec<Duration>,
}

impl Rhythm {
    /// Notes that it was asked at `began`, and answered so much later.
    pub(super) fn note(&mut self, began: Instant, cost: Duration) {
        self.asked_at = Some(began);
        if self.costs.len() == WEIGHED {
            self.costs.remove(0);
        }
        self.costs.push(cost);
    }

    /// What it took, of late, at its quickest.
    pub(super) fn quickest(&self) -> Option<Duration> {
        self.costs.iter().min().copied()
    }

    /// Whether it is to be asked again. `way` is what the quickest of all commands takes.
    pub(super) fn is_due(
        &self,
        command: Command,
        matters: bool,
        way: Duration,
        now: Instant,
    ) -> bool {
        let (share, at_most) = match command {
            Command::Clients | Command::Servers if !matters => {
                (SHARE_OF_LISTS_AT_REST, LISTS_REST_AT_MOST)
            }
            _ => (SHARE, REST_AT_MOST),
        };
        let rest = command.base(matters).max(self.rest(way, share)).min(at_most);
        self.asked_at.is_none_or(|asked| now.saturating_duration_since(asked) >= rest)
    }

    /// The time between two looks, if this is what they cost.
    pub(super) fn look(&self, tick: Duration, way: Duration) -> Duration {
        self.rest(way, SHARE).min(LOOK_AT_MOST).max(tick)
    }

    fn rest(&self, way: Duration, share: f64) -> Duration {
        let cost = self.quickest().unwrap_or_default().saturating_sub(way);
        Duration::try_from_secs_f64(cost.as_secs_f64() / share).unwrap_or(REST_AT_MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn asked(costs: &[Duration]) -> (Rhythm, Instant) {
        let (mut rhythm, now) = (Rhythm::default(), clock::monotonic());
        for cost in costs {
            rhythm.note(now, *cost);
        }
        (rhythm, now)
    }

    #[test]
    fn cheap_commands_keep_their_base() {
        let (rhythm, now) = asked(&[Duration::from_micros(30)]);
        let due = |command, matters, after: Duration| {
            rhythm.is_due(command, matters, Duration::ZERO, now + after)
        };
        assert!(Rhythm::default().is_due(Command::Clients, false, Duration::ZERO, now));
        assert!(due(Command::Pools, false, SECOND));
        assert!(!due(Command::Databases, false, SECOND * 14));
        assert!(due(Command::Databases, false, SECOND * 15));
        assert!(!due(Command::Databases, true, SECOND * 4));
        assert!(due(Command::Databases, true, SECOND * 5));
        assert!(!due(Command::Clients, false, SECOND * 59));
        assert!(due(Command::Clients, false, SECOND * 60));
        assert!(!due(Command::Clients, true, SECOND * 4));
        assert!(due(Command::Clients, true, SECOND * 5));
    }

    #[test]
    fn dear_commands_are_asked_less_often_and_never_forgotten() {
        let way = Duration::from_millis(20);
        let (rhythm, now) = asked(&[Duration::from_millis(70)]);
        assert!(!rhythm.is_due(Command::Clients, true, way, now + SECOND * 9));
        assert!(rhythm.is_due(Command::Clients, true, way, now + SECOND * 10));
        let (rhythm, now) = asked(&[SECOND * 30]);
        let soon = REST_AT_MOST.saturating_sub(SECOND);
        assert!(!rhythm.is_due(Command::Clients, true, way, now + soon));
        assert!(rhythm.is_due(Command::Clients, true, way, now + REST_AT_MOST));
    }

    #[test]
    fn a_list_of_clients_comes_each_minute_and_each_other_where_it_is_long() {
        let due = |micros, matters, after| {
            let (rhythm, now) = asked(&[Duration::from_micros(micros)]);
            let way = Duration::from_micros(100);
            rhythm.is_due(Command::Clients, matters, way, now + SECOND * after)
        };
        assert!(!due(1_300, false, 59));
        assert!(due(1_300, false, 60), "a thousand on a quiet machine");
        assert!(!due(2_100, false, 79), "on one that is not");
        assert!(due(2_100, false, 80));
        assert!(!due(40_000, false, 119), "twenty thousand");
        assert!(due(40_000, false, 120));
        assert!(due(2_100, true, 5), "somebody waits");
    }

    #[test]
    fn one_slow_answer_is_no_price() {
        let near = Duration::ZERO;
        let (rhythm, _) = asked(&[Duration::from_micros(30), SECOND * 3]);
        assert_eq!(rhythm.look(SECOND, near), SECOND);
        let (rhythm, _) = asked(&[Duration::from_millis(20); WEIGHED + 1]);
        assert_eq!(rhythm.look(SECOND, near), SECOND * 4);
        assert_eq!(rhythm.look(SECOND * 5, near), SECOND * 5);
        // Nor is a long way.
        assert_eq!(rhythm.look(SECOND, Duration::from_millis(18)), SECOND);
        let (rhythm, _) = asked(&[SECOND; WEIGHED]);
        assert_eq!(rhythm.look(SECOND, near), LOOK_AT_MOST);
    }
}
