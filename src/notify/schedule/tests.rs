//! The schedule on rows by hand, and in a simulated world of many keys and failures.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::judge::telling::NotificationKind::{self, Resolve, Trigger, Update};
use proptest::prelude::*;

use super::{
    FEWEST_ATTEMPTS, LONGEST_ASKED, LONGEST_DELAY, LONGEST_OWED, Plan, Row, SHORTEST_ASKED, Turn,
    delay, is_too_old, plan,
};

const SECOND: Duration = Duration::from_secs(1);

/// Seconds after some instant.
fn at(seconds: f64) -> Timestamp {
    "2024-03-15T14:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs_f64(seconds)
}

fn row(key: &str, sequence: u64, kind: NotificationKind) -> Row<'_> {
    Row {
        key,
        sequence,
        kind,
        after_previous: Duration::ZERO,
        decided_at: at(0.0),
        attempts: 0,
        next_at: None,
        previous_accepted_at: None,
    }
}

fn rows(kinds: &[NotificationKind]) -> Vec<Row<'static>> {
    kinds.iter().zip(1..).map(|(kind, sequence)| row("k", sequence, *kind)).collect()
}

fn plan_at(rows: &[Row<'_>], seconds: f64) -> Plan {
    plan(rows, &BTreeSet::new(), at(seconds), 4, Duration::ZERO)
}

fn sends(plan: &Plan) -> Vec<usize> {
    plan.send.iter().map(|turn| turn.row).collect()
}

#[test]
fn only_updates_that_nothing_hangs_on_are_superseded() {
    let check = |kinds: &[NotificationKind], send: usize, supersede: &[usize]| {
        let plan = plan_at(&rows(kinds), 1.0);
        assert_eq!((sends(&plan), plan.supersede), (vec![send], supersede.to_vec()), "{kinds:?}");
    };
    check(&[Trigger], 0, &[]);
    check(&[Trigger, Update], 0, &[]);
    check(&[Trigger, Update, Update, Update], 0, &[1, 2]);
    check(&[Trigger, Update, Resolve], 0, &[1]);
    check(&[Trigger, Resolve, Trigger, Resolve], 0, &[]);
    check(&[Update, Update], 1, &[0]);
    check(&[Update, Resolve], 1, &[0]);
    check(&[Update, Update, Resolve, Trigger, Update, Update], 2, &[0, 1, 4]);
    check(&[Update, Trigger], 0, &[]);
    check(&[Resolve, Trigger, Update], 0, &[]);
}

#[test]
fn nothing_moves_under_a_key_in_flight() {
    let mut rows = rows(&[Update, Update, Resolve]);
    rows.push(row("other", 1, Trigger));
    let plan = plan(&rows, &BTreeSet::from(["k"]), at(1.0), 4, Duration::ZERO);
    assert_eq!((sends(&plan), plan.supersede), (vec![3], vec![]));
}

#[test]
fn pages_go_before_repeats_and_the_oldest_first() {
    let mut rows = vec![row("a", 1, Update), row("b", 1, Trigger), row("c", 1, Resolve)];
    rows[1].decided_at = at(2.0);
    rows[2].decided_at = at(1.0);
    assert_eq!(sends(&plan_at(&rows, 3.0)), [2, 1, 0]);
    let short = plan(&rows, &BTreeSet::new(), at(3.0), 1, Duration::ZERO);
    assert_eq!(sends(&short), [2]);
}

#[test]
fn a_failed_row_waits_for_its_time_and_a_newer_update_waits_with_it() {
    let mut rows = rows(&[Update, Update]);
    rows[0].attempts = 3;
    rows[0].next_at = Some(at(10.0));
    let waiting = Plan { wake_after: Some(SECOND * 6), ..Plan::default() };
    assert_eq!(plan_at(&rows, 4.0), waiting);
    let send = vec![Turn { row: 1, attempts: 3 }];
    let due = Plan { send, supersede: vec![0], wake_after: None };
    assert_eq!(plan_at(&rows, 10.0), due);
}

#[test]
fn a_row_waits_for_the_one_before_it() {
    let check = |kind, after, before_trigger, accepted: Option<f64>, now, wait: Option<f64>| {
        let mut row = row("k", 2, kind);
        row.after_previous = after;
        row.previous_accepted_at = accepted.map(at);
        let plan = plan(&[row], &BTreeSet::new(), at(now), 4, before_trigger);
        assert_eq!(plan.wake_after.map(|w| w.as_secs_f64()), wait);
        assert_eq!(plan.send.is_empty(), wait.is_some());
    };
    let none = Duration::ZERO;
    check(Trigger, SECOND * 2, none, Some(10.0), 10.5, Some(1.5));
    check(Trigger, SECOND * 2, none, Some(10.0), 12.0, None);
    check(Trigger, SECOND * 2, none, None, 10.5, None);
    check(Trigger, none, SECOND * 2, Some(10.0), 10.5, Some(1.5));
    check(Resolve, none, SECOND * 2, Some(10.0), 10.5, None);
    check(Update, SECOND * 60, none, Some(10.0), 11.0, Some(59.0));
}

#[test]
fn a_newer_update_keeps_the_patience_of_the_one_it_stands_for_and_a_resolve_does_not() {
    let check = |kind, wait: Option<f64>| {
        let mut rows = rows(&[Update, kind]);
        rows[0].after_previous = SECOND * 60;
        for row in &mut rows {
            row.previous_accepted_at = Some(at(0.0));
        }
        assert_eq!(plan_at(&rows, 1.0).wake_after.map(|w| w.as_secs_f64()), wait);
    };
    check(Update, Some(59.0));
    check(Resolve, None);
}

#[test]
fn a_clock_that_went_back_an_hour_delays_nothing() {
    let mut failed = row("a", 1, Trigger);
    failed.next_at = Some(at(3600.0));
    let mut after = row("b", 2, Trigger);
    after.after_previous = SECOND * 2;
    after.previous_accepted_at = Some(at(3600.0));
    assert_eq!(sends(&plan_at(&[failed, after], 0.0)), [0, 1]);
}

#[test]
fn delays_grow_are_capped_and_never_undercut_what_was_asked() {
    let check = |attempts, asked: Option<u64>, low: f64, high: f64| {
        let asked = asked.map(Duration::from_secs);
        let found = (delay(attempts, asked, 0.0), delay(attempts, asked, 1.0));
        let found = (found.0.as_secs_f64(), found.1.as_secs_f64());
        assert!((found.0 - low).abs() < 1e-6 && (found.1 - high).abs() < 1e-6, "{found:?}");
    };
    check(1, None, 0.5, 1.0);
    check(2, None, 1.0, 2.0);
    check(5, None, 8.0, 16.0);
    check(10, None, 150.0, 300.0);
    check(u32::MAX, None, 150.0, LONGEST_DELAY.as_secs_f64());
    check(1, Some(1), 1.0, 1.1);
    check(9, Some(30), 30.0, 33.0);
    check(1, Some(0), SHORTEST_ASKED.as_secs_f64(), 0.55);
    check(1, Some(u64::MAX), LONGEST_ASKED.as_secs_f64(), 990.0);
}

#[test]
fn what_is_owed_for_a_day_is_too_old() {
    let day = LONGEST_OWED.as_secs_f64();
    assert!(!is_too_old(at(0.0), at(day), FEWEST_ATTEMPTS));
    assert!(is_too_old(at(0.0), at(day + 1.0), FEWEST_ATTEMPTS));
    assert!(!is_too_old(at(day), at(0.0), FEWEST_ATTEMPTS));
    // A clock that was wrong until a moment ago makes nothing old.
    assert!(!is_too_old(at(0.0), at(50.0 * 365.0 * day), FEWEST_ATTEMPTS - 1));
    // A day of failures has more attempts than that, however long the receiver asks us to wait.
    let longest = delay(u32::MAX, Some(LONGEST_ASKED), 1.0) + Duration::from_mins(5);
    assert!(f64::from(FEWEST_ATTEMPTS) * longest.as_secs_f64() < day);
}

/// What the judge decides next for a key.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Opens, or tells again.
    Tell,
    /// Closes, if it is open.
    End,
    /// Resolve, trigger, update.
    Rise,
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Accepted,
    Fails(Option<u64>),
    Parked,
}

