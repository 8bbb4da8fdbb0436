//! A timeline as text, played through the judge.
//!
//! Each line is one or more readings, or something that happens between two of them:
//!
//! ```text
//! 60 x 1s: used 40                      sixty readings, a second apart, 40 of 47 slots used
//! 1s: refused reserved_for_superusers   our own login is refused
//! 1s: fails too_slow                    the server could not be read
//! 1s: used 40 role payment=45/50        a role with a CONNECTION LIMIT
//! 1s: used 40 database payment=45/50    a database with one
//! 1s: used 40 saw role_limit            somebody else was refused
//! 1s: used 40 on standby                a standby of the same system answers
//! 1s: used 40 on other                  a server of another system does
//! 1s: used 40 on nobody                 its system identifier cannot be read
//! 1s: used 40 started later             the server was started again
//! 1s: used 40 despite all_slots_taken   read as a walsender; our own login is refused
//! 1s: used 40 seen before               the observation of before, a second older
//! 1s: used 40 seen long_ago             the same, too old to speak of now
//! 1s: used 40 pooler 20/20,wait=3       with another source: see [`crate::beside`]
//! restart                               the daemon dies; what was committed is restored
//! lose state                            the same, with an empty state folder
//! clock +1h                             the wall clock jumps
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use plimsoll_core::judge::incident::dedup_key;
use plimsoll_core::judge::rule::{
    Level, Levels, LoginsRule, RuleSet, SourceRule, StateRule, SubjectRule, Threshold,
    UtilizationRule, WaitLevel, WaitLevels, WaitingRule,
};
use plimsoll_core::judge::source::Sources;
use plimsoll_core::judge::switch::ServerIdentity;
use plimsoll_core::judge::telling::{Listener, Manners};
use plimsoll_core::judge::{
    Commit, Input, Rules, Severity, State, TargetIdentity, Transition, Verdict, step,
};
use plimsoll_core::message::summary;
use plimsoll_core::reading::postgres::{
    ConnectionLimit, Cost, Group, Limits, Observation, Server, SessionState,
};
use plimsoll_core::reading::{Failure, FailureKind, Logins, Part, Reading, Refusal, RefusedLogin};

use crate::beside::Beside;

/// The rules as they are shipped.
pub(crate) fn shipped() -> RuleSet {
    let level = |above, hold, clear_below| Level {
        threshold: Threshold::Ratio { above, clear_below },
        hold: seconds(hold),
        keep_firing_for: Duration::ZERO,
    };
    let levels = Levels { warning: Some(level(0.8, 60, 0.7)), critical: Some(level(0.9, 10, 0.8)) };
    let subjects = SubjectRule { levels, subjects: BTreeMap::new() };
    let full = Levels { critical: Some(level(0.9, 60, 0.8)), ..levels };
    let wait = |above, above_clients, hold, clear_below, keep| WaitLevel {
        above: Duration::from_millis(above),
        above_clients,
        clear_below: Duration::from_millis(clear_below),
        hold: seconds(hold),
        keep_firing_for: seconds(keep),
    };
    let waits = WaitLevels {
        warning: Some(wait(1000, None, 15, 500, 0)),
        critical: Some(wait(5000, Some(0.1), 10, 1000, 60)),
    };
    RuleSet {
        slots: Some(levels),
        slots_full: Some(StateRule { hold: Duration::ZERO, keep_firing_for: seconds(10) }),
        logins_refused: Some(LoginsRule {
            unanswered_for: seconds(30),
            keep_firing_for: seconds(60),
        }),
        role_limit: Some(subjects.clone()),
        database_limit: Some(subjects),
        pool_waiting: Some(WaitingRule {
            levels: waits,
            subjects: BTreeMap::new(),
            timeouts: true,
        }),
        pool_utilization: Some(UtilizationRule {
            levels: SubjectRule { levels: full, subjects: BTreeMap::new() },
            alone: false,
        }),
        overcommit: Some(StateRule { hold: seconds(60), keep_firing_for: seconds(60) }),
        source_unreadable: Some(SourceRule {
            refused_or_stopped: seconds(30),
            unreachable_or_slow: seconds(120),
            starting: seconds(300),
            others: seconds(120),
            keep_firing_for: Duration::ZERO,
            subjects: BTreeMap::new(),
        }),
    }
}

