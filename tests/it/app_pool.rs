//! The pools of applications, read over real sockets from servers that behave well and badly.

mod files;
mod names;
mod rogues;
mod tls;
mod world;

use std::net::ToSocketAddrs;

use plimsoll_core::reading::FailureKind;
use plimsoll_core::reading::app_pool::Max;
use world::{Answer, GO_SQL, HIKARI, Rogue, World, ok, pools, why};

#[tokio::test]
async fn each_instance_of_a_list_shows_its_pools() {
    let hikari = Rogue::start(Answer::Bytes(ok(HIKARI))).await;
    let go = Rogue::start(Answer::Bytes(ok(GO_SQL))).await;
    let world = World::start(&format!(
        "scrape = [\"http://{}/actuator/prometheus\", \"http://{}/metrics?token=c4n4ry7Zq9\"]",
        hikari.address, go.address
    ));
    let seen = world.round().await;
    assert_eq!((seen.instances.len(), &seen.list), (2, &None));
    let [pool] = pools(&seen, &format!("{}/actuator/prometheus", hikari.address)) else {
        panic!("{seen:?}")
    };
    assert_eq!((pool.name.as_str(), pool.preset.as_str()), ("HikariPool-1", "hikaricp_micrometer"));
    assert_eq!((pool.in_use, pool.idle, pool.max), (Some(0), Some(10), Max::Of(10)));
    assert_eq!((pool.waiting, pool.timeouts_total), (Some(0), Some(0)));
    let [pool] = pools(&seen, &go.address) else { panic!("{seen:?}") };
    assert_eq!((pool.name.as_str(), pool.in_use, pool.waiting), ("kine", Some(1), None));
    assert_eq!((pool.max, pool.waits_total), (Max::Of(90), Some(0)));
    assert!(!format!("{seen:?}").contains("c4n4ry"), "{seen:?}");

    let requests = go.requests();
    let (line, headers) = requests[0].split_once("\r\n").unwrap();
    assert_eq!(line, "GET /metrics?token=c4n4ry7Zq9 HTTP/1.1");
    let headers = headers.to_lowercase();
    assert!(headers.contains(&format!("host: {}\r\n", go.address)), "{headers}");
    assert!(headers.contains("accept: text/plain;version=0.0.4,application/openmetrics-text"));
    assert!(headers.contains("user-agent: plimsoll/"), "{headers}");
    assert!(!headers.contains("authorization"), "{headers}");
    world.end().await;
}

#[tokio::test]
async fn connections_are_kept_and_made_anew_when_they_were_closed() {
    let instance = Rogue::start(Answer::Bytes(ok(GO_SQL))).await;
    let keys = format!("scrape = [\"http://{}/metrics\"]\ninterval = \"20ms\"", instance.address);
    let world = World::start(&format!("{keys}\ntimeout = \"20ms\""));
    let rounds = async |n| {
        for _ in 0..n {
            // A round of a busy machine may be late; what counts is over which connection it went.
            world.until(|seen| seen.instances[0].pools.is_ok()).await;
        }
    };
    rounds(1).await;
    drop(world);
    let world = World::start(&format!("{keys}\n"));
    let before = instance.accepted();
    let rounds = async |n| {
        for _ in 0..n {
            world.round().await;
        }
    };
    rounds(5).await;
    assert_eq!(instance.accepted(), before + 1, "one connection for all of them");
    // It closes after each answer: no round fails for it.
    instance.behave(Answer::Last(ok(GO_SQL)));
    rounds(5).await;
    assert!(instance.accepted() >= before + 4, "{}", instance.accepted());
}

/// Gone is what the list has no more; what does not answer is unknown, never zero.
#[tokio::test]
async fn one_that_ends_is_a_failure_beside_the_others() {
    let [ends, stays] = [
        Rogue::start(Answer::Bytes(ok(HIKARI))).await,
        Rogue::start(Answer::Bytes(ok(HIKARI))).await,
    ];
    let (gone, left) = (ends.address.clone(), stays.address.clone());
    let world = World::start(&format!(
        "scrape = [\"http://{gone}/metrics\", \"http://{left}/metrics\"]\ninterval = \"50ms\"\n\
         timeout = \"50ms\""
    ));
    world.until(|seen| seen.instances.iter().all(|one| one.pools.is_ok())).await;
    drop(ends);
    let is_refused = |pools: &Result<_, plimsoll_core::reading::Failure>| {
        pools.as_ref().is_err_and(|failure| failure.kind == FailureKind::Stopped)
    };
    let seen = world
        .until(|seen| {
            let at = |address: &str| seen.instances.iter().find(|one| one.address == address);
            at(&gone).is_some_and(|one| is_refused(&one.pools))
                && at(&left).is_some_and(|one| one.pools.is_ok())
        })
        .await;
    assert!(why(&seen, &gone).1.contains("Connection refused"), "{seen:?}");
    assert_eq!(pools(&seen, &left).len(), 1);
    // When no instance is left that answers, the source as a whole has failed.
    drop(stays);
    let failure = world.failure().await;
    assert!(failure.text.starts_with("none of 2 instances answers well; "), "{failure:?}");
    world.end().await;
}

