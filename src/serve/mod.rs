//! What Plimsoll answers over HTTP: the table of routes.
//!
//! It shows what `run` published and what the parts say of their own health, and nothing else: no
//! route reads a database that is watched, decides, or changes anything. `run` calls [`bind`] and
//! [`run()`].

mod api;
pub mod limits;
mod metrics;
mod page;
mod server;
mod soundness;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use plimsoll_core::status::{IncidentStatus, Published};
use tokio::sync::watch;

use crate::clock;
use crate::health::Health;

pub use server::{ServeError, bind, run};

/// What is published of each target, by its name.
pub type Targets = BTreeMap<String, watch::Receiver<Arc<Published>>>;

/// Reads incidents from where they are kept. An error is a sentence for a person.
pub type IncidentReader = Arc<
    dyn Fn(IncidentQuery) -> BoxFuture<'static, Result<Vec<IncidentStatus>, String>> + Send + Sync,
>;

/// Which incidents are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncidentQuery {
    /// Those that opened last, newest first.
    Newest {
        /// Only of this target.
        target: Option<String>,
        /// At most so many.
        limit: usize,
    },
    /// The one with this id; none or one.
    One {
        /// The id.
        id: String,
    },
}

/// The metrics of so many targets take a few milliseconds at most. To hand that to another thread
/// and to be woken by it takes a good part of the time of one.
const FEW_TARGETS: usize = 4;

/// All that can be shown.
#[derive(Clone)]
pub struct Shared {
    /// The targets; a reload puts another map in its place.
    pub targets: watch::Receiver<Arc<Targets>>,
    /// What Plimsoll knows of itself.
    pub health: Health,
    /// The incidents of now and before.
    pub incidents: IncidentReader,
}

impl Shared {
    /// What was published last of every target, in the order of their names.
    fn published(&self) -> Vec<Arc<Published>> {
        let targets = Arc::clone(&self.targets.borrow());
        targets.values().map(|target| Arc::clone(&target.borrow())).collect()
    }
}

/// Everything that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route<'a> {
    /// For a person: what there is, and how the targets stand.
    Page,
    /// For Prometheus.
    Metrics,
    /// Whether Plimsoll itself does its work.
    Healthz,
    /// Whether every target had its first reading.
    Readyz,
    /// All targets.
    Targets,
    /// One target, by its name as it stands in the path.
    Target(&'a str),
    /// The newest incidents.
    Incidents,
    /// One incident, by its id as it stands in the path.
    Incident(&'a str),
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let named = |prefix| {
            path.strip_prefix(prefix).filter(|name: &&str| !name.is_empty() && !name.contains('/'))
        };
        match path {
            "/" => Some(Self::Page),
            "/metrics" => Some(Self::Metrics),
            "/healthz" => Some(Self::Healthz),
            "/readyz" => Some(Self::Readyz),
            "/api/v1/targets" => Some(Self::Targets),
            "/api/v1/incidents" => Some(Self::Incidents),
            _ => named("/api/v1/targets/")
                .map(Self::Target)
                .or_else(|| named("/api/v1/incidents/").map(Self::Incident)),
        }
    }

    /// The word in `plimsoll_http_requests_total`: never what a client wrote.
    fn word(&self) -> &'static str {
        match self {
            Self::Page => "/",
            Self::Metrics => "/metrics",
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
            Self::Targets => "/api/v1/targets",
            Self::Target(_) => "/api/v1/targets/{name}",
            Self::Incidents => "/api/v1/incidents",
            Self::Incident(_) => "/api/v1/incidents/{id}",
        }
    }
}

/// What is shown, and the numbers of the server that shows it.
struct Site {
    shared: Shared,
    counts: server::Counts,
    /// One metrics text is made at a time, so that many scrapes at once cost one core at most.
    rendering: Arc<tokio::sync::Mutex<metrics::Encoded>>,
}

type Answer = Response<Full<Bytes>>;

/// Answers one request, whatever it is, and counts it.
async fn respond<B: Body>(site: Arc<Site>, request: Request<B>) -> Result<Answer, Infallible> {
    let route = Route::of(request.uri().path());
    let answer = match &route {
        None => refusal(StatusCode::NOT_FOUND, "no such path; `/` names those that there are"),
        Some(_) if !matches!(*request.method(), Method::GET | Method::HEAD) => not_allowed(),
        Some(_) if !request.body().is_end_stream() => {
            refusal(StatusCode::PAYLOAD_TOO_LARGE, "no request here takes a body")
        }
        Some(route) => show(&site, route, request.uri().query()).await,
    };
    site.counts.answered(route.map_or("unknown", |route| route.word()), answer.status());
    Ok(answer)
}

/// The answer of each route.
async fn show(site: &Arc<Site>, route: &Route<'_>, query: Option<&str>) -> Answer {
    let shared = &site.shared;
    match route {
        Route::Page => html(page::page(&shared.published(), &shared.health.values())),
        Route::Metrics => metrics_text(site).await,
        Route::Healthz => {
            let watched: Vec<String> = shared.targets.borrow().keys().cloned().collect();
            let values = shared.health.values().clone();
            let reasons =
                soundness::complaints(&watched, &values, clock::wall(), clock::monotonic());
            json(soundness::code(&reasons), &soundness::health(reasons))
        }
        Route::Readyz => {
            let waiting = soundness::unread(&shared.published());
            json(soundness::code(&waiting), &soundness::readiness(waiting))
        }
        Route::Targets => api::targets(shared),
        Route::Target(name) => api::target(shared, name),
        Route::Incidents => api::incidents(shared, query).await,
        Route::Incident(id) => api::incident(shared, id).await,
    }
}

/// The metrics; of many targets they are made off the threads that read servers and send pages.
async fn metrics_text(site: &Arc<Site>) -> Answer {
    let mut turn = Arc::clone(&site.rendering).lock_owned().await;
    let owned = Arc::clone(site);
    let mut make = move || {
        let scrape = metrics::Scrape {
            version: env!("CARGO_PKG_VERSION"),
            now: clock::wall(),
            monotonic: clock::monotonic(),
            targets: owned.shared.published(),
            health: owned.shared.health.values().clone(),
            http: owned.counts.numbers(),
            process: metrics::process::read(),
        };
        metrics::text(&scrape, &mut turn)
    };
    let made = if site.shared.targets.borrow().len() <= FEW_TARGETS {
        Ok(make())
    } else {
        tokio::task::spawn_blocking(make).await
    };
    match made {
        Ok(text) => answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
        Err(error) => {
            tracing::error!(%error, "could not make the metrics");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be made; see the log")
        }
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Everything here is about now.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

fn json<T: serde::Serialize>(status: StatusCode, body: &T) -> Answer {
    match serde_json::to_string(body) {
        Ok(mut text) => {
            text.push('\n');
            answer(status, "application/json", text)
        }
        Err(error) => {
            tracing::error!(%error, "could not write an answer as JSON");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            answer(status, "application/json", "{\"error\":\"see the log\"}\n".to_owned())
        }
    }
}

fn html(body: String) -> Answer {
    // Names in the page come from clients: even if one got through, nothing of it may run.
    const POLICY: &str =
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let mut answer = answer(StatusCode::OK, "text/html; charset=utf-8", body);
    answer.headers_mut().insert("content-security-policy", HeaderValue::from_static(POLICY));
    answer.headers_mut().insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    answer
}

/// `{"error": …}`.
fn refusal(status: StatusCode, error: &str) -> Answer {
    json(status, &BTreeMap::from([("error", error)]))
}

fn not_allowed() -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "this path answers GET and HEAD only");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}
