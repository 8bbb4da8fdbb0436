//! A server with something to show, and a client that writes and reads what it is told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use plimsoll::clock;
use plimsoll::health::{Health, LoopHealth};
use plimsoll::serve::{self, IncidentQuery, IncidentReader, Shared, Targets};
use plimsoll_core::reading::postgres::{Cost, Group, Limits, Observation, Server, SessionState};
use plimsoll_core::reading::{Failure, FailureKind, Logins, Part, Reading, Refusal};
use plimsoll_core::status::{
    AlertStatus, BottleneckStatus, HolderStatus, IncidentStatus, Published, ServerStatus,
    SlotsStatus, SourceStatus,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Asked;

/// Ten times what anything here is expected to take, the limits of the server included.
pub(super) const DEADLINE: Duration = Duration::from_secs(100);

/// What is shown, before it is shown.
pub(super) struct Site {
    pub(super) health: Health,
    pub(super) incidents: IncidentReader,
    published: BTreeMap<String, watch::Sender<Arc<Published>>>,
    targets: watch::Sender<Arc<Targets>>,
}

impl Site {
    /// The payment database, nearly full.
    pub(super) fn one_target() -> Self {
        let mut site = Self {
            health: Health::starting(at("2024-03-15T14:00:00Z")),
            incidents: Arc::new(|_| async { Ok(Vec::new()) }.boxed()),
            published: BTreeMap::new(),
            targets: watch::Sender::new(Arc::default()),
        };
        site.watch(read("payment-db-primary"));
        site
    }

    /// Shows one more target.
    pub(super) fn watch(&mut self, published: Published) {
        let name = published.status.name.clone();
        let turn =
            LoopHealth { last_turn: clock::monotonic(), restarts: 0, blind: false, replaced: 0 };
        self.health.values().loops.insert(name.clone(), turn);
        self.published.insert(name, watch::Sender::new(Arc::new(published)));
    }

    /// Changes what is published of the first target.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Published)) {
        let sender = &self.published["payment-db-primary"];
        sender.send_modify(|published| change(Arc::make_mut(published)));
    }

    /// Fills the record of incidents; what it is asked is written down.
    pub(super) fn record(&mut self, incidents: Vec<IncidentStatus>) -> Asked {
        let asked = Asked::default();
        let notes = Arc::clone(&asked);
        self.incidents = Arc::new(move |query| {
            let mut incidents = incidents.clone();
            if let IncidentQuery::Newest { target: Some(target), .. } = &query {
                incidents.retain(|incident| incident.target == *target);
            }
            notes.lock().unwrap().push(query);
            async move { Ok(incidents) }.boxed()
        });
        asked
    }

    pub(super) fn publisher(&self, name: &str) -> watch::Sender<Arc<Published>> {
        self.published[name].clone()
    }

    pub(super) fn reloader(&mut self) -> watch::Sender<Arc<Targets>> {
        self.targets.clone()
    }

    pub(super) fn targets(&self) -> Arc<Targets> {
        let targets = self.published.iter().map(|(name, it)| (name.clone(), it.subscribe()));
        Arc::new(targets.collect())
    }
}

/// A running server; it ends with this.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) task: JoinSet<()>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    _site: Mutex<Site>,
}

impl Running {
    pub(super) async fn start(site: Site) -> Self {
        site.targets.send_replace(site.targets());
        let shared = Shared {
            targets: site.targets.subscribe(),
            health: site.health.clone(),
            incidents: Arc::clone(&site.incidents),
        };
        let listener = serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut task = JoinSet::new();
        task.spawn(serve::run(listener, shared, async {
            stopped.await.ok();
        }));
        Self { address, task, stop: Some(stop), _site: Mutex::new(site) }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await
    }