#[derive(Clone, Debug)]
struct Stored {
    key: String,
    sequence: u64,
    kind: NotificationKind,
    after_previous: Duration,
    decided_at: f64,
    attempts: u32,
    next_at: Option<f64>,
}

/// A judge, a store and a receiver in virtual time.
#[derive(Default)]
struct World {
    now: f64,
    sequence: u64,
    open: BTreeSet<String>,
    decided: Vec<Stored>,
    owed: Vec<Stored>,
    /// With the time at which the answer comes.
    in_flight: Vec<(f64, Stored)>,
    accepted_at: BTreeMap<String, f64>,
    sent: Vec<Stored>,
    accepted: Vec<Stored>,
    parked: Vec<Stored>,
}

impl World {
    fn decide(&mut self, key: &str, step: Step) {
        let is_open = self.open.contains(key);
        let rows: &[(NotificationKind, u64)] = match (step, is_open) {
            (Step::Tell | Step::Rise, false) => &[(Trigger, 0)],
            (Step::Tell, true) => &[(Update, 0)],
            (Step::End, true) => &[(Resolve, 0)],
            (Step::End, false) => &[],
            (Step::Rise, true) => &[(Resolve, 0), (Trigger, 2), (Update, 60)],
        };
        match rows.last().map(|row| row.0) {
            Some(Resolve) => self.open.remove(key),
            Some(_) => self.open.insert(key.to_owned()),
            None => false,
        };
        for (kind, after) in rows {
            self.sequence += 1;
            let row = Stored {
                key: key.to_owned(),
                sequence: self.sequence,
                kind: *kind,
                after_previous: Duration::from_secs(*after),
                decided_at: self.now,
                attempts: 0,
                next_at: None,
            };
            self.decided.push(row.clone());
            self.owed.push(row);
        }
    }