#[tokio::test]
async fn every_address_of_a_name_is_an_instance() {
    let instance = Rogue::start(Answer::Bytes(ok(GO_SQL))).await;
    let port: u16 = instance.address.rsplit_once(':').unwrap().1.parse().unwrap();
    let world =
        World::start(&format!("scrape = [\"http://localhost:{port}/metrics\"]\ndns = true"));
    let seen = world.round().await;
    let mut expected: Vec<String> =
        ("localhost", port).to_socket_addrs().unwrap().map(|at| at.to_string()).collect();
    expected.sort();
    expected.dedup();
    let addresses: Vec<&str> = seen.instances.iter().map(|one| one.address.as_str()).collect();
    assert_eq!(addresses, expected);
    assert_eq!(pools(&seen, &format!("127.0.0.1:{port}")).len(), 1);
    assert!(instance.requests()[0].contains(&format!("localhost:{port}")), "the name is asked for");
    // Without it the name is one instance, at whichever address answers.
    let world = World::start(&format!("scrape = [\"http://localhost:{port}/metrics\"]"));
    assert_eq!(pools(&*world.round().await, &format!("localhost:{port}")).len(), 1);
    let unknown = "scrape = [\"http://nobody.invalid/metrics\"]\ndns = true";
    let failure = World::start(unknown).failure().await;
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.text.starts_with("nobody.invalid:80: looking up its name"), "{failure:?}");
}

/// More than are asked at once, and more than connections are kept for.
#[tokio::test]
async fn many_instances_are_one_round() {
    let instance = Rogue::start(Answer::Bytes(ok(GO_SQL))).await;
    let url = |n| format!("\"http://{}/{n}\"", instance.address);
    let urls: Vec<String> = (0..300).map(url).collect();
    let keys = format!("scrape = [{}]\ninterval = \"30s\"\ntimeout = \"30s\"", urls.join(","));
    let world = World::start(&keys);
    let seen = world.round().await;
    assert_eq!(seen.instances.len(), 300);
    assert!(seen.instances.iter().all(|one| one.pools.is_ok()));
    assert!(seen.instances.is_sorted_by_key(|one| one.address.as_str()));
}

/// Some hang, more than are asked at once: whom nobody comes to in one round, somebody does later.
#[tokio::test]
async fn those_that_hang_do_not_hide_the_others_for_ever() {
    let hangs = Rogue::start(Answer::Hang).await;
    let sound = Rogue::start(Answer::Bytes(ok(GO_SQL))).await;
    let mut urls: Vec<String> =
        (0..70).map(|n| format!("\"http://{}/{n}\"", hangs.address)).collect();
    urls.push(format!("\"http://{}/metrics\"", sound.address));
    let world = World::start(&format!(
        "scrape = [{}]\ninterval = \"500ms\"\ntimeout = \"500ms\"",
        urls.join(",")
    ));
    let is_seen = |one: &plimsoll_core::reading::app_pool::Instance| {
        one.address == sound.address && one.pools.is_ok()
    };
    world.until(|seen| seen.instances.iter().any(is_seen)).await;
    world.end().await;
}

#[tokio::test]
async fn a_mapping_and_a_preset_are_used_as_they_are_set() {
    let body = "busy{pool=\"main\",kind=\"db\"} 4\nbusy{pool=\"x\",kind=\"redis\"} 9\n\
                top{pool=\"main\"} 0\njdbc_connections_active{name=\"ds\"} 3\n";
    let instance = Rogue::start(Answer::Bytes(ok(body))).await;
    let scrape = format!("scrape = [\"http://{}/metrics\"]", instance.address);
    let world = World::start(&format!(
        "{scrape}\n[targets.app_pools.mapping]\npool_label = \"pool\"\n\
         in_use = 'busy{{kind=\"db\"}}'\nmax = \"top\""
    ));
    let seen = world.round().await;
    let [pool] = pools(&seen, &instance.address) else { panic!("{seen:?}") };
    assert_eq!((pool.name.as_str(), pool.in_use, pool.max), ("main", Some(4), Max::Unlimited));
    let world = World::start(&format!("{scrape}\npreset = \"spring\""));
    let seen = world.round().await;
    assert_eq!(pools(&seen, &instance.address)[0].in_use, Some(3));
    let failure = World::start(&format!("{scrape}\npreset = \"go_sql\"")).failure().await;
    assert!(failure.text.ends_with("it shows 4 samples, and none of a connection pool"));
}
