//! What is read from files for a round: the token or password, the authorities, the list of
//! instances. All of it anew each time: tokens rotate, and lists are rewritten.
//!
//! A disk can hang, so one thread at most reads here, and a round that it is too slow for goes on
//! with what was read before. Nothing of a secret is in any error.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::HeaderValue;
use plimsoll_core::reading::{Failure, FailureKind};
use plimsoll_core::settings::{AppPoolSettings, ScrapeCredentials};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::failure;
use super::instances::{Endpoint, listed};
use crate::chain::chain;
use crate::collect::tls;

/// A token has some thousand characters.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A bundle of all public authorities has a quarter of this.
const MAX_CA_BYTES: u64 = 1024 * 1024;

/// A thousand instances with long names and labels.
const MAX_LIST_BYTES: u64 = 1024 * 1024;

/// What a round needs beside the instances' answers.
pub(super) struct Prepared {
    /// What says who asks.
    pub(super) authorization: Option<HeaderValue>,
    /// Whose certificates are accepted; read only where an instance needs it.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Where to ask.
    pub(super) endpoints: Vec<Endpoint>,
    /// Why `endpoints` are those of an earlier round.
    pub(super) trouble: Option<Failure>,
}

/// The files of one application.
pub(super) struct Files {
    paths: Arc<Paths>,
    metrics_path: String,
    set: Vec<Endpoint>,
    /// Held while a thread reads.
    reader: Arc<Semaphore>,
    last: Option<Arc<Texts>>,
    list: Option<List>,
    tls: Option<Trust>,
}

#[derive(Debug)]
struct Paths {
    credentials: ScrapeCredentials,
    ca: Option<PathBuf>,
    list: Option<PathBuf>,
}

/// What stands in them now, or why that cannot be known.
struct Texts {
    secret: Option<Result<Vec<u8>, String>>,
    ca: Option<Result<Vec<u8>, String>>,
    list: Option<Result<Vec<u8>, String>>,
}

/// The list as it was last understood.
struct List {
    text: Vec<u8>,
    endpoints: Vec<Endpoint>,
}

/// TLS and the text of the authorities that it was made of; none for those of this machine.
struct Trust {
    ca: Option<Vec<u8>>,
    config: Arc<ClientConfig>,
}

impl Files {
    pub(super) fn of(told: &AppPoolSettings) -> Self {
        let paths = Paths {
            credentials: told.credentials.clone(),
            ca: told.ca_file.clone(),
            list: told.file_sd.clone(),
        };
        Self {
            paths: Arc::new(paths),
            metrics_path: told.metrics_path.clone(),
            set: told.scrape.iter().filter_map(Endpoint::of_settings).collect(),
            reader: Arc::new(Semaphore::new(1)),
            last: None,
            list: None,
            tls: None,
        }
    }

    /// Reads them, and makes of them what a round needs.
    pub(super) async fn prepare(&mut self, deadline: Instant) -> Result<Prepared, Failure> {
        let texts = self.read(deadline).await;
        let is_late = texts.is_none();
        let Some(texts) = texts.or_else(|| self.last.clone()) else {
            let text = format!("reading {} takes too long", self.paths.words());
            return Err(failure(FailureKind::TooSlow, text));
        };
        self.last = Some(Arc::clone(&texts));
        let authorization = self.paths.authorization(&texts)?;
        let mut trouble = self.understand(&texts)?;
        if is_late {
            let text = format!(
                "reading {} takes too long; what was read before is still used",
                self.paths.words()
            );
            trouble = Some(failure(FailureKind::TooSlow, text));
        }
        let of_list = self.list.iter().flat_map(|list| &list.endpoints);
        let endpoints: Vec<Endpoint> = self.set.iter().chain(of_list).cloned().collect();
        let needs_tls = endpoints.iter().any(|endpoint| endpoint.is_tls);
        let tls = if needs_tls { Some(self.trust(&texts, deadline).await?) } else { None };
        Ok(Prepared { authorization, tls, endpoints, trouble })
    }

    /// What stands in the files; `None` if the disk does not say in time.
    async fn read(&self, deadline: Instant) -> Option<Arc<Texts>> {
        if self.paths.is_empty() {
            return Some(Arc::new(Texts { secret: None, ca: None, list: None }));
        }
        let paths = Arc::clone(&self.paths);
        blocking(&self.reader, deadline, move || Arc::new(paths.texts())).await
    }

