//! Tokens, passwords and lists in files: read anew for every round, torn and late ones said.

use std::process::Command;

use base64::Engine;
use plimsoll_core::reading::FailureKind;
use plimsoll_core::reading::app_pool::Observation;
use tempfile::TempDir;

use super::world::{Answer, GO_SQL, HIKARI, Rogue, World, ok, pools, write};

const CANARY: &str = "c4n4ry7Zq9Xw2Vt5";

const RHYTHM: &str = "interval = \"50ms\"\ntimeout = \"10s\"";

/// The rhythm may not be shorter than the patience.
fn patient() -> String {
    RHYTHM.replace("10s", "50ms")
}

fn addresses(seen: &Observation) -> Vec<&str> {
    seen.instances.iter().map(|one| one.address.as_str()).collect()
}

#[tokio::test]
async fn tokens_and_passwords_are_read_anew_and_never_shown() {
    let instance = Rogue::start(Answer::Bytes(ok(GO_SQL))).await;
    let folder = TempDir::new().unwrap();
    write(folder.path(), "token", &format!("{CANARY}-1\n"));
    let scrape = format!("scrape = [\"http://{}/metrics\"]\n{}", instance.address, patient());
    let world = World::start_in(folder, &format!("{scrape}\nbearer_token_file = \"token\""));
    let asked = |with: &str| {
        let with = format!("authorization: {with}\r\n").to_lowercase();
        move |requests: Vec<String>| requests.iter().any(|r| r.to_lowercase().contains(&with))
    };
    let is_first = asked(&format!("Bearer {CANARY}-1"));
    world.until(|_| is_first(instance.requests())).await;
    world.write("token", &format!("{CANARY}-2"));
    let is_second = asked(&format!("Bearer {CANARY}-2"));
    world.until(|_| is_second(instance.requests())).await;
    for (text, said) in [
        (Some(""), "it is empty"),
        (Some(&*format!("{CANARY}\nmore")), "it holds what no header can hold"),
        (Some(&*CANARY.repeat(10_000)), "is longer than 64 kB"),
        (None, "cannot be opened"),
    ] {
        match text {
            Some(text) => drop(world.write("token", text)),
            None => std::fs::remove_file(world.folder.path().join("token")).unwrap(),
        }
        let failure = loop {
            let failure = world.failure().await;
            if failure.text.contains(said) {
                break failure;
            }
        };
        assert_eq!(failure.kind, FailureKind::NotAllowed);
        assert!(failure.text.starts_with("reading the token in /"), "{failure:?}");
        assert!(!failure.text.contains(&CANARY[..8]), "{failure:?}");
    }
    world.end().await;

    let folder = TempDir::new().unwrap();
    write(folder.path(), "password", &format!("{CANARY}\r\n"));
    let basic = "username = \"plimsoll\"\npassword_file = \"password\"";
    let world = World::start_in(folder, &format!("{scrape}\n{basic}"));
    let both = base64::engine::general_purpose::STANDARD.encode(format!("plimsoll:{CANARY}"));
    let is_basic = asked(&format!("Basic {both}"));
    world.until(|_| is_basic(instance.requests())).await;
}

