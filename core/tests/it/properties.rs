//! What holds for every timeline.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::SignedDuration;
use plimsoll_core::judge::alert::Alert;
use plimsoll_core::judge::rule::RuleName;
use plimsoll_core::judge::telling::NotificationKind;
use plimsoll_core::judge::{Severity, State, Transition, Verdict, step};
use plimsoll_core::reading::postgres::ConnectionLimit;
use plimsoll_core::reading::{FailureKind, Refusal};
use proptest::prelude::*;

use crate::beside::Beside;
use crate::timeline::{Player, Scene, listener, pagerduty, rules, seconds};

/// What happens in a timeline that nobody wrote.
#[derive(Clone, Debug)]
enum Event {
    Read { times: u32, every: u64, scene: Box<Scene> },
    Restart,
    Jump { hours: i64 },
}

fn scene() -> impl Strategy<Value = Scene> {
    let kinds = prop_oneof![
        Just(FailureKind::Stopped),
        Just(FailureKind::TooSlow),
        Just(FailureKind::Blocked),
        Just(FailureKind::Starting),
        Just(FailureKind::Refused(Refusal::ReservedForSuperusers)),
        Just(FailureKind::Refused(Refusal::RoleLimit)),
    ];
    let role = (0_u32..5, 0_u32..11).prop_map(|(n, used)| ConnectionLimit {
        name: format!("role{n}"),
        limit: 10,
        used,
    });
    // Now and then another server answers, or a standby.
    let server = (prop_oneof![9 => Just(Some(7)), 1 => Just(Some(8))], 0_u32..10);
    let known = (0_u32..51, prop::collection::vec(role, 0..3), 0_u32..10, server, beside());
    let known = known.prop_map(|(used, mut roles, saw, (system_identifier, standby), beside)| {
        roles.sort_by(|a, b| a.name.cmp(&b.name));
        roles.dedup_by(|a, b| a.name == b.name);
        let saw = if saw == 0 { vec![Refusal::DatabaseLimit] } else { Vec::new() };
        let mut scene = Scene { roles, saw, beside, ..Scene::used(used) };
        scene.server.system_identifier = system_identifier;
        scene.server.in_recovery = standby == 0;
        scene
    });
    let failed =
        (kinds, beside()).prop_map(|(kind, beside)| Scene { beside, ..Scene::fails(kind) });
    prop_oneof![4 => known, 1 => failed]
}