/// A receiver that hears from `min_severity` on.
pub(crate) fn listener(name: &str, min_severity: Severity) -> Listener {
    Listener {
        name: name.to_owned(),
        min_severity,
        send_resolved: true,
        rules: Vec::new(),
        targets: Vec::new(),
        repeat_interval: seconds(900),
        repeat_interval_warning: seconds(4 * 3600),
        manners: Manners { rise_needs_new_trigger: false, unknown_resolve_is_harmless: false },
    }
}

/// A receiver with the manners of PagerDuty.
pub(crate) fn pagerduty(name: &str, min_severity: Severity) -> Listener {
    let manners = Manners { rise_needs_new_trigger: true, unknown_resolve_is_harmless: true };
    Listener { manners, ..listener(name, min_severity) }
}

/// The shipped rules for one target with an archive that hears warnings.
pub(crate) fn rules(listeners: Vec<Listener>) -> Rules {
    let target = TargetIdentity {
        name: "payment-db-primary".to_owned(),
        dedup_key: dedup_key(Some("test"), "payment-db-primary"),
        labels: BTreeMap::new(),
        link: None,
    };
    Rules { target, set: shipped(), listeners, sources: Sources::default() }
}

/// A player that nobody listens to.
pub(crate) fn silent() -> Player {
    Player::new(rules(Vec::new()))
}

/// A player with a receiver that hears warnings.
pub(crate) fn archive() -> Player {
    Player::new(rules(vec![listener("archive", Severity::Warning)]))
}

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Who plays: the judge's state, and what a disk would hold of it.
pub(crate) struct Player {
    pub(crate) rules: Rules,
    pub(crate) state: State,
    committed: State,
    since_commit: Duration,
    /// Time as it was served, from the start.
    pub(crate) now: Duration,
    clock_offset: SignedDuration,
    is_first: bool,
    /// Every input, for a replay.
    pub(crate) inputs: Vec<Input>,
    /// The bottleneck that was named last, where a timeline shows it.
    pub(crate) bottleneck: Option<&'static str>,
}

impl Player {
    pub(crate) fn new(rules: Rules) -> Self {
        let mut state = State::empty();
        // Most timelines begin with a daemon that has long been running.
        state.episode.unsettled = None;
        Self {
            rules,
            committed: state.clone(),
            state,
            since_commit: Duration::ZERO,
            now: Duration::ZERO,
            clock_offset: SignedDuration::ZERO,
            is_first: true,
            inputs: Vec::new(),
            bottleneck: None,
        }
    }

    pub(crate) fn with_lost_state(rules: Rules) -> Self {
        let mut player = Self::new(rules);
        player.lose_state();
        player
    }

    fn lose_state(&mut self) {
        self.state = State::empty();
        self.committed = State::empty();
        self.is_first = true;
    }

    pub(crate) fn restart(&mut self) {
        self.state = State::restored(self.committed.episode.clone(), None);
        self.is_first = true;
    }

    pub(crate) fn jump(&mut self, by: SignedDuration) {
        self.clock_offset += by;
    }

    pub(crate) fn wall(&self) -> Timestamp {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let served = SignedDuration::try_from(self.now).unwrap();
        start.checked_add(served + self.clock_offset).unwrap()
    }

    pub(crate) fn read(&mut self, after: Duration, scene: &Scene) -> Verdict {
        self.now += after;
        let elapsed = if self.is_first { Duration::ZERO } else { after };
        self.is_first = false;
        let input = Input { reading: scene.reading(self.wall(), elapsed) };
        let (state, verdict) = step(&self.rules, self.state.clone(), &input);
        self.inputs.push(input);
        self.state = state;
        self.since_commit += after;
        // As `run` does: a transition at once, patience every 5 s, all else every minute.
        let due = match verdict.commit {
            Commit::Transition => true,
            Commit::Patience => seconds(5) <= self.since_commit,
            Commit::Unchanged => seconds(60) <= self.since_commit,
        };
        if due {
            self.committed = self.state.clone();
            self.since_commit = Duration::ZERO;
        }
        verdict
    }
}

/// What a reading shows.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) seen: Result<u32, FailureKind>,
    pub(crate) roles: Vec<ConnectionLimit>,
    pub(crate) databases: Vec<ConnectionLimit>,
    pub(crate) age: Duration,
    pub(crate) saw: Vec<Refusal>,
    pub(crate) server: ServerIdentity,
    pub(crate) despite: Option<Refusal>,
    pub(crate) beside: Beside,
}

