//! What the sources of a target beside its server come to: poolers, probes, applications, and rules
//! on them.

use std::time::Duration;

use plimsoll_core::settings::{PasswordFrom, PoolMetrics, ScrapeCredentials, TargetSettings};

use super::Case;

#[test]
fn a_pooler_needs_a_name_and_an_address() {
    let text = r#"
[poll]
interval = "2s"
timeout = "7s"
[[targets]]
postgres = "host=db"
[[targets.poolers]]
name = "first"
url = "postgresql://stats@127.0.0.1:6432"
[[targets.poolers]]
name = "second"
url = "host=/run/pgbouncer port=6433 user=stats"
password_file = "password"
interval = "10s"
timeout = "3s"
"#;
    // Whoever watches is none of theirs.
    let case = Case::new(text).secret("password", "geheim\n").env("PGUSER", "watcher");
    let settings = case.env("PGPASSWORD", "hunter2").settings();
    let [first, second] = settings.targets[0].poolers.as_slice() else { panic!("{settings:?}") };
    assert_eq!((first.name.as_str(), second.name.as_str()), ("first", "second"));
    assert_eq!(first.password, None);
    let [two, seven, ten, three] = [2, 7, 10, 3].map(Duration::from_secs);
    assert_eq!((first.interval, first.timeout), (two, seven));
    assert_eq!((second.interval, second.timeout), (ten, three));
    assert!(
        matches!(&second.password, Some(PasswordFrom::File(path)) if path.ends_with("password"))
    );
}

#[test]
fn a_probe_needs_a_name_and_an_address() {
    let text = r#"
[poll]
timeout = "7s"
[[targets]]
postgres = "host=db"
[[targets.probes]]
name = "direct"
url = "postgresql://payment@db/payment"
[[targets.probes]]
name = "through-the-pooler"
url = "service=pooled"
password_file = "password"
interval = "30s"
timeout = "3s"
keep_free = 0.02
"#;
    let service = "[pooled]\nhost=pgbouncer\nuser=payment\n";
    let case = Case::new(text).secret("password", "geheim\n").secret("services", service);
    let services = case.path().join("services").display().to_string();
    // Whoever watches is none of theirs.
    let case = case.env("PGSERVICEFILE", &services).env("PGUSER", "watcher");
    let settings = case.env("PGPASSWORD", "hunter2").settings();
    let [direct, pooled] = settings.targets[0].probes.as_slice() else { panic!("{settings:?}") };
    assert_eq!(direct.name, "direct");
    assert_eq!(direct.url.expose(), "postgresql://payment@db/payment");
    assert_eq!(direct.password, None);
    assert_eq!(direct.interval, Duration::from_secs(10));
    assert_eq!(direct.timeout, Duration::from_secs(7));
    assert!(direct.keep_free.abs() < f64::EPSILON);
    assert_eq!(pooled.interval, Duration::from_secs(30));
    assert_eq!(pooled.timeout, Duration::from_secs(3));
    assert!((pooled.keep_free - 0.02).abs() < f64::EPSILON);
    assert!(
        matches!(&pooled.password, Some(PasswordFrom::File(path)) if path.ends_with("password"))
    );

    let without_user = text.replace("payment@", "");
    let mistakes = Case::new(&without_user).env("PGUSER", "watcher").mistakes();
    assert!(mistakes.contains("targets[0].probes[0].url: names no user"), "{mistakes}");
}

#[test]
fn rules_on_pools_and_sources_are_set_for_one_target_and_for_one_subject() {
    let settings = Case::new(
        r#"
[rules.pool_waiting]
critical = { above = "10s" }
[rules.pool_waiting.subjects."pooler/pgbouncer payment/batch"]
enabled = false
[rules.pool_waiting.subjects."app_pool/api HikariPool-1"]
warning = { enabled = false }
[rules.pool_utilization.subjects."pooler/pgbouncer clients"]
critical = { above = 0.95 }
[rules.source_unreadable.subjects.log]
for = "30m"

[[targets]]
name = "a"
postgres = "postgresql://a"
[targets.rules.pool_waiting]
timeouts = false
[targets.rules.pool_utilization]
alone = true
[targets.rules.overcommit]
enabled = false
[targets.rules.source_unreadable.subjects.log]
enabled = false

[[targets]]
name = "b"
postgres = "postgresql://b"
[targets.rules.pool_waiting]
enabled = false
"#,
    )
    .settings();
    let [a, b] = &settings.targets[..] else { panic!("{settings:?}") };
    let waiting = a.rules.pool_waiting.as_ref().unwrap();
    assert!(!waiting.timeouts);
    assert_eq!(waiting.levels.critical.unwrap().above, Duration::from_secs(10));
    assert_eq!(waiting.levels_of("pooler/pgbouncer payment/batch"), None);
    let one = waiting.levels_of("app_pool/api HikariPool-1").unwrap();
    assert_eq!((one.warning, one.critical), (None, waiting.levels.critical));
    let utilization = a.rules.pool_utilization.as_ref().unwrap();
    assert!(utilization.alone);
    let clients = utilization.levels.levels_of("pooler/pgbouncer clients").unwrap();
    let above = clients.critical.map(|level| level.threshold.mark(100));
    assert_eq!(above, Some(95.0));
    assert_eq!(a.rules.overcommit, None);
    let log = |target: &TargetSettings| {
        let rule = target.rules.source_unreadable.as_ref().unwrap();
        rule.subjects.get("log").copied()
    };
    assert_eq!((log(a), log(b)), (Some(None), Some(Some(Duration::from_mins(30)))));
    assert_eq!(b.rules.pool_waiting, None);
    assert!(b.rules.overcommit.is_some());
}

