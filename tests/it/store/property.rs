//! Whatever was committed and sent, a restart owes the same as before it.

use plimsoll::store::Owed;
use proptest::prelude::*;

use super::Open;
use super::build::{at, told};
use super::open;

const TARGETS: [&str; 2] = ["db", "other"];
const RECEIVERS: [&str; 3] = ["archive", "on-call", "team"];

#[derive(Clone, Debug)]
enum Act {
    Commit { target: usize, receivers: Vec<usize> },
    CommitAgain { target: usize },
    Deliver(usize),
    Park(usize),
    Supersede(usize),
    Retry(usize, u32),
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let receivers = prop::sample::subsequence(vec![0, 1, 2], 0..=3);
    let act = prop_oneof![
        4 => (0..TARGETS.len(), receivers)
            .prop_map(|(target, receivers)| Act::Commit { target, receivers }),
        1 => (0..TARGETS.len()).prop_map(|target| Act::CommitAgain { target }),
        3 => any::<usize>().prop_map(Act::Deliver),
        1 => any::<usize>().prop_map(Act::Park),
        1 => any::<usize>().prop_map(Act::Supersede),
        2 => (any::<usize>(), 1..9_u32).prop_map(|(which, attempts)| Act::Retry(which, attempts)),
        1 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 1..40)
}

/// Everything that is owed, and how far each target is.
fn owed(store: &Open) -> (Vec<Owed>, Vec<Option<u64>>) {
    let outbox = store.store().outbox();
    let owed = RECEIVERS.iter().flat_map(|name| outbox.owed(name)).collect();
    let episode = |target: &&str| store.store().episode(target).map(|(one, _)| one.sequence);
    (owed, TARGETS.iter().map(episode).collect())
}

async fn restart(folder: &std::path::Path, store: Open) -> Open {
    let before = owed(&store);
    store.close().await;
    let store = open(folder);
    assert_eq!(owed(&store), before);
    store
}

async fn play(acts: Vec<Act>) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let mut committed = [0; TARGETS.len()];
    for (step, act) in acts.into_iter().enumerate() {
        let now = at(i64::try_from(step).unwrap());
        let all = owed(&store).0;
        let pick = |which: usize| {
            let one = (!all.is_empty()).then(|| &all[which % all.len()]);
            one.map_or_else(|| "none".to_owned(), |one| one.notification.id.clone())
        };
        let outbox = store.store().outbox();
        match act {
            Act::Commit { target, receivers } => {
                committed[target] += 1;
                let receivers: Vec<&str> = receivers.iter().map(|r| RECEIVERS[*r]).collect();
                let change = told(TARGETS[target], committed[target], &receivers);
                store.store().commit(change).await;
            }
            Act::CommitAgain { target } if committed[target] > 0 => {
                let change = told(TARGETS[target], committed[target], &RECEIVERS[..1]);
                store.store().commit(change).await;
            }
            Act::CommitAgain { .. } => {}
            Act::Deliver(which) => outbox.delivered(&pick(which), now),
            Act::Park(which) => outbox.parked(&pick(which), now, "410 Gone"),
            Act::Supersede(which) => outbox.superseded(&[pick(which)], now),
            Act::Retry(which, attempts) => outbox.retry(&pick(which), attempts, now, "503"),
            Act::Restart => {
                drop(outbox);
                store = restart(folder.path(), store).await;
            }
        }
    }
    restart(folder.path(), store).await.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_owes_what_was_owed(acts in acts()) {
        super::runtime().block_on(play(acts));
    }
}