impl Scene {
    pub(crate) fn used(used: u32) -> Self {
        Self {
            seen: Ok(used),
            roles: Vec::new(),
            databases: Vec::new(),
            age: Duration::ZERO,
            saw: Vec::new(),
            server: ServerIdentity {
                system_identifier: Some(7),
                in_recovery: false,
                started_at: Timestamp::from_second(1_700_000_000).unwrap(),
            },
            despite: None,
            beside: Beside::default(),
        }
    }

    pub(crate) fn fails(kind: FailureKind) -> Self {
        let saw = match kind {
            FailureKind::Refused(reason) => vec![reason],
            _ => Vec::new(),
        };
        Self { seen: Err(kind), saw, ..Self::used(0) }
    }

    pub(crate) fn reading(&self, at: Timestamp, elapsed: Duration) -> Reading {
        let failure = |kind: FailureKind| Failure {
            kind,
            text: format!("the server is {kind}"),
            sqlstate: None,
        };
        let refused =
            self.saw.iter().map(|reason| RefusedLogin { reason: *reason, count: 1 }).collect();
        let postgres = Part {
            age: self.age,
            fresh: self.age.is_zero(),
            stale_after: seconds(3),
            seen: self.seen.map(|used| Arc::new(self.observation(used, at))).map_err(failure),
        };
        let logins = Logins { refused, tried: !self.saw.is_empty() };
        let mut reading = Reading::of_postgres(at, elapsed, postgres, logins);
        self.beside.compose(&mut reading);
        reading
    }
}

impl Scene {
    fn observation(&self, used: u32, at: Timestamp) -> Observation {
        Observation {
            role_limits: self.roles.clone(),
            database_limits: self.databases.clone(),
            fallback: self.despite,
            ..observation(used, at, self.server)
        }
    }
}

/// A Postgres 15 with `max_connections = 50`, of which 47 are usable. The API holds all but three.
fn observation(used: u32, at: Timestamp, server: ServerIdentity) -> Observation {
    let api = used.saturating_sub(3);
    let group = |application: &str, connections, waiting, state| Group {
        role: "payment".into(),
        database: "payment".into(),
        application: application.into(),
        address: "10.0.0.7".into(),
        state,
        connections,
        waiting_for_lock: waiting,
        longest_seconds: 1.0,
    };
    let mut groups = vec![
        group("payment-api", api, api.saturating_sub(6), SessionState::Active),
        group("backfill_invoice_idx", 1.min(used), 0, SessionState::Active),
        group("psql", 1.min(used.saturating_sub(1)), 0, SessionState::Idle),
        group("plimsoll", 1.min(used.saturating_sub(2)), 0, SessionState::Active),
    ];
    groups.retain(|g| 0 < g.connections);
    Observation {
        server: Server {
            version_num: 150_018,
            version: "15.18".to_owned(),
            system_identifier: server.system_identifier,
            started_at: server.started_at,
            in_recovery: server.in_recovery,
            clock: at,
        },
        limits: Limits { max_connections: 50, superuser_reserved: 3, reserved: 0 },
        groups,
        other_backends: Vec::new(),
        sessions: Vec::new(),
        role_limits: Vec::new(),
        database_limits: Vec::new(),
        superusers: vec!["postgres".to_owned()],
        counters: Vec::new(),
        counters_age: Duration::ZERO,
        fallback: None,
        logging: None,
        cost: Cost {
            poll_seconds: 0.001,
            server_seconds: 0.0005,
            processor_seconds: None,
            budget_ratio: 0.005,
            next_after_seconds: 1.0,
        },
    }
}

/// Plays the timeline, and compares what happened with what is expected: one line each.
#[track_caller]
pub(crate) fn check(mut player: Player, timeline: &str, expected: &str) {
    let mut log = String::new();
    for line in timeline.lines().map(str::trim).filter(|l| !l.is_empty()) {
        play(&mut player, line, &mut log);
    }
    let unindented = |text: &str| {
        text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n")
    };
    let (got, want) = (unindented(&log), unindented(expected));
    assert!(got == want, "the timeline gave\n{got}\n\nand should have given\n{want}\n");
}

