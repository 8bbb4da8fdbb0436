//! A source of application pools as settings make it, and servers that answer it with bytes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::collect::SideSource;
use plimsoll::collect::app_pool::AppPoolSource;
use plimsoll::collect::mailbox::{Delivery, Mailbox};
use plimsoll::load::{LoadRequest, load};
use plimsoll_core::reading::app_pool::{Instance, Observation, Pool};
use plimsoll_core::reading::{Failure, FailureKind};
use plimsoll_core::settings::ParsedTarget;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Ten times and more what anything here takes.
pub(super) const DEADLINE: Duration = Duration::from_mins(1);

pub(super) const HIKARI: &str =
    include_str!("../../../core/tests/fixtures/exposition/hikaricp_micrometer.prom");
pub(super) const GO_SQL: &str = include_str!("../../../core/tests/fixtures/exposition/go_sql.prom");

/// A source that runs.
pub(super) struct World {
    mailbox: Mailbox<Observation>,
    pub(super) folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    running: JoinSet<()>,
}

impl World {
    /// With these keys of `[[targets.app_pools]]`.
    pub(super) fn start(keys: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), keys)
    }

    /// The same in a folder that holds files already.
    pub(super) fn start_in(folder: TempDir, keys: &str) -> Self {
        let text = format!(
            "state_dir = \"/nowhere\"\n[[targets]]\nname = \"db\"\npostgres = \"host=db\"\n\
             [[targets.app_pools]]\napplication = \"api\"\n{keys}\n"
        );
        let file = folder.path().join("plimsoll.toml");
        std::fs::write(&file, text).unwrap();
        let request = LoadRequest { files: vec![file], ..LoadRequest::default() };
        let parse = |_: &_, _: &_| Ok(ParsedTarget { default_name: "db".to_owned(), user: None });
        let settings = load(&request, &parse).unwrap_or_else(|error| panic!("{error}"));
        let source = AppPoolSource::of(&settings.targets[0].app_pools[0]);
        let mailbox = Mailbox::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut running = JoinSet::new();
        running.spawn(source.run(mailbox.clone(), async move { drop(stopped.await) }));
        Self { mailbox, folder, stop: Some(stop), running }
    }

    /// What the next round gives.
    pub(super) async fn delivery(&self) -> Delivery<Observation> {
        let waiting = tokio::time::timeout(DEADLINE, self.mailbox.arrived()).await;
        waiting.expect("a round does not end");
        self.mailbox.take().unwrap()
    }

    /// What the next round saw.
    pub(super) async fn round(&self) -> Arc<Observation> {
        self.delivery().await.outcome.unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    /// What a later round saw that is as it should be.
    pub(super) async fn until(&self, done: impl Fn(&Observation) -> bool) -> Arc<Observation> {
        let waiting = async {
            loop {
                if let Ok(seen) = self.delivery().await.outcome
                    && done(&seen)
                {
                    return seen;
                }
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.expect("no round is as it should be")
    }

    /// Why a later round gave nothing.
    pub(super) async fn failure(&self) -> Failure {
        let waiting = async {
            loop {
                if let Err(failure) = self.delivery().await.outcome {
                    return failure;
                }
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.expect("no round fails")
    }

    /// Writes a file in its folder at once, as a rename does.
    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        write(self.folder.path(), name, text)
    }

    /// Ends the source, and waits for it.
    pub(super) async fn end(mut self) {
        drop(self.stop.take());
        let ended = tokio::time::timeout(DEADLINE, self.running.join_next()).await;
        ended.expect("the source does not end").unwrap().unwrap();
    }
}

/// Writes a file at once, as a rename does.
pub(super) fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let (new, file) = (folder.join(format!("{name}.new")), folder.join(name));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, &file).unwrap();
    file
}

/// The pools of the instance at this address.
pub(super) fn pools<'a>(seen: &'a Observation, address: &str) -> &'a [Pool] {
    let pools = &instance(seen, address).pools;
    pools.as_ref().unwrap_or_else(|failure| panic!("{address}: {failure:?}"))
}

/// Why the instance at this address gave none.
pub(super) fn why(seen: &Observation, address: &str) -> (FailureKind, String) {
    let pools = &instance(seen, address).pools;
    let failure = pools.as_ref().expect_err("it is to fail");
    (failure.kind, failure.text.clone())
}

fn instance<'a>(seen: &'a Observation, address: &str) -> &'a Instance {
    let found = seen.instances.iter().find(|instance| instance.address == address);
    found.unwrap_or_else(|| panic!("{address} is not among {:?}", seen.instances))
}

/// An answer of 200 with its length.
pub(super) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// What a server does with a connection on which a request has come.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Sends this, and waits for the next request.
    Bytes(Vec<u8>),
    /// Sends this and closes.
    Last(Vec<u8>),
    /// Sends this, and then this again and again, as long as somebody takes it.
    Endless(Vec<u8>, Vec<u8>),
    /// Sends this, and then a byte now and then.
    Drip(Vec<u8>),
    /// Says nothing.
    Hang,
}

/// A server that answers every request alike.
pub(super) struct Rogue {
    pub(super) address: String,
    answer: Arc<Mutex<Answer>>,
    accepted: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Rogue {
    pub(super) async fn start(answer: Answer) -> Self {
        Self::start_at("127.0.0.1:0", answer).await
    }

    pub(super) async fn start_at(address: &str, answer: Answer) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answer, accepted) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        let (told, counted) = (Arc::clone(&answer), Arc::clone(&accepted));
        let heard = Arc::clone(&requests);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(stream, Arc::clone(&told), Arc::clone(&heard)));
            }
        });
        Self { address, answer, accepted, requests, _serving: serving }
    }

    pub(super) fn behave(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// How many connections were made to it.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// The heads of the requests that it got.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<Mutex<Vec<String>>>,
) {
    while let Some(request) = request(&mut stream).await {
        requests.lock().unwrap().push(request);
        let answer = answer.lock().unwrap().clone();
        if send(&mut stream, answer).await.is_none() {
            return;
        }
    }
}

/// Answers; nothing is to come on the connection after `None`.
async fn send(stream: &mut TcpStream, answer: Answer) -> Option<()> {
    match answer {
        Answer::Bytes(bytes) => stream.write_all(&bytes).await.ok(),
        Answer::Last(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            stream.shutdown().await.ok()?;
            None
        }
        Answer::Endless(head, again) => {
            stream.write_all(&head).await.ok()?;
            while stream.write_all(&again).await.is_ok() {}
            None
        }
        Answer::Drip(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.write_all(b"x").await.ok()?;
            }
        }
        Answer::Hang => std::future::pending().await,
    }
}

/// The head of the next request.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}
