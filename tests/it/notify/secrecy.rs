//! Secrets come into every failure path, and out of none of them.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll_core::judge::telling::NotificationKind::Trigger;
use plimsoll_core::settings::{ReceiverKind, ReceiverSettings, Secret};
use tracing_subscriber::fmt::MakeWriter;

use super::world::{ROUTING_KEY, World, notification, pagerduty, webhook};

const TOKEN: &str = "canary-token-in-the-path";
const QUERY: &str = "canary-in-the-query";
const SIGNING: &str = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5";

/// A log that can be read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn secretive(name: &str, url: &str) -> ReceiverSettings {
    let mut settings = webhook(name, &format!("{url}/services/{TOKEN}?key={QUERY}"));
    if let ReceiverKind::Webhook { signing_secrets, .. } = &mut settings.kind {
        signing_secrets.push(Secret::new(format!("whsec_{SIGNING}")));
    }
    settings
}

/// A receiver that repeats what it was sent, at the place where its answer is cut.
fn parrot(status: u16, secrets: &str) -> Behaviour {
    let padding = "x".repeat(270);
    Behaviour::with_body(status, &format!(r#"{{"errors": ["{padding} {secrets}"]}}"#))
}

/// Every bad behaviour, by one who knows these secrets.
fn behaviours(secrets: &str) -> Vec<Behaviour> {
    vec![
        parrot(200, secrets),
        parrot(400, secrets),
        parrot(503, secrets),
        parrot(429, secrets),
        Behaviour::with_body(400, &secrets.repeat(1000)),
        Behaviour::with_header(302, "location", &format!("http://h.example/{TOKEN}?{QUERY}")),
        Behaviour::Stall,
        Behaviour::Reset,
        Behaviour::Endless(500),
    ]
}

#[tokio::test]
async fn secrets_come_out_of_no_failure() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    // With a single subscriber in the process, another test's thread, which has none, could be the
    // first to come to a line of the log, and would turn it off for all.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());

    let webhooks =
        behaviours(&format!("{TOKEN} {QUERY} /services/{TOKEN}?key={QUERY} whsec_{SIGNING} "));
    let mut receivers = Vec::new();
    let mut settings = Vec::new();
    for (n, behaviour) in webhooks.into_iter().enumerate() {
        let receiver = Receiver::start(behaviour).await.unwrap();
        settings.push(secretive(&format!("webhook{n}"), &receiver.url()));
        receivers.push(receiver);
    }
    for (n, behaviour) in behaviours(ROUTING_KEY).into_iter().enumerate() {
        let receiver = Receiver::start(behaviour).await.unwrap();
        settings.push(pagerduty(&format!("pagerduty{n}"), &receiver.url()));
        receivers.push(receiver);
    }
    // Nobody listens there, and nobody has that name.
    settings.push(secretive("nobody", "http://127.0.0.1:1"));
    settings.push(secretive("nowhere", "http://nowhere.invalid"));
    for one in &mut settings {
        one.timeout = Duration::from_millis(500);
    }

    let world = World::start(&settings);
    let owed = settings.iter().map(|one| notification(&one.name, "k", 1, Trigger));
    world.owe(owed.collect()).await;
    let mut shown = String::new();
    for one in &settings {
        world.until(&one.name, |owed| owed.iter().all(|row| row.attempts > 0)).await;
        writeln!(shown, "{:?}", world.store.outbox().owed(&one.name)).unwrap();
    }
    writeln!(shown, "{:?}\n{settings:?}", world.health.values()).unwrap();
    shown.push_str(&String::from_utf8(log.0.lock().unwrap().clone()).unwrap());
    let folder =
        world.end(plimsoll::notify::Stop::HandOver { until: plimsoll::clock::monotonic() });
    for file in std::fs::read_dir(folder.await.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        shown.push_str(&String::from_utf8_lossy(&bytes));
    }

    // The failures are all there, and so is the log.
    for expected in ["answered 400", "answered 503", "answered 429", "answered 302", "refused"] {
        assert!(shown.contains(expected), "{expected} is missing");
    }
    assert!(shown.contains("parked: the receiver will never take it"));
    assert!(shown.contains("***"));
    let canaries = [TOKEN, QUERY, SIGNING, ROUTING_KEY];
    for canary in canaries {
        // A part of it would do, had it been cut in the middle.
        let part = &canary[..=canary.len() / 2];
        let place = shown.find(part);
        let context = place.map(|at| &shown[at.saturating_sub(200)..at]);
        assert_eq!(context, None, "{canary} came out");
    }
}
