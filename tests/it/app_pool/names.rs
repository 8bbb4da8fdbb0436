//! A name whose addresses come and go, as a headless service's do, at the system's own resolver.
//!
//! The test runs itself again with a list of names of its own (`/etc/hosts`).

use plimsoll_core::reading::FailureKind;
use plimsoll_core::reading::app_pool::Observation;
use tempfile::NamedTempFile;

use super::world::{Answer, GO_SQL, Rogue, World, ok, pools};
use crate::namespace::{Own, is_within, know_the_names_of, pass_within};

const NAME: &str = "app_pool::names::the_addresses_of_a_name_are_its_instances_as_they_come_and_go";

#[tokio::test]
async fn the_addresses_of_a_name_are_its_instances_as_they_come_and_go() {
    if is_within() { within().await } else { pass_within(Own::Mounts, NAME) }
}

fn addresses(seen: &Observation) -> Vec<&str> {
    seen.instances.iter().map(|one| one.address.as_str()).collect()
}

async fn within() {
    let hosts = NamedTempFile::new().unwrap();
    know_the_names_of(hosts.path());
    // Written in place: what was mounted is this file, and not one that replaces it.
    let name = |last: &[u8]| {
        let lines: Vec<_> = last.iter().map(|n| format!("127.0.0.{n} pods.test\n")).collect();
        std::fs::write(hosts.path(), lines.concat()).unwrap();
    };
    let first = Rogue::start(Answer::Bytes(ok(GO_SQL))).await;
    let port = first.address.rsplit_once(':').unwrap().1.to_owned();
    let at = |n: u8| format!("127.0.0.{n}:{port}");
    let second = Rogue::start_at(&at(2), Answer::Bytes(ok(GO_SQL))).await;
    let third = Rogue::start_at(&at(3), Answer::Bytes(ok(GO_SQL))).await;

    name(&[2, 1]);
    let keys = format!("scrape = [\"http://pods.test:{port}/metrics\"]\ndns = true");
    let world = World::start(&format!("{keys}\ninterval = \"1s\"\ntimeout = \"1s\""));
    let seen = world.round().await;
    assert_eq!(addresses(&seen), [at(1), at(2)]);
    for n in [1, 2] {
        assert_eq!(pools(&seen, &at(n)).len(), 1);
    }
    assert!(second.requests()[0].contains(&format!("host: pods.test:{port}")), "the name is asked");

    // Scaled up, and rolled: one comes, and one is gone, which is not to be at zero.
    name(&[1, 2, 3]);
    let seen = world.until(|seen| seen.instances.len() == 3).await;
    assert_eq!(addresses(&seen), [at(1), at(2), at(3)]);
    name(&[3, 2]);
    drop(first);
    let seen = world.until(|seen| addresses(seen) == [at(2), at(3)]).await;
    assert_eq!(seen.list, None);

    // A resolver that does not know the name for a moment takes no instance away, and is told of.
    name(&[]);
    let seen = world.until(|seen| seen.list.is_some()).await;
    let wrong = seen.list.as_ref().unwrap();
    assert_eq!(wrong.kind, FailureKind::Unreachable);
    assert!(
        wrong.text.starts_with(&format!("pods.test:{port}: looking up its name: ")),
        "{wrong:?}"
    );
    assert_eq!(addresses(&seen), [at(2), at(3)]);
    assert_eq!(pools(&seen, &at(3)).len(), 1);
    let before = third.requests().len();
    name(&[2, 3]);
    let seen = world.until(|seen| seen.list.is_none()).await;
    assert_eq!(addresses(&seen), [at(2), at(3)]);
    assert!(third.requests().len() > before);
    world.end().await;
}
