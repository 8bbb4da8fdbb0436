//! One request to one instance, and its answer read as far as it is metrics.
//!
//! An answer is read in pieces and never held whole. It follows no redirect: a token would go with
//! it. Whatever comes instead of metrics is a failure of this instance that says what it was.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use plimsoll_core::reading::app_pool::Pool;
use plimsoll_core::reading::app_pool::scrape::{Scrape, Wanted};
use plimsoll_core::reading::{Failure, FailureKind};
use tokio::time::{Instant, timeout_at};

use super::connection::{Kept, connect};
use super::files::Prepared;
use super::instances::Peer;
use super::lookups::Lookups;
use super::{failure, shown};
use crate::chain::chain;

/// The largest applications show some megabytes.
const MAX_BODY_BYTES: u64 = 16 * 1024 * 1024;

/// The text format first: it is what every exporter has, and its samples end with their line.
const FORMATS: &str = "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5";

/// What asking needs.
pub(super) struct With<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) lookups: &'a Lookups,
    pub(super) prepared: &'a Prepared,
    pub(super) deadline: Instant,
    /// How long that was away when the round began, for words.
    pub(super) patience: Duration,
}

type Pools = Result<Vec<Pool>, Failure>;

impl With<'_> {
    /// Asks, over the kept connection if it still is one. Gives back a connection that can be
    /// kept for the next round.
    pub(super) async fn ask(&self, peer: &Peer, kept: Option<Kept>) -> (Pools, Option<Kept>) {
        match self.exchange(peer, kept).await {
            Ok((pools, kept)) => (Ok(pools), kept),
            Err(failure) => (Err(failure), None),
        }
    }

    async fn exchange(
        &self,
        peer: &Peer,
        kept: Option<Kept>,
    ) -> Result<(Vec<Pool>, Option<Kept>), Failure> {
        let broken = |what| move || failure(FailureKind::Broken, what);
        let uri = peer.to.uri().ok_or_else(broken("its URL cannot be read"))?;
        if let Some(mut kept) = kept.filter(|kept| !kept.is_closed()) {
            let request = self.request(&uri)?;
            match self.in_time("answer", kept.send(request)).await? {
                Ok(answer) => return self.read(answer, kept).await,
                // It was closed while it was not used: that says nothing of the instance.
                Err(error) if error.is_canceled() || error.is_incomplete_message() => {}
                Err(error) => return Err(no_answer(&error)),
            }
        }
        let mut new = self.in_time("connection", self.connect(peer, &uri)).await??;
        let request = self.request(&uri)?;
        let answer = self.in_time("answer", new.send(request)).await?;
        self.read(answer.map_err(|error| no_answer(&error))?, new).await
    }

    async fn connect(&self, peer: &Peer, uri: &Uri) -> Result<Kept, Failure> {
        let addresses = match peer.at {
            Some(at) => vec![at],
            None => self.lookups.addresses(peer.to.host(), peer.to.port(), self.deadline).await?,
        };
        let tls: Option<&Arc<_>> = self.prepared.tls.as_ref().filter(|_| peer.to.is_tls);
        if peer.to.is_tls && tls.is_none() {
            return Err(failure(FailureKind::Broken, "TLS was not prepared"));
        }
        connect(uri, &addresses, tls).await
    }

    fn request(&self, uri: &Uri) -> Result<Request<Empty<Bytes>>, Failure> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let agent = concat!("plimsoll/", env!("CARGO_PKG_VERSION"));
        let mut request =
            Request::get(path).header(HOST, host).header(ACCEPT, FORMATS).header(USER_AGENT, agent);
        if let Some(authorization) = &self.prepared.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request
            .body(Empty::new())
            .map_err(|_| failure(FailureKind::Broken, "the request cannot be put together"))
    }

    async fn read(
        &self,
        answer: Response<Incoming>,
        kept: Kept,
    ) -> Result<(Vec<Pool>, Option<Kept>), Failure> {
        let (head, body) = answer.into_parts();
        if head.status != StatusCode::OK {
            return Err(refused(head.status));
        }
        if let Some(encoding) = plain(&head.headers, &CONTENT_ENCODING)
            && encoding != "identity"
        {
            let text = "its answer is compressed, which was not asked for";
            return Err(failure(FailureKind::Unsupported, text));
        }
        let kind = plain(&head.headers, &CONTENT_TYPE).unwrap_or_default();
        if kind.starts_with("text/html") {
            let text = "it answers with HTML, not with metrics; is the path right?";
            return Err(failure(FailureKind::Unsupported, text));
        }
        let is_openmetrics = kind.starts_with("application/openmetrics-text");
        let pools = self.in_time("end of its answer", self.body(body, is_openmetrics)).await??;
        Ok((pools, (!kept.is_closed()).then_some(kept)))
    }

    async fn body(&self, mut body: Incoming, is_openmetrics: bool) -> Pools {
        let unread =
            |why: &dyn std::fmt::Display| failure(FailureKind::Unsupported, why.to_string());
        let too_long = || {
            let megabytes = MAX_BODY_BYTES / 1024 / 1024;
            unread(&format!("its answer is longer than {megabytes} MB"))
        };
        // What it announces; an answer without an announcement is counted.
        if hyper::body::Body::size_hint(&body).lower() > MAX_BODY_BYTES {
            return Err(too_long());
        }
        let mut scrape = Scrape::new(self.wanted);
        let mut bytes = 0_u64;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                failure(FailureKind::Failing, format!("its answer breaks off: {}", chain(&error)))
            })?;
            let Ok(piece) = frame.into_data() else { continue };
            bytes += piece.len() as u64;
            if bytes > MAX_BODY_BYTES {
                return Err(too_long());
            }
            scrape.push(&piece).map_err(|why| unread(&why))?;
        }
        scrape.finish(is_openmetrics).map_err(|why| unread(&why))
    }

    /// What comes before the end of the round, or that this did not.
    async fn in_time<T>(&self, what: &str, coming: impl Future<Output = T>) -> Result<T, Failure> {
        timeout_at(self.deadline, coming).await.map_err(|_| {
            let kind = match what {
                "connection" => FailureKind::Unreachable,
                _ => FailureKind::TooSlow,
            };
            failure(kind, format!("no {what} within {}", shown(self.patience)))
        })
    }
}

fn no_answer(error: &hyper::Error) -> Failure {
    failure(FailureKind::Failing, format!("no answer: {}", chain(error)))
}

fn plain<'a>(headers: &'a HeaderMap<HeaderValue>, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What a status other than 200 means.
fn refused(status: StatusCode) -> Failure {
    let (kind, hint) = match status.as_u16() {
        300..=399 => (FailureKind::Unsupported, ": redirects are not followed; name its end"),
        401 => (
            FailureKind::NotAllowed,
            ": it wants to know who asks (bearer_token_file, or username and password_file)",
        ),
        403 => (FailureKind::NotAllowed, ": it does not let us"),
        404 => (FailureKind::Unsupported, ": is the path right?"),
        500..=599 => (FailureKind::Failing, ""),
        _ => (FailureKind::Unsupported, ""),
    };
    failure(kind, format!("it answers {status}{hint}"))
}