    /// Sends this on a connection of its own and reads one answer.
    pub(super) async fn ask(&self, request: &str) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let is_head = request.starts_with("HEAD ");
        timeout(DEADLINE, Reply::read(&mut stream, is_head)).await.expect("an answer in time")
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Reply {
    /// Reads one answer with a `content-length` and leaves the connection open.
    pub(super) async fn read(stream: &mut TcpStream, is_head: bool) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a whole head"));
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().lines();
        let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut reply = Self { code, headers, body: String::new() };
        if !is_head {
            let length = reply.header("content-length").unwrap().parse().unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            reply.body = String::from_utf8(body).unwrap();
        }
        reply
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A target that was not read yet.
pub(super) fn unread(name: &str) -> Published {
    Published::before_the_first_reading(name, BTreeMap::new())
}

/// A target whose first reading failed.
pub(super) fn failed(name: &str) -> Published {
    let mut published = read(name);
    published.reading.as_mut().unwrap().postgres.seen = Err(Failure {
        kind: FailureKind::Refused(Refusal::AllSlotsTaken),
        text: "sorry, too many clients already".to_owned(),
        sqlstate: Some("53300".to_owned()),
    });
    published
}

/// A target that was read.
pub(super) fn read(name: &str) -> Published {
    let read_at = at("2024-03-15T14:38:59.5Z");
    let seen = observation();
    let slots = seen.slots();
    let mut published = unread(name);
    let status = &mut published.status;
    "critical".clone_into(&mut status.severity);
    status.labels = BTreeMap::from([("service".to_owned(), "payment".to_owned())]);
    status.read_at = Some(read_at);
    status.server = Some(ServerStatus {
        version: seen.server.version.clone(),
        role: "standby".to_owned(),
        started_at: seen.server.started_at,
        switched_at: Some(read_at),
        switched: Some("now on the standby".to_owned()),
    });
    status.slots = Some(SlotsStatus {
        max: slots.max,
        reserved: slots.reserved,
        usable: slots.usable,
        used: slots.used,
        free: slots.free,
        utilization: 0.975,
    });
    status.sources = vec![SourceStatus {
        source: "postgres".to_owned(),
        state: "ok".to_owned(),
        error: None,
        last_success_at: Some(read_at),
        age_seconds: Some(0.25),
        fallback: None,
    }];
    status.bottleneck = Some(BottleneckStatus {
        at: "none".to_owned(),
        figures: "46 of 47 usable slots in use (97 %)".to_owned(),
    });
    status.holders = vec![HolderStatus {
        application: "payment-api".into(),
        role: "payment".into(),
        database: "payment".into(),
        address: "10.0.0.7".into(),
        state: "active".to_owned(),
        connections: 46,
        waiting_for_lock: 36,
    }];
    status.alerts = vec![alert("firing")];
    let postgres = Part {
        age: Duration::ZERO,
        fresh: true,
        // Longer than any test: here the loop never turns again.
        stale_after: DEADLINE,
        seen: Ok(Arc::new(seen)),
    };
    let second = Duration::from_secs(1);
    published.reading = Some(Reading::of_postgres(read_at, second, postgres, Logins::default()));
    published
}

fn alert(state: &str) -> AlertStatus {
    AlertStatus {
        rule: "slots".to_owned(),
        subject: String::new(),
        severity: "critical".to_owned(),
        state: state.to_owned(),
        since: at("2024-03-15T14:38:40Z"),
        observed: "46 of 47 usable slots in use".to_owned(),
    }
}

fn observation() -> Observation {
    Observation {
        server: Server {
            version_num: 150_018,
            version: "15.18".to_owned(),
            system_identifier: None,
            started_at: at("2024-03-01T00:00:00Z"),
            in_recovery: false,
            clock: at("2024-03-15T14:38:59Z"),
        },
        limits: Limits { max_connections: 50, superuser_reserved: 3, reserved: 0 },
        groups: vec![Group {
            role: "payment".into(),
            database: "payment".into(),
            application: "payment-api".into(),
            address: "10.0.0.7".into(),
            state: SessionState::Active,
            connections: 46,
            waiting_for_lock: 36,
            longest_seconds: 41.0,
        }],
        other_backends: Vec::new(),
        sessions: Vec::new(),
        role_limits: Vec::new(),
        database_limits: Vec::new(),
        superusers: Vec::new(),
        counters: Vec::new(),
        counters_age: Duration::ZERO,
        fallback: None,
        logging: None,
        cost: Cost {
            poll_seconds: 0.004,
            server_seconds: 0.0025,
            processor_seconds: None,
            budget_ratio: 0.05,
            next_after_seconds: 1.0,
        },
    }
}

/// A critical incident of the first target.
pub(super) fn incident(id: &str, opened_at: &str) -> IncidentStatus {
    IncidentStatus {
        id: id.to_owned(),
        dedup_key: "plimsoll/test/payment-db-primary".to_owned(),
        target: "payment-db-primary".to_owned(),
        labels: BTreeMap::new(),
        severity: "critical".to_owned(),
        state: "open".to_owned(),
        opened_at: at(opened_at),
        resolved_at: None,
        summary: "payment-db-primary: 46 of 47 usable slots in use (98 %)".to_owned(),
        details: "thresholds\nholders".to_owned(),
        alerts: vec![alert("firing")],
        slots: None,
        holders: Vec::new(),
        peak: None,
        causes: Vec::new(),
        deliveries: Vec::new(),
        bottleneck: None,
    }
}