/// Other sources: each good, failed, stale, or not there.
fn beside() -> impl Strategy<Value = Beside> {
    let trouble = || prop_oneof![Just("fails:too_slow".to_owned()), Just("stale".to_owned())];
    let pooler =
        (0_u32..21, 0_u32..30, 0_u32..8, 0_u32..40).prop_map(|(used, wait, longest, more)| {
            format!("{used}/20,wait={wait},longest={longest},more={more}")
        });
    let app =
        (0_u32..51, 0_u32..9, 0_u32..12, 0_u32..100).prop_map(|(used, wait, timeouts, waits)| {
            format!("a={used}/50,wait={wait},timeouts={timeouts},waits={waits},waited={waits}")
        });
    let app = prop_oneof![4 => app, 1 => Just("a=fails:too_slow".to_owned())];
    let words = ["ok", "all_slots_taken", "held:all_slots_taken", "unanswered", "role_limit"];
    let probe = prop::sample::select(words.to_vec()).prop_map(str::to_owned);
    let log = prop::sample::select(vec!["quiet", "quiet", "all_slots_taken*3", "role_limit"]);
    let log = log.prop_map(str::to_owned);
    let all = [
        ("pooler", prop_oneof![3 => pooler, 1 => trouble()].boxed()),
        ("app", prop_oneof![3 => app, 1 => trouble(), 1 => Just("again".to_owned())].boxed()),
        ("probe", prop_oneof![3 => probe, 1 => trouble()].boxed()),
        ("log", prop_oneof![3 => log, 1 => trouble()].boxed()),
    ];
    let all = all.map(|(key, value)| prop::option::of(value.prop_map(move |value| (key, value))));
    all.prop_map(|shown| {
        let mut beside = Beside::default();
        for (key, value) in shown.into_iter().flatten() {
            assert!(beside.take(key, &value), "{key} {value}");
        }
        beside
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let read = (1_u32..80, 1_u64..20, scene()).prop_map(|(times, every, scene)| Event::Read {
        times,
        every,
        scene: Box::new(scene),
    });
    let event = prop_oneof![
        12 => read,
        1 => Just(Event::Restart),
        1 => prop_oneof![Just(-1), Just(1)].prop_map(|hours| Event::Jump { hours }),
    ];
    prop::collection::vec(event, 1..25)
}

fn player() -> Player {
    let mut rules = rules(vec![
        listener("archive", Severity::Warning),
        listener("on-call", Severity::Critical),
        pagerduty("pd", Severity::Warning),
    ]);
    // All of them are named, so that one that is not in a reading is unknown.
    let names = ["log", "probe/app", "pooler/pgbouncer", "app_pool/payment-api"];
    rules.sources.names = names.map(str::to_owned).into_iter().collect();
    Player::new(rules)
}

fn play(player: &mut Player, events: &[Event]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for event in events {
        match event {
            Event::Read { times, every, scene } => {
                for _ in 0..*times {
                    verdicts.push(player.read(seconds(*every), scene));
                }
            }
            Event::Restart => player.restart(),
            Event::Jump { hours } => player.jump(SignedDuration::from_hours(*hours)),
        }
    }
    verdicts
}

/// A verdict without the wall times in it, and the ids that are made of them.
fn timeless(verdict: &Verdict) -> String {
    let mut said = String::new();
    for transition in &verdict.transitions {
        let words = match transition {
            Transition::Alert { rule, subject, state, severity, .. } => {
                format!("{rule} {} {} {severity}", subject.word(), state.word())
            }
            Transition::Switched { to, .. } => to.words().to_owned(),
            Transition::Opened { severity, .. } => format!("opened {severity}"),
            Transition::Severity { severity, .. } => format!("is {severity}"),
            Transition::Resolved { .. } => "resolved".to_owned(),
        };
        said.push_str(&words);
        said.push('\n');
    }
    for n in &verdict.notifications {
        let (receiver, kind, sequence) = (&n.receiver, n.kind.word(), n.sequence);
        writeln!(said, "{receiver} {kind} {sequence} {}", n.report.severity).unwrap();
    }
    said
}

fn without_restarts(events: Vec<Event>) -> Vec<Event> {
    events.into_iter().filter(|e| !matches!(e, Event::Restart)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn replay_equals_live(events in events(), cut in 0_usize..500) {
        let events = without_restarts(events);
        let mut live = player();
        let verdicts = play(&mut live, &events);
        // From any checkpoint, written and read as the store does.
        let mut state = player().state;
        for (n, input) in live.inputs.iter().enumerate() {
            if n == cut {
                let written = serde_json::to_string(&state).unwrap();
                state = serde_json::from_str(&written).unwrap();
            }
            let (next, verdict) = step(&live.rules, state, input);
            prop_assert_eq!(&verdict, &verdicts[n]);
            state = next;
        }
        prop_assert_eq!(state, live.state);
    }

    #[test]
    fn a_wall_clock_that_jumps_changes_nothing(events in events()) {
        let steady: Vec<_> =
            events.iter().filter(|e| !matches!(e, Event::Jump { .. })).cloned().collect();
        let jumping = play(&mut player(), &events);
        let steady = play(&mut player(), &steady);
        let said = |verdicts: &[Verdict]| verdicts.iter().map(timeless).collect::<Vec<_>>();
        prop_assert_eq!(said(&jumping), said(&steady));
    }

    #[test]
    fn a_reading_without_an_answer_changes_no_threshold(events in events()) {
        let mut player = player();
        play(&mut player, &events);
        let before = player.state.episode.alerts.clone();
        for _ in 0..100 {
            player.read(seconds(1), &Scene::fails(FailureKind::Blocked));
        }
        let tracks = |state: &[Alert]| {
            state
                .iter()
                .filter(|a| a.rule.word() != "source_unreadable")
                .map(|a| (a.rule, a.subject.clone(), a.warning, a.critical))
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(tracks(&player.state.episode.alerts), tracks(&before));
    }

    #[test]
    fn each_receiver_hears_triggers_and_resolves_in_turn(events in events()) {
        let mut player = player();
        let mut verdicts = play(&mut player, &events);
        // All ends well.
        for _ in 0..90 {
            let all = "used 5 pooler 0/20 app a=0/10,wait=0 probe ok log quiet";
            verdicts.push(player.read(seconds(1), &crate::timeline::scene(all)));
        }
        let mut open: BTreeMap<String, String> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        let mut sequence = 0;
        for n in verdicts.iter().flat_map(|v| &v.notifications) {
            prop_assert!(sequence < n.sequence, "sequence {} after {sequence}", n.sequence);
            sequence = n.sequence;
            prop_assert!(ids.insert(n.id.clone()), "the id {} came twice", n.id);
            prop_assert_eq!(&n.key, "plimsoll/test/payment-db-primary");
            let is_open = open.get(&n.receiver).cloned();
            match n.kind {
                NotificationKind::Trigger => {
                    prop_assert_eq!(is_open, None);
                    open.insert(n.receiver.clone(), n.report.id.clone());
                }
                NotificationKind::Update => prop_assert_eq!(is_open.as_ref(), Some(&n.report.id)),
                NotificationKind::Resolve => {
                    prop_assert_eq!(is_open.as_ref(), Some(&n.report.id));
                    open.remove(&n.receiver);
                }
            }
        }
        prop_assert!(open.is_empty(), "still open: {open:?}");
        prop_assert_eq!(player.state.episode.incident, None);
        prop_assert!(player.state.episode.alerts.is_empty());
    }

    #[test]
    fn there_is_never_more_than_one_incident_and_it_is_open_while_something_fires(
        events in events()
    ) {
        let mut player = player();
        let mut open = None;
        for event in events {
            for verdict in play(&mut player, &[event]) {
                for transition in &verdict.transitions {
                    match transition {
                        Transition::Opened { incident, .. } => {
                            prop_assert_eq!(open.replace(incident.clone()), None);
                        }
                        Transition::Resolved { incident, .. } => {
                            prop_assert_eq!(open.take(), Some(incident.clone()));
                        }
                        _ => {}
                    }
                }
            }
            let episode = &player.state.episode;
            prop_assert_eq!(episode.incident.as_ref().map(|i| i.id.clone()), open.clone());
            let fires = |a: &Alert| a.state().word() == "firing" && !a.rule.is_advice();
            let fires = episode.alerts.iter().any(fires);
            prop_assert_eq!(fires, episode.incident.is_some());
        }
    }

    #[test]
    fn sources_that_fail_change_no_threshold(events in events(), stale in any::<bool>()) {
        let mut player = player();
        play(&mut player, &events);
        let before = player.state.episode.alerts.clone();
        let word = if stale { "stale" } else { "fails:blocked" };
        let mut scene = Scene::fails(FailureKind::Blocked);
        for key in ["pooler", "app", "probe", "log"] {
            prop_assert!(scene.beside.take(key, word));
        }
        for _ in 0..100 {
            player.read(seconds(1), &scene);
        }
        let tracks = |alerts: &[Alert]| {
            alerts
                .iter()
                .filter(|a| matches!(a.rule.word(), "pool_waiting" | "pool_utilization"))
                .map(|a| (a.rule, a.subject.clone(), a.warning, a.critical))
                .collect::<Vec<_>>()
        };
        let watched = |alerts: &[Alert]| {
            let mut tracks = tracks(alerts);
            tracks.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            tracks
        };
        prop_assert_eq!(watched(&player.state.episode.alerts), watched(&before));
    }

    #[test]
    fn a_rule_has_at_most_32_alerts_and_one_more(events in events()) {
        let mut player = player();
        for event in events {
            play(&mut player, &[event]);
            for rule in RuleName::ALL {
                let alerts = player.state.episode.alerts.iter().filter(|a| a.rule == rule);
                prop_assert!(alerts.count() <= 33, "{rule}");
            }
        }
    }

    #[test]
    fn an_episode_stays_small(events in events()) {
        let mut player = player();
        play(&mut player, &events);
        let State { episode, memory } = &player.state;
        prop_assert!(serde_json::to_string(episode).unwrap().len() < 64 * 1024);
        prop_assert!(serde_json::to_string(memory).unwrap().len() < 64 * 1024);
    }
}
