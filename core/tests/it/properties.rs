//! What holds for every timeline.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::SignedDuration;
use plimsoll_core::judge::telling::NotificationKind;
use plimsoll_core::judge::{Severity, State, Transition, Verdict, step};
use plimsoll_core::reading::postgres::ConnectionLimit;
use plimsoll_core::reading::{FailureKind, Refusal};
use proptest::prelude::*;

use crate::timeline::{Player, Scene, listener, pagerduty, rules, seconds};

/// What happens in a timeline that nobody wrote.
#[derive(Clone, Debug)]
enum Event {
    Read { times: u32, every: u64, scene: Scene },
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
    let known = (0_u32..51, prop::collection::vec(role, 0..3), 0_u32..10, server).prop_map(
        |(used, mut roles, saw, (system_identifier, standby))| {
            roles.sort_by(|a, b| a.name.cmp(&b.name));
            roles.dedup_by(|a, b| a.name == b.name);
            let saw = if saw == 0 { vec![Refusal::DatabaseLimit] } else { Vec::new() };
            let mut scene = Scene { roles, saw, ..Scene::used(used) };
            scene.server.system_identifier = system_identifier;
            scene.server.in_recovery = standby == 0;
            scene
        },
    );
    prop_oneof![4 => known, 1 => kinds.prop_map(Scene::fails)]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let read = (1_u32..80, 1_u64..20, scene()).prop_map(|(times, every, scene)| Event::Read {
        times,
        every,
        scene,
    });
    let event = prop_oneof![
        12 => read,
        1 => Just(Event::Restart),
        1 => prop_oneof![Just(-1), Just(1)].prop_map(|hours| Event::Jump { hours }),
    ];
    prop::collection::vec(event, 1..25)
}

fn player() -> Player {
    Player::new(rules(vec![
        listener("archive", Severity::Warning),
        listener("on-call", Severity::Critical),
        pagerduty("pd", Severity::Warning),
    ]))
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
        let tracks = |state: &[plimsoll_core::judge::alert::Alert]| {
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
            verdicts.push(player.read(seconds(1), &Scene::used(5)));
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
            let fires = episode.alerts.iter().any(|a| a.state().word() == "firing");
            prop_assert_eq!(fires, episode.incident.is_some());
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