    /// Sends what is due; how long until the next is, if that is known.
    fn send(&mut self) -> Option<f64> {
        let rows: Vec<_> = self.owed.iter().map(|stored| self.row(stored)).collect();
        let busy = self.in_flight.iter().map(|(_, stored)| stored.key.as_str()).collect();
        let room = 2 - self.in_flight.len();
        let plan = plan(&rows, &busy, at(self.now), room, SECOND * 2);
        for turn in &plan.send {
            let stored = Stored { attempts: turn.attempts, ..self.owed[turn.row].clone() };
            if let Some(accepted) = self.accepted_at.get(&stored.key) {
                let waited = self.now - accepted + 1e-6;
                assert!(stored.kind == Resolve || waited >= stored.after_previous.as_secs_f64());
                assert!(stored.kind != Trigger || waited >= 2.0);
            }
            self.sent.push(stored.clone());
            self.in_flight.push((self.now + 0.3, stored));
        }
        for place in &plan.supersede {
            assert_eq!(self.owed[*place].kind, Update, "only updates are dropped");
            assert!(!busy_with(&self.in_flight, &self.owed[*place]), "dropped in flight");
        }
        let gone: BTreeSet<_> = plan.supersede.iter().copied().collect();
        let mut place = 0;
        self.owed.retain(|_| {
            place += 1;
            !gone.contains(&(place - 1))
        });
        plan.wake_after.map(|wait| wait.as_secs_f64())
    }

    fn row<'a>(&'a self, stored: &'a Stored) -> Row<'a> {
        Row {
            key: &stored.key,
            sequence: stored.sequence,
            kind: stored.kind,
            after_previous: stored.after_previous,
            decided_at: at(stored.decided_at),
            attempts: stored.attempts,
            next_at: stored.next_at.map(at),
            previous_accepted_at: self.accepted_at.get(&stored.key).map(|s| at(*s)),
        }
    }

    fn answer(&mut self, stored: &Stored, fate: Fate) {
        let place = self.owed.iter().position(|o| o.sequence == stored.sequence).unwrap();
        match fate {
            Fate::Accepted => {
                self.accepted_at.insert(stored.key.clone(), self.now);
                self.accepted.push(self.owed.remove(place));
            }
            Fate::Parked => self.parked.push(self.owed.remove(place)),
            Fate::Fails(asked) => {
                let row = &mut self.owed[place];
                row.attempts = stored.attempts + 1;
                let wait = delay(row.attempts, asked.map(Duration::from_secs), 0.5);
                row.next_at = Some(self.now + wait.as_secs_f64());
            }
        }
    }