fn play(player: &mut Player, line: &str, log: &mut String) {
    match line {
        "restart" => return player.restart(),
        "lose state" => return player.lose_state(),
        _ => {}
    }
    if let Some(by) = line.strip_prefix("clock ") {
        return player.jump(by.parse().unwrap_or_else(|_| panic!("no duration: {line}")));
    }
    let (when, what) = line.split_once(": ").unwrap_or_else(|| panic!("not understood: {line}"));
    let (times, every) = match when.split_once(" x ") {
        Some((times, every)) => (times.parse().unwrap(), every),
        None => (1_u32, when),
    };
    let every: SignedDuration = every.parse().unwrap();
    let scene = scene(what);
    for _ in 0..times {
        let verdict = player.read(every.try_into().unwrap(), &scene);
        record(player.now, &verdict, log);
        let at = verdict.bottleneck.at.word();
        if player.bottleneck.is_some_and(|before| before != at) {
            let (now, found) = (player.now.as_secs(), &verdict.bottleneck);
            writeln!(log, "{now}s bottleneck {}: {}", found.at, found.figures).unwrap();
            player.bottleneck = Some(at);
        }
    }
}

pub(crate) fn scene(text: &str) -> Scene {
    let words: Vec<_> = text.split(' ').collect();
    let mut scene = Scene::used(0);
    for pair in words.chunks(2) {
        match pair {
            ["used", n] => scene.seen = Ok(n.parse().unwrap()),
            ["fails", kind] => {
                scene.seen = Err(serde_json::from_str(&format!("\"{kind}\"")).unwrap());
            }
            ["refused", reason] => return Scene::fails(FailureKind::Refused(refusal(reason))),
            ["despite", reason] => scene.despite = Some(refusal(reason)),
            ["saw", reason] => scene.saw.push(refusal(reason)),
            ["role", limit] => scene.roles.push(connection_limit(limit)),
            ["database", limit] => scene.databases.push(connection_limit(limit)),
            ["on", "standby"] => scene.server.in_recovery = true,
            ["on", "other"] => scene.server.system_identifier = Some(8),
            ["on", "nobody"] => scene.server.system_identifier = None,
            ["started", "later"] => scene.server.started_at += seconds(60),
            ["seen", "before"] => scene.age = seconds(1),
            ["seen", "long_ago"] => scene.age = seconds(4),
            [key, value] if scene.beside.take(key, value) => {}
            other => panic!("not understood: {other:?}"),
        }
    }
    scene
}

/// `payment=45/50`: 45 of its 50 connections.
fn connection_limit(text: &str) -> ConnectionLimit {
    let (name, limit) = text.split_once('=').unwrap();
    let (used, limit) = limit.split_once('/').unwrap();
    ConnectionLimit {
        name: name.to_owned(),
        limit: limit.parse().unwrap(),
        used: used.parse().unwrap(),
    }
}

fn refusal(word: &str) -> Refusal {
    serde_json::from_str(&format!("\"{word}\"")).unwrap()
}

fn record(now: Duration, verdict: &Verdict, log: &mut String) {
    let at = format!("{}s", now.as_secs());
    for transition in &verdict.transitions {
        match transition {
            Transition::Alert { rule, subject, state, severity, .. } => {
                let subject = match subject.word() {
                    "" => String::new(),
                    word => format!("({word})"),
                };
                writeln!(log, "{at} {rule}{subject} {} {severity}", state.word()).unwrap();
            }
            Transition::Switched { to, .. } => writeln!(log, "{at} {}", to.words()).unwrap(),
            Transition::Opened { severity, .. } => {
                writeln!(log, "{at} incident opens {severity}").unwrap();
            }
            Transition::Severity { severity, .. } => {
                writeln!(log, "{at} incident is {severity}").unwrap();
            }
            Transition::Resolved { .. } => writeln!(log, "{at} incident ends").unwrap(),
        }
    }
    for n in &verdict.notifications {
        let after = match n.after_previous.as_secs() {
            0 => String::new(),
            s => format!(" {s}s after the one before"),
        };
        let (receiver, kind, severity) = (&n.receiver, n.kind.word(), n.report.severity);
        writeln!(log, "{at} -> {receiver} {kind} {severity}{after}: {}", summary(&n.report))
            .unwrap();
    }
}