    /// Takes the list over if it can be understood, and says why not if there is an earlier one.
    fn understand(&mut self, texts: &Texts) -> Result<Option<Failure>, Failure> {
        let (Some(text), Some(path)) = (&texts.list, &self.paths.list) else { return Ok(None) };
        if let (Ok(text), Some(list)) = (text, &self.list)
            && *text == list.text
        {
            return Ok(None);
        }
        let understood = text.as_ref().map_err(Clone::clone);
        let understood = understood
            .and_then(|text| Ok((text, listed(text, &self.metrics_path)?)))
            .map_err(|why| format!("reading the list of instances in {}: {why}", path.display()));
        match (understood, &self.list) {
            (Ok((text, endpoints)), _) => {
                tracing::info!(instances = endpoints.len(), "took a new list of instances over");
                self.list = Some(List { text: text.clone(), endpoints });
                Ok(None)
            }
            (Err(why), None) => Err(failure(FailureKind::Unsupported, why)),
            (Err(why), Some(_)) => {
                let text = format!("{why}; the instances listed before are still asked");
                Ok(Some(failure(FailureKind::Unsupported, text)))
            }
        }
    }

    async fn trust(
        &mut self,
        texts: &Texts,
        deadline: Instant,
    ) -> Result<Arc<ClientConfig>, Failure> {
        let ca = match &texts.ca {
            None => None,
            Some(Ok(ca)) => Some(ca.clone()),
            Some(Err(why)) => {
                let path = self.paths.ca.as_deref().unwrap_or(Path::new("")).display();
                let text = format!("reading the certificates in {path}: {why}");
                return Err(failure(FailureKind::NotAllowed, text));
            }
        };
        if let Some(trust) = self.tls.as_ref().filter(|trust| trust.ca == ca) {
            return Ok(Arc::clone(&trust.config));
        }
        let (path, text) = (self.paths.ca.clone(), ca.clone());
        // The machine's own authorities are some hundred files.
        let made = blocking(&self.reader, deadline, move || {
            tls::for_web(path.as_deref().zip(text.as_deref()))
        });
        let made = made.await.ok_or_else(|| {
            failure(FailureKind::TooSlow, "reading the trusted certificates takes too long")
        })?;
        let config = made.map_err(|error| failure(FailureKind::NotAllowed, chain(&error)))?;
        let config = Arc::new(config);
        self.tls = Some(Trust { ca, config: Arc::clone(&config) });
        Ok(config)
    }
}

impl Paths {
    fn is_empty(&self) -> bool {
        self.secret().is_none() && self.ca.is_none() && self.list.is_none()
    }

    fn secret(&self) -> Option<&Path> {
        match &self.credentials {
            ScrapeCredentials::None => None,
            ScrapeCredentials::Bearer(file) => Some(file),
            ScrapeCredentials::Basic { password_file, .. } => Some(password_file),
        }
    }

    fn words(&self) -> String {
        let paths = [self.secret(), self.ca.as_deref(), self.list.as_deref()];
        let paths = paths.into_iter().flatten().map(|path| path.display().to_string());
        paths.collect::<Vec<_>>().join(", ")
    }

    fn texts(&self) -> Texts {
        Texts {
            secret: self.secret().map(|path| read_some(path, MAX_SECRET_BYTES)),
            ca: self.ca.as_deref().map(|path| read_some(path, MAX_CA_BYTES)),
            list: self.list.as_deref().map(|path| read_some(path, MAX_LIST_BYTES)),
        }
    }

    /// The header that says who asks.
    fn authorization(&self, texts: &Texts) -> Result<Option<HeaderValue>, Failure> {
        let (Some(text), Some(path)) = (&texts.secret, self.secret()) else { return Ok(None) };
        let (what, scheme) = match &self.credentials {
            ScrapeCredentials::Basic { .. } => ("password", "Basic"),
            _ => ("token", "Bearer"),
        };
        let wrong = |why: &str| {
            let text = format!("reading the {what} in {}: {why}", path.display());
            failure(FailureKind::NotAllowed, text)
        };
        let text = text.as_ref().map_err(|why| wrong(why))?;
        let text = text.trim_ascii_end();
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let shown = match &self.credentials {
            ScrapeCredentials::Basic { username, .. } => {
                let mut both = format!("{username}:").into_bytes();
                both.extend_from_slice(text);
                format!("{scheme} {}", BASE64.encode(both)).into_bytes()
            }
            _ => [scheme.as_bytes(), b" ", text].concat(),
        };
        let header = HeaderValue::from_bytes(&shown);
        let mut header = header.map_err(|_| wrong("it holds what no header can hold"))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

fn read_some(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let opened = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut text = Vec::new();
    let read = opened.take(most + 1).read_to_end(&mut text);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > most {
        return Err(format!("is longer than {} kB", most / 1024));
    }
    Ok(text)
}

/// What a call gives that may block; `None` if not in time, or if an earlier one still hangs.
async fn blocking<T: Send + 'static>(
    one: &Arc<Semaphore>,
    deadline: Instant,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let permit = timeout_at(deadline, Arc::clone(one).acquire_owned()).await.ok()?.ok()?;
    let calling = tokio::task::spawn_blocking(move || {
        // Kept until the call returns, also when nobody waits for it any more.
        let _permit = permit;
        call()
    });
    timeout_at(deadline, calling).await.ok()?.ok()
}