#[test]
fn the_pools_of_applications() {
    let case = Case::new(
        r#"
[app_pool_defaults]
interval = "10s"
[[targets]]
postgres = "host=db"
[[targets.app_pools]]
application = "api"
scrape = ["http://h:8080/metrics", "https://h/metrics?token=x"]
dns = true
bearer_token_file = "token"
ca_file = "ca.pem"
preset = "go_sql"
[[targets.app_pools]]
application = "jobs"
file_sd = "jobs.json"
interval = "1s"
username = "u"
password_file = "token"
[targets.app_pools.mapping]
in_use = 'busy{kind="db.main"}'
wait_time = "waited"
wait_unit = "ms"
"#,
    )
    .secret("token", "geheim\n");
    let settings = case.settings();
    let [api, jobs] = settings.targets[0].app_pools.as_slice() else { panic!("{settings:?}") };
    let at = |name: &str| case.path().join(name);
    assert_eq!((api.application.as_str(), api.scrape.len(), api.dns), ("api", 2, true));
    assert_eq!((api.interval, api.timeout), (Duration::from_secs(10), Duration::from_secs(3)));
    assert_eq!(api.credentials, ScrapeCredentials::Bearer(at("token")));
    assert_eq!(api.ca_file, Some(at("ca.pem")));
    assert_eq!(api.metrics, PoolMetrics::Preset("go_sql"));
    assert_eq!(
        (jobs.file_sd.clone(), jobs.metrics_path.as_str()),
        (Some(at("jobs.json")), "/metrics")
    );
    // Patience that was not set is no longer than the rhythm.
    assert_eq!((jobs.interval, jobs.timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    let basic = ScrapeCredentials::Basic { username: "u".to_owned(), password_file: at("token") };
    assert_eq!(jobs.credentials, basic);
    let PoolMetrics::Mapping(mapping) = &jobs.metrics else { panic!("{jobs:?}") };
    assert_eq!(mapping.fields.len(), 2);
    assert_eq!(mapping.fields[0].1.labels, [("kind".to_owned(), "db.main".to_owned())]);
    assert!((mapping.wait_unit_seconds - 0.001).abs() < f64::EPSILON);
}

/// Each TOML example of the page on sources, as it stands there. What begins inside of a target
/// comes after the one that a reader has by then.
#[test]
fn the_examples_of_the_documentation_are_accepted() {
    let page = include_str!("../../../docs/sources.md");
    let examples: Vec<&str> = page.split("```toml\n").skip(1).collect();
    assert!(examples.len() >= 7, "{}", examples.len());
    for example in examples {
        let (example, _) = example.split_once("```").unwrap();
        let example = example.replace("/run/secrets/", "").replace("/etc/ssl/", "");
        let application = "[[targets.app_pools]]\napplication = \"payment-api\"\n\
                           scrape = [\"http://10.0.0.7:8080/metrics\"]\n";
        let before = match example.trim_start() {
            inside if inside.starts_with("[targets.app_pools.") => application,
            _ => "",
        };
        let target = if example.contains("[[targets]]") {
            ""
        } else {
            "[[targets]]\npostgres = \"postgresql://plimsoll@db\"\n"
        };
        let case = Case::new(&format!("{target}{before}{example}"));
        let secrets = ["payment-password", "pgbouncer-stats", "scrape-token"];
        let case = secrets.into_iter().fold(case, |case, name| case.secret(name, "geheim\n"));
        assert_eq!(case.mistakes(), "no mistake", "{example}");
    }
}