    /// Runs until nothing is owed.
    fn run(&mut self, mut steps: Vec<(f64, u8, Step)>, mut fates: Vec<Fate>) {
        steps.reverse();
        fates.reverse();
        for _ in 0..10_000 {
            let wake = self.send().map(|wait| self.now + wait.max(0.001));
            let answer = self.in_flight.first().map(|(at, _)| *at);
            let step = steps.last().map(|(after, ..)| self.now + after);
            let next = [wake, answer, step].into_iter().flatten().fold(f64::INFINITY, f64::min);
            if next.is_infinite() {
                assert!(self.owed.is_empty(), "left behind: {:?}", self.owed);
                return;
            }
            if let Some((after, ..)) = steps.last_mut() {
                *after -= next - self.now;
            }
            self.now = next;
            while self.in_flight.first().is_some_and(|(at, _)| *at <= self.now) {
                let (_, stored) = self.in_flight.remove(0);
                let fate = fates.pop().unwrap_or(Fate::Accepted);
                self.answer(&stored, fate);
            }
            while steps.last().is_some_and(|(after, ..)| *after <= 1e-9) {
                let (_, key, step) = steps.pop().unwrap();
                self.decide(&format!("key {key}"), step);
            }
        }
        panic!("it never comes to an end");
    }
}

fn busy_with(in_flight: &[(f64, Stored)], row: &Stored) -> bool {
    in_flight.iter().any(|(_, other)| other.sequence == row.sequence)
}

fn sequences(rows: &[Stored], key: &str, of: &[NotificationKind]) -> Vec<u64> {
    let rows = rows.iter().filter(|row| row.key == key && of.contains(&row.kind));
    rows.map(|row| row.sequence).collect()
}

fn steps() -> impl Strategy<Value = Vec<(f64, u8, Step)>> {
    let step = prop_oneof![4 => Just(Step::Tell), 2 => Just(Step::End), 1 => Just(Step::Rise)];
    prop::collection::vec((0.0..40.0, 0_u8..3, step), 1..40)
}

proptest! {
    /// Every trigger and resolve is accepted once, in order; no trigger follows its own resolve.
    #[test]
    fn nothing_that_matters_is_lost_or_out_of_order(
        steps in steps(),
        fates in prop::collection::vec(
            prop_oneof![
                2 => Just(Fate::Accepted),
                2 => Just(Fate::Fails(None)),
                1 => (0_u64..100).prop_map(|s| Fate::Fails(Some(s))),
            ],
            0..60,
        ),
    ) {
        let mut world = World::default();
        world.run(steps, fates);
        for key in world.decided.iter().map(|row| row.key.as_str()).collect::<BTreeSet<_>>() {
            let matters = &[Trigger, Resolve];
            let decided = sequences(&world.decided, key, matters);
            prop_assert_eq!(sequences(&world.accepted, key, matters), decided);
            let all = sequences(&world.accepted, key, &[Trigger, Update, Resolve]);
            prop_assert!(all.is_sorted_by(|a, b| a < b), "{:?}", all);
            let newest = world.decided.iter().rev().find(|row| row.key == key).unwrap();
            prop_assert_eq!(all.last(), Some(&newest.sequence), "the newest is always told");
        }
    }

    /// While every attempt succeeds, nothing is sent twice.
    #[test]
    fn nothing_is_sent_twice_that_was_accepted(steps in steps()) {
        let mut world = World::default();
        world.run(steps, Vec::new());
        prop_assert_eq!(world.sent.len(), world.accepted.len());
        let once: BTreeSet<_> = world.sent.iter().map(|row| row.sequence).collect();
        prop_assert_eq!(once.len(), world.sent.len());
    }

    /// What is parked holds nothing up.
    #[test]
    fn what_is_parked_holds_nothing_up(
        steps in steps(),
        fates in prop::collection::vec(
            prop_oneof![Just(Fate::Accepted), Just(Fate::Parked)], 0..60,
        ),
    ) {
        let mut world = World::default();
        world.run(steps, fates);
        let matters = |rows: &[Stored]| rows.iter().filter(|row| row.kind != Update).count();
        let done = matters(&world.accepted) + matters(&world.parked);
        prop_assert_eq!(done, matters(&world.decided));
    }
}
