//! Where instances are: URLs of settings, and the list that a `file_sd` file holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use hyper::Uri;
use plimsoll_core::settings::Secret;
use serde::Deserialize;

use super::Named;

/// Where metrics are unless somebody says otherwise; not shown then.
const USUAL_PATH: &str = "/metrics";

/// A URL to scrape.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    /// The whole of it, which may hold a token. Never shown.
    url: HiddenUrl,
    host: String,
    port: u16,
    path: String,
    pub(super) is_tls: bool,
    /// Whether it stands in settings, whose names may be looked up for all their addresses.
    pub(super) is_set: bool,
}

/// One of the things that are asked: a URL, or one address of its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer {
    pub(super) to: Endpoint,
    pub(super) at: Option<SocketAddr>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct HiddenUrl(String);

impl std::fmt::Debug for HiddenUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Endpoint {
    /// One of settings.
    pub(super) fn of_settings(url: &Secret) -> Option<Self> {
        Self::parse(url.expose(), true)
    }

    fn parse(url: &str, is_set: bool) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match (uri.port(), is_tls) {
            (Some(port), _) => port.as_u16(),
            (None, false) => 80,
            (None, true) => 443,
        };
        let path = uri.path().to_owned();
        Some(Self { url: HiddenUrl(url.to_owned()), host, port, path, is_tls, is_set })
    }

    /// Its name or address, without brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The URL.
    pub(super) fn uri(&self) -> Option<Uri> {
        self.url.0.parse().ok()
    }

    /// What it is called: host, port and path. A query is where tokens are.
    pub(super) fn shown(&self, at: Option<SocketAddr>) -> String {
        let path = if self.path == USUAL_PATH { "" } else { &self.path };
        match at {
            Some(at) => format!("{at}{path}"),
            None if self.host.contains(':') => format!("[{}]:{}{path}", self.host, self.port),
            None => format!("{}:{}{path}", self.host, self.port),
        }
    }
}

/// Each peer once; those that look alike without their queries are numbered.
pub(super) fn told_apart(found: Vec<Named>) -> Vec<Named> {
    let mut peers = BTreeSet::new();
    let mut names: BTreeMap<String, u32> = BTreeMap::new();
    let is_new = |(_, peer): &Named| match peer {
        Ok(peer) => peers.insert(peer.clone()),
        Err(_) => true,
    };
    let each_once: Vec<Named> = found.into_iter().filter(is_new).collect();
    let numbered = each_once.into_iter().map(|(name, peer)| {
        let times = names.entry(name.clone()).or_default();
        *times += 1;
        let name = if *times == 1 { name } else { format!("{name} ({times})") };
        (name, peer)
    });
    numbered.collect()
}

/// One entry of Prometheus' `file_sd` JSON.
#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The instances that such a file lists, or what is wrong with it. Of labels, `__scheme__` and
/// `__metrics_path__` are looked at. Prometheus' documentation: `file_sd_config`.
pub(super) fn listed(json: &[u8], usual_path: &str) -> Result<Vec<Endpoint>, String> {
    let groups: Vec<Group> = serde_json::from_slice(json).map_err(|error| {
        // Its message can hold a piece of the file.
        let what = match error.classify() {
            serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Data => "it is no list of {\"targets\": [\"host:port\"]}",
            _ => "it is no JSON",
        };
        format!("{what} (line {}, column {})", error.line(), error.column())
    })?;
    let mut endpoints = Vec::new();
    for (number, group) in (1..).zip(&groups) {
        let label = |name: &str| group.labels.get(name).map(String::as_str);
        let scheme = label("__scheme__").unwrap_or("http");
        let path = label("__metrics_path__").unwrap_or(usual_path);
        for target in &group.targets {
            let is_plain = !target.is_empty() && !target.contains(['/', '?', '#', '@']);
            let url = format!("{scheme}://{target}{path}");
            let endpoint = Endpoint::parse(&url, false).filter(|_| is_plain);
            endpoints.push(endpoint.ok_or_else(|| {
                format!("a target of its group {number} is no host and port that can be asked")
            })?);
        }
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_query() {
        for (url, shown) in [
            ("http://10.0.0.7:8080/metrics", "10.0.0.7:8080"),
            ("https://api.example/actuator/prometheus", "api.example:443/actuator/prometheus"),
            ("http://[::1]:9/metrics?token=geheim", "[::1]:9"),
            ("http://h", "h:80/"),
        ] {
            let endpoint = Endpoint::of_settings(&Secret::new(url)).unwrap();
            assert_eq!(endpoint.shown(None), shown);
            assert!(!format!("{endpoint:?}").contains("geheim"));
        }
        for url in ["ftp://h/", "http://u:p@h/", "h:80", "http://"] {
            assert_eq!(Endpoint::of_settings(&Secret::new(url)), None, "{url}");
        }
        let at = "10.1.2.3:8080".parse().unwrap();
        let endpoint = Endpoint::of_settings(&Secret::new("http://api:8080/metrics")).unwrap();
        assert_eq!(endpoint.shown(Some(at)), "10.1.2.3:8080");
    }

    #[test]
    fn a_file_lists_instances_as_prometheus_has_it() {
        let json = br#"[
            { "targets": ["10.0.0.7:8080", "[fd00::7]:8080"], "labels": { "env": "eu" } },
            { "targets": ["api"], "labels": { "__scheme__": "https", "__metrics_path__": "/m" } },
            { "targets": [] }
        ]"#;
        let shown = |endpoints: Vec<Endpoint>| -> Vec<String> {
            endpoints.iter().map(|endpoint| endpoint.shown(None)).collect()
        };
        let listed_in = |json: &[u8]| listed(json, "/metrics").map(shown);
        assert_eq!(
            listed_in(json).unwrap(),
            ["10.0.0.7:8080", "[fd00::7]:8080", "api:443/m"].map(str::to_owned)
        );
        assert_eq!(listed_in(b"[]").unwrap(), Vec::<String>::new());
        for (json, said) in [
            (&b""[..], "ends too early (line 1, column 0)"),
            (b"[{\"targets\": [\"a:1\"", "ends too early"),
            (b"- targets: [a]", "no JSON"),
            (b"{}", "no list of"),
            (b"[{\"targets\": [1]}]", "no list of"),
            (b"[{\"targets\": [\"a:1\", \"u:geheim@a\"]}]", "a target of its group 1 is no host"),
            (b"[{\"targets\": [\"a:1/x\"]}]", "a target of its group 1 is no host"),
        ] {
            let error = listed_in(json).unwrap_err();
            assert!(error.contains(said), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn what_looks_alike_is_numbered_and_what_is_the_same_is_left_out() {
        let named = |url: &str| {
            let to = Endpoint::of_settings(&Secret::new(url)).unwrap();
            (to.shown(None), Ok(Peer { to, at: None }))
        };
        let found = ["http://a/?x=1", "http://a/?x=2", "http://a/?x=1"].map(named);
        let names: Vec<String> =
            told_apart(found.into()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a:80/", "a:80/ (2)"]);
    }
}
