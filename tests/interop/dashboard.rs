//! The dashboard: that Grafana can import it, and that every query in it finds what it asks for in
//! a real Prometheus that scrapes a real Plimsoll that watches a real server in trouble.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::drill::server::{Mode, Options, Server, Session};
use serde_json::Value;

use crate::launch::{Daemon, Home, until};
use crate::prometheus::Prometheus;
use crate::{next, root};

/// Grafana's grid is so many columns wide.
const COLUMNS: u64 = 24;

/// The form of dashboards since Grafana 10.1; later versions bring it up to theirs.
const SCHEMA: u64 = 39;

fn dashboard() -> Value {
    let text = std::fs::read_to_string(root().join("dashboards/target.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().collect()
}

fn text(of: &Value) -> &str {
    of.as_str().unwrap_or_default()
}

fn list(of: &Value) -> &[Value] {
    of.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// One query of the dashboard, as it stands there.
#[derive(Debug)]
struct Query {
    place: String,
    expr: String,
    instant: bool,
}

/// The queries of every panel and annotation.
fn queries(dashboard: &Value) -> Vec<Query> {
    let mut found = Vec::new();
    for panel in panels(dashboard) {
        for target in list(&panel["targets"]) {
            let place = format!("{} {}", text(&panel["title"]), text(&target["refId"]));
            let expr = text(&target["expr"]).to_owned();
            found.push(Query { place, expr, instant: target["instant"] == true });
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        let place = format!("the annotation {}", text(&annotation["name"]));
        let expr = text(&annotation["expr"]).to_owned();
        found.push(Query { place, expr, instant: false });
    }
    found
}

#[test]
fn is_what_grafana_can_import() {
    let dashboard = dashboard();
    assert_eq!(dashboard["schemaVersion"], SCHEMA);
    assert!(dashboard.get("id").is_none(), "an id belongs to one Grafana");
    assert_eq!(dashboard["uid"], "plimsoll-target");
    let panels = panels(&dashboard);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
    let mut taken = BTreeMap::new();
    for panel in &panels {
        let title = text(&panel["title"]);
        assert!(!title.is_empty(), "{panel}");
        let side = |name: &str| panel["gridPos"][name].as_u64().expect(title);
        let (x, y, w, h) = (side("x"), side("y"), side("w"), side("h"));
        assert!(0 < w && 0 < h && x + w <= COLUMNS, "{title}: {}", panel["gridPos"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            let other = taken.insert(cell, title);
            assert!(other.is_none(), "{title} covers {other:?} at {cell:?}");
        }
        if panel["type"] == "row" {
            continue;
        }
        // What it means and what to do, the unit, and words for "not known": not the same as 0.
        assert!(text(&panel["description"]).ends_with('.'), "{title} is not described");
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(!text(&defaults["unit"]).is_empty(), "{title} has no unit");
        assert!(!text(&defaults["noValue"]).is_empty(), "{title} does not say what is missing");
        if let Some(span) = defaults["custom"].get("spanNulls") {
            assert_eq!(*span, false, "{title} draws over gaps");
        }
        let targets = list(&panel["targets"]);
        assert!(!targets.is_empty(), "{title} asks for nothing");
        let letters: BTreeSet<_> = targets.iter().map(|target| text(&target["refId"])).collect();
        assert_eq!(letters.len(), targets.len(), "{title}: two queries have one letter");
    }
    let mut sources = Vec::new();
    find("datasource", &dashboard, &mut sources);
    assert!(sources.len() > panels.len());
    for source in sources {
        assert_eq!(source["uid"], "${datasource}", "a data source of one Grafana");
    }
}

/// Every value under this key, however deep.
fn find<'a>(key: &str, within: &'a Value, found: &mut Vec<&'a Value>) {
    match within {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|field| find(key, field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| find(key, item, found)),
        _ => {}
    }
}

#[test]
fn asks_for_documented_metrics_of_the_chosen_server_alone() {
    let docs = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let dashboard = dashboard();
    let mut named = BTreeSet::new();
    for Query { place, expr, .. } in queries(&dashboard) {
        let metrics = metrics(&expr);
        assert!(!metrics.is_empty(), "{place}: {expr}");
        // Every selector is narrowed: two servers in one Prometheus must not be added up.
        let narrowed = expr.matches("instance=~\"$instance\"").count();
        assert_eq!(narrowed, metrics.len(), "{place}: {expr}");
        named.extend(metrics);
    }
    for variable in list(&dashboard["templating"]["list"]) {
        named.extend(metrics(text(&variable["definition"])));
    }
    assert!(named.len() > 30, "{named:?}");
    for name in named {
        assert!(docs.contains(&format!("| `{name}` |")), "{name} is not in docs/metrics.md");
    }
}

/// The names of metrics in a query, a histogram's without its suffix.
fn metrics(expr: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expr
        .split(|c| !is_part(c))
        .filter(|word| word.starts_with("plimsoll_") || word.starts_with("process_"));
    words.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

/// A server that is full, a daemon that watches it, and one that scrapes the daemon.
struct Scene {
    server: Server,
    daemon: Daemon,
    prometheus: Prometheus,
    sessions: Vec<Session>,
    instance: String,
    _receivers: [Receiver; 2],
    _home: Home,
}

/// Marks of one's own: the dashboard must show these, and not the shipped ones.
const RULES: &str = r#"
[rules.slots]
warning  = { above = 0.75, for = "0s", clear_below = 0.70 }
critical = { above_used = 15, for = "0s", clear_below_used = 12 }
[rules.slots_full]
keep_firing_for = "0s"
"#;

impl Scene {
    async fn stage() -> Self {
        let server = Server::start(Options { max_connections: 20, ..Options::default() }).await;
        let server = server.unwrap();
        let superuser = server.superuser().await.unwrap();
        let made = "CREATE ROLE app LOGIN; ALTER DATABASE postgres CONNECTION LIMIT 40; \
                    CREATE ROLE plimsoll LOGIN CONNECTION LIMIT 5 IN ROLE pg_monitor";
        superuser.batch_execute(made).await.unwrap();
        superuser.close().await;
        let well = Receiver::start(Behaviour::status(200)).await.unwrap();
        let failing = Receiver::start(Behaviour::status(503)).await.unwrap();
        let webhook = |name: &str, receiver: &Receiver| {
            let url = receiver.url();
            format!("[[receivers]]\nname = \"{name}\"\ntype = \"webhook\"\nurl = \"{url}\"\n")
        };
        let home = Home::new(&format!(
            "instance = \"test\"\nserver.listen = \"127.0.0.1:0\"\n{RULES}\
             [[targets]]\nname = \"db\"\npostgres = \"{}\"\n{}{}",
            server.url("plimsoll", "postgres"),
            webhook("well", &well),
            webhook("failing", &failing),
        ));
        let daemon = home.start();
        let prometheus = Prometheus::start(daemon.address).await;
        let quiet = daemon.until("the superuser gone", |t| t["slots"]["free"] == 16).await;
        // Counters have a beginning from which they can rise.
        let begun = || (!prometheus.now("plimsoll_slots_free == 16").is_empty()).then_some(());
        until("a scrape of the quiet server", begun).await;
        let free = usize::try_from(quiet["slots"]["free"].as_u64().unwrap()).unwrap();
        let sessions = server.fill("app", "payment-api", free).await.unwrap();
        next(&well, "trigger").await;
        next(&failing, "trigger").await;
        let instance = daemon.address.to_string();
        Self {
            server,
            daemon,
            prometheus,
            sessions,
            instance,
            _receivers: [well, failing],
            _home: home,
        }
    }

    /// A query as Grafana sends it, after it has put in its variables.
    fn sent(&self, expr: &str) -> String {
        let sent = expr
            .replace("$target", "db")
            // Grafana escapes a value of a variable that may have several.
            .replace("$instance", &self.instance.replace('.', "\\\\."))
            // Four scrapes, as Grafana has it for a data source with this interval.
            .replace("$__rate_interval", "4s")
            .replace("$__range", "1h");
        // `^$` is a regular expression; a variable has a name.
        let is_name = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '{';
        let left = sent.split('$').skip(1).any(|rest| rest.starts_with(is_name));
        assert!(!left, "a variable that nobody has put in: {sent}");
        sent
    }

    /// Whether it finds a number.
    fn finds(&self, query: &Query) -> bool {
        let sent = self.sent(&query.expr);
        if query.instant {
            return !self.prometheus.now(&sent).is_empty();
        }
        let now = self.prometheus.now("vector(time())")[0].1;
        !self.prometheus.range(&sent, (now - 60.0, now)).is_empty()
    }

    fn number(&self, expr: &str) -> Option<f64> {
        self.prometheus.now(&self.sent(expr)).first().map(|(_, number)| *number)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_what_it_asks_for_and_shows_what_is_not_known_as_such() {
    let scene = Scene::stage().await;
    let dashboard = dashboard();
    let queries = queries(&dashboard);
    assert!(queries.len() > 40, "only {} queries were found", queries.len());
    for query in &queries {
        until(&format!("data for {query:?}"), || scene.finds(query).then_some(())).await;
    }
    variables_offer_the_server(&scene, &dashboard);

    let expr = |place: &str| {
        let found = queries.iter().find(|query| query.place == place);
        &found.unwrap_or_else(|| panic!("no panel {place}")).expr
    };
    let line = |letter: &str| scene.number(expr(&format!("Slots in use and the marks {letter}")));
    assert_eq!(line("A"), Some(17.0), "used");
    assert_eq!(line("B"), Some(17.0), "usable");
    assert_eq!(line("C"), Some(12.75), "the mark of the warning, as it was set");
    assert_eq!(line("D"), Some(15.0), "the mark of the critical level, as it was set");
    assert_eq!(line("E"), Some(20.0), "max_connections");
    let incident = expr("Incident A");
    assert_eq!(scene.number(incident), Some(3.0), "critical");
    let alerts = scene.prometheus.now(&scene.sent(expr("Incident and alerts B")));
    let firing: BTreeSet<_> = alerts.iter().map(|(labels, _)| labels["rule"].as_str()).collect();
    assert_eq!(firing, BTreeSet::from(["slots", "slots_full"]));
    let holders = scene.prometheus.now(&scene.sent(expr("Slots by application A")));
    let held: BTreeMap<_, _> =
        holders.iter().map(|(labels, held)| (labels["application"].as_str(), *held)).collect();
    assert_eq!(held, BTreeMap::from([("payment-api", 16.0), ("plimsoll", 1.0)]));
    assert_eq!(scene.number(expr("Slots by application B")), Some(0.0), "nobody else");
    let owed = expr("Pages owed A");
    assert!(scene.number(owed).is_some_and(|owed| owed >= 1.0));

    what_is_not_known_is_not_zero(scene, expr("Free slots A"), expr("Server is read A")).await;
}

fn variables_offer_the_server(scene: &Scene, dashboard: &Value) {
    let mut asked = 0;
    for variable in list(&dashboard["templating"]["list"]) {
        let Some(inside) = text(&variable["definition"]).strip_prefix("label_values(") else {
            assert_eq!(variable["type"], "datasource");
            continue;
        };
        assert_eq!(variable["definition"], variable["query"]["query"]);
        let (selector, label) = inside.trim_end_matches(')').rsplit_once(", ").unwrap();
        let path = format!("/api/v1/label/{label}/values");
        let values = scene.prometheus.api(&path, &[("match[]", &scene.sent(selector))]);
        let expected = if label == "target" { "db" } else { &scene.instance };
        assert_eq!(values, serde_json::json!([expected]), "{variable}");
        asked += 1;
    }
    assert_eq!(asked, 2);
}

/// A server that is down has no free slots that anybody knows of, and the incident is still there.
async fn what_is_not_known_is_not_zero(mut scene: Scene, free: &str, read: &str) {
    assert_eq!(scene.number(read), Some(1.0));
    assert_eq!(scene.number(free), Some(0.0), "full is a number");
    scene.server.stop(Mode::Immediate).await.unwrap();
    drop(std::mem::take(&mut scene.sessions));
    until("a server that is not read", || (scene.number(read) == Some(0.0)).then_some(())).await;
    until("unknown slots", || scene.number(free).is_none().then_some(())).await;
    let open = scene.daemon.target()["incident"]["state"].clone();
    assert_eq!(open, "open", "unknown ends nothing");
}
