//! A real Prometheus that scrapes one Plimsoll every second, and its HTTP API.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::launch::{DEADLINE, until};

/// Somebody may take a port between our look at it and Prometheus' bind.
const PORT_ATTEMPTS: usize = 5;

/// A Prometheus that runs. It ends with the test.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one, and returns when it answers.
    pub(crate) async fn start(scraped: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
             scrape_configs:\n- job_name: plimsoll\n  static_configs:\n  - targets: ['{scraped}']\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), settings).unwrap();
        for _ in 0..PORT_ATTEMPTS {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut prometheus = Self::spawn(address, &folder);
            let answers = || match prometheus.try_wait().unwrap() {
                Some(status) => Some(Err(status)),
                None => ask(address, "/-/ready").filter(|(status, _)| *status == 200).map(Ok),
            };
            let ready = until("Prometheus to be ready", answers).await;
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
            match ready {
                Ok(_) => return Self { child: prometheus, address, folder },
                Err(status) => assert!(log.contains("address already in use"), "{status}: {log}"),
            }
        }
        panic!("no port was free for Prometheus in {PORT_ATTEMPTS} attempts")
    }

    fn spawn(address: SocketAddr, folder: &tempfile::TempDir) -> Child {
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("series").display()));
        command.arg(format!("--web.listen-address={address}"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().unwrap_or_else(|error| {
            panic!("prometheus: {error}; install it with `apt-get install prometheus`")
        })
    }

    /// Asks its API; what it says must be success.
    pub(crate) fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut path = path.to_owned();
        for (n, (name, value)) in parameters.iter().enumerate() {
            let separator = if n == 0 { '?' } else { '&' };
            write!(path, "{separator}{}={}", percent(name), percent(value)).unwrap();
        }
        let (status, body) = ask(self.address, &path).expect("Prometheus answers");
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        assert!(status == 200 && answer["status"] == "success", "{parameters:?}: {status} {body}");
        answer["data"].clone()
    }

    /// The series of a query now, with the value of each; numbers alone.
    pub(crate) fn now(&self, query: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let data = self.api("/api/v1/query", &[("query", query)]);
        let series = data["result"].as_array().expect("a vector").iter();
        let number = |one: &Value| one["value"][1].as_str().unwrap().parse::<f64>().unwrap();
        series.map(|one| (labels(one), number(one))).filter(|(_, n)| n.is_finite()).collect()
    }

    /// The series of a query over a time, with the numbers of each.
    pub(crate) fn range(
        &self,
        query: &str,
        (start, end): (f64, f64),
    ) -> Vec<(BTreeMap<String, String>, Vec<f64>)> {
        let (start, end) = (start.to_string(), end.to_string());
        let asked = [("query", query), ("start", &start), ("end", &end), ("step", "1")];
        let data = self.api("/api/v1/query_range", &asked);
        let series = data["result"].as_array().expect("a matrix").iter();
        let numbers = |one: &Value| -> Vec<f64> {
            let points = one["values"].as_array().unwrap().iter();
            let numbers = points.map(|point| point[1].as_str().unwrap().parse::<f64>().unwrap());
            numbers.filter(|number| number.is_finite()).collect()
        };
        let series = series.map(|one| (labels(one), numbers(one)));
        series.filter(|(_, numbers)| !numbers.is_empty()).collect()
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Prometheus said:\n{}", self.log());
        }
        // It may have ended; then both of these fail and nothing is lost.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn labels(series: &Value) -> BTreeMap<String, String> {
    let labels = series["metric"].as_object().unwrap().iter();
    labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// Status and body, if there is an answer. HTTP/1.0, so that it comes in one piece.
pub(crate) fn ask(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let one = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(one).collect()
}