#[tokio::test]
async fn a_list_in_a_file_is_followed_and_half_of_one_changes_nothing() {
    let [one, other] = [
        Rogue::start(Answer::Bytes(ok(HIKARI))).await,
        Rogue::start(Answer::Bytes(ok(GO_SQL))).await,
    ];
    let world = World::start(&format!("file_sd = \"list.json\"\n{}", patient()));
    let failure = world.failure().await;
    assert!(failure.text.starts_with("reading the list of instances in /"), "{failure:?}");
    assert!(failure.text.contains("cannot be opened"), "{failure:?}");

    let both = format!(
        "[{{\"targets\": [\"{}\"], \"labels\": {{\"__metrics_path__\": \"/m\"}}}},\n\
         {{\"targets\": [\"{}\"]}}]",
        one.address, other.address
    );
    let first = format!("{}/m", one.address);
    world.write("list.json", &both);
    let seen = world.until(|seen| seen.instances.iter().all(|i| i.pools.is_ok())).await;
    let mut expected = [first.as_str(), other.address.as_str()];
    expected.sort_unstable();
    assert_eq!((addresses(&seen), &seen.list), (expected.to_vec(), &None));
    assert!(one.requests()[0].starts_with("GET /m HTTP/1.1\r\n"));
    assert_eq!(pools(&seen, &first)[0].name, "HikariPool-1");

    // While it is rewritten in place, at each half of it: the list stays, and that is said.
    for half in [&both[..both.len() / 2], ""] {
        std::fs::write(world.folder.path().join("list.json"), half).unwrap();
        let seen = world.until(|seen| seen.list.is_some()).await;
        let said = &seen.list.as_ref().unwrap().text;
        assert!(said.contains("it ends too early"), "{said}");
        assert!(said.ends_with("the instances listed before are still asked"), "{said}");
        assert_eq!(addresses(&seen), expected);
    }
    // Complete again with one of them: the other is gone, not zero and not failed.
    world.write("list.json", &format!("[{{\"targets\": [\"{}\"]}}]", other.address));
    let seen = world.until(|seen| seen.instances.len() == 1).await;
    assert_eq!((addresses(&seen), &seen.list), (vec![other.address.as_str()], &None));
    std::fs::remove_file(world.folder.path().join("list.json")).unwrap();
    let seen = world.until(|seen| seen.list.is_some()).await;
    assert_eq!(addresses(&seen), [other.address.as_str()]);
    // An application that was scaled down has no instances, and that is no failure.
    world.write("list.json", "[]");
    world.until(|seen| seen.instances.is_empty() && seen.list.is_none()).await;
    world.end().await;
}

#[tokio::test]
async fn a_list_of_too_many_is_cut_and_that_is_said() {
    let instance = Rogue::start(Answer::Bytes(ok(GO_SQL))).await;
    let folder = TempDir::new().unwrap();
    let entry = |n| {
        format!(
            "{{\"targets\":[\"{}\"],\"labels\":{{\"__metrics_path__\":\"/{n}\"}}}}",
            instance.address
        )
    };
    let entries: Vec<String> = (0..1001).map(entry).collect();
    write(folder.path(), "list.json", &format!("[{}]", entries.join(",")));
    let rhythm = "interval = \"50s\"\ntimeout = \"50s\"";
    let world = World::start_in(folder, &format!("file_sd = \"list.json\"\n{rhythm}"));
    let seen = world.round().await;
    assert_eq!(seen.instances.len(), 1000);
    assert!(
        seen.list.as_ref().unwrap().text.contains("more than 1000 instances"),
        "{:?}",
        seen.list
    );
}

/// A disk that hangs: the round says so, the next ones begin no other read, and all goes on when it
/// is back. A pipe that nobody writes to is such a file.
#[tokio::test]
async fn a_file_that_hangs_is_said_and_read_when_it_comes_back() {
    let instance = Rogue::start(Answer::Bytes(ok(GO_SQL))).await;
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("list.json");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let world = World::start_in(
        folder,
        "file_sd = \"list.json\"\ninterval = \"200ms\"\ntimeout = \"200ms\"",
    );
    for _ in 0..3 {
        let failure = world.failure().await;
        assert_eq!(failure.kind, FailureKind::TooSlow);
        assert!(failure.text.contains("list.json takes too long"), "{failure:?}");
    }
    let list = format!("[{{\"targets\": [\"{}\"]}}]", instance.address);
    // Readers of a pipe come and go; an ordinary file takes its place.
    let ordinary = pipe.with_extension("new");
    std::fs::write(&ordinary, list).unwrap();
    std::fs::rename(&ordinary, pipe.with_extension("kept")).unwrap();
    let held = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    std::fs::rename(pipe.with_extension("kept"), &pipe).unwrap();
    drop(held);
    let seen = world.until(|seen| !seen.instances.is_empty()).await;
    assert_eq!(addresses(&seen), [instance.address.as_str()]);
    world.end().await;
}
