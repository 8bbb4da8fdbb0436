//! What configurations come to: defaults, layers, rules laid over rules.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll::load::Overrides;
use plimsoll_core::judge::Severity;
use plimsoll_core::judge::rule::{
    Level, Levels, RuleName, StateRule, Threshold, WaitLevel, WaitLevels,
};
use plimsoll_core::settings::{
    Fallback, PasswordFrom, ReceiverKind, Secret, Settings, default_rules,
};
use proptest::prelude::*;

use super::Case;

const ADDRESS: &str = "postgresql://plimsoll@db:5432/postgres";

fn bare() -> Case {
    let postgres = vec![Secret::new(ADDRESS)];
    Case::without_file().flags(Overrides { postgres, ..Overrides::default() })
}

fn level(above: f64, hold_seconds: u64, clear_below: f64) -> Level {
    Level {
        threshold: Threshold::Ratio { above, clear_below },
        hold: Duration::from_secs(hold_seconds),
        keep_firing_for: Duration::ZERO,
    }
}

/// The table of DESIGN: what everyone has who sets nothing.
#[test]
fn an_address_is_all_that_is_needed() {
    let settings = bare().settings();
    assert_eq!(settings.instance, None);
    assert_eq!(settings.state_dir, Path::new("/home/op/.local/state/plimsoll"));
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:7546");
    assert_eq!(settings.server.external_url, None);
    assert_eq!(settings.server.shutdown_grace, Duration::from_secs(20));
    assert_eq!(settings.poll.interval, Duration::from_secs(1));
    assert!((settings.poll.budget - 0.005).abs() < f64::EPSILON);
    assert_eq!(settings.poll.timeout, Duration::from_secs(5));
    assert!(settings.receivers.is_empty());
    let [target] = settings.targets.as_slice() else { panic!("one target: {settings:?}") };
    assert_eq!(target.name, "db");
    assert!(target.named_by_default);
    assert_eq!(target.postgres.expose(), ADDRESS);

    let near_full =
        Levels { warning: Some(level(0.8, 60, 0.7)), critical: Some(level(0.9, 10, 0.8)) };
    let rules = &target.rules;
    assert_eq!(*rules, default_rules());
    assert_eq!(rules.slots, Some(near_full));
    assert_eq!(rules.role_limit.as_ref().map(|rule| rule.levels), Some(near_full));
    assert_eq!(rules.database_limit.as_ref().map(|rule| rule.levels), Some(near_full));
    let seconds = |hold, keep| StateRule {
        hold: Duration::from_secs(hold),
        keep_firing_for: Duration::from_secs(keep),
    };
    assert_eq!(rules.slots_full, Some(seconds(0, 10)));
    let logins = rules.logins_refused.unwrap();
    assert_eq!(logins.unanswered_for, Duration::from_secs(30));
    assert_eq!(logins.keep_firing_for, Duration::from_mins(1));
    assert_eq!(rules.overcommit, Some(seconds(60, 60)));
    let full = Levels { critical: Some(level(0.9, 60, 0.8)), ..near_full };
    let utilization = rules.pool_utilization.as_ref().unwrap();
    assert_eq!((utilization.levels.levels, utilization.alone), (full, false));
    let waiting = rules.pool_waiting.as_ref().unwrap();
    let wait = |above, above_clients, hold, clear_below, keep| WaitLevel {
        above: Duration::from_millis(above),
        above_clients,
        clear_below: Duration::from_millis(clear_below),
        hold: Duration::from_secs(hold),
        keep_firing_for: Duration::from_secs(keep),
    };
    let waits = WaitLevels {
        warning: Some(wait(1000, None, 15, 500, 0)),
        critical: Some(wait(5000, Some(0.1), 10, 1000, 60)),
    };
    assert_eq!((waiting.levels, waiting.timeouts), (waits, true));
    let source = rules.source_unreadable.as_ref().unwrap();
    assert_eq!(source.others, Duration::from_mins(2));
    assert_eq!(source.refused_or_stopped, Duration::from_secs(30));
    assert_eq!(source.unreachable_or_slow, Duration::from_mins(2));
    assert_eq!(source.starting, Duration::from_mins(5));
    assert_eq!(source.keep_firing_for, Duration::ZERO);
}

#[test]
fn the_shape_of_a_configuration() {
    let settings = Case::new(
        r#"
instance = "production-eu"
state_dir = "/var/lib/plimsoll"
[server]
listen = "[::1]:0"
external_url = "https://plimsoll.example.com/"
[[targets]]
name = "payment-db-primary"
postgres = "postgresql://plimsoll@db:5432/postgres?sslmode=verify-full"
password_file = "password"
fallback = "replication"
labels = { service = "payment", env = "production" }
[[receivers]]
name = "on-call"
type = "pagerduty"
routing_key_file = "key"
region = "eu"
[[receivers]]
name = "archive"
type = "webhook"
url_file = "url"
signing_secret_files = ["new", "old"]
targets = ["payment-db-primary"]
rules = ["slots", "slots_full"]
send_resolved = false
repeat_interval_warning = "8h"
"#,
    )
    .secret("password", "geheim\n")
    .secret("key", "0123456789abcdef0123456789ABCDEF\r\n")
    .secret("url", "https://hooks.example.com/a/token")
    .secret("new", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    .secret("old", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3\n");
    let Settings { instance, state_dir, targets, receivers, server, .. } = settings.settings();
    assert_eq!(instance.as_deref(), Some("production-eu"));
    assert_eq!(state_dir, Path::new("/var/lib/plimsoll"));
    assert_eq!(server.listen.port(), 0);
    assert_eq!(server.external_url.as_deref(), Some("https://plimsoll.example.com"));
    assert!(!targets[0].named_by_default);
    assert_eq!(targets[0].labels["service"], "payment");
    // Relative to the file that names it, wherever the daemon was started.
    let password = PasswordFrom::File(settings.path().join("password"));
    assert_eq!(targets[0].password, Some(password));
    assert_eq!(targets[0].fallback, Fallback::Replication);

    let [on_call, archive] = receivers.as_slice() else { panic!("two: {receivers:?}") };
    let ReceiverKind::Pagerduty { routing_key, base_url } = &on_call.kind else {
        panic!("{on_call:?}")
    };
    assert_eq!(routing_key.expose(), "0123456789abcdef0123456789ABCDEF");
    assert_eq!(base_url, "https://events.eu.pagerduty.com");
    assert_eq!(on_call.min_severity, Severity::Critical);
    assert_eq!(on_call.repeat_interval, Duration::from_mins(15));
    assert!(on_call.send_resolved);
    let ReceiverKind::Webhook { url, signing_secrets } = &archive.kind else {
        panic!("{archive:?}")
    };
    assert_eq!(url.expose(), "https://hooks.example.com/a/token");
    assert_eq!(signing_secrets.len(), 2);
    assert_eq!(archive.min_severity, Severity::Warning);
    assert_eq!(archive.rules, [RuleName::Slots, RuleName::SlotsFull]);
    assert_eq!(archive.targets, ["payment-db-primary"]);
    assert!(!archive.send_resolved);
    assert_eq!(archive.repeat_interval, Duration::from_mins(15));
    assert_eq!(archive.repeat_interval_warning, Duration::from_hours(8));
}

/// What is not said keeps the value of the layer below, key by key.
#[test]
fn rules_are_laid_over_each_other() {
    let settings = Case::new(
        r#"
[rules.slots]
critical = { above = 0.95 }
[rules.logins_refused]
enabled = false
[rules.role_limit]
warning = { enabled = false }
[rules.role_limit.subjects."pay.ment"]
warning = { enabled = true, above_used = 15 }
[rules.role_limit.subjects.batch]
enabled = false
[[targets]]
postgres = "host=a"
[[targets]]
postgres = "host=b"
[targets.rules.slots]
warning = { above_used = 90, for = "5s" }
critical = { for = "0s" }
[targets.rules.logins_refused]
enabled = true
[targets.rules.slots_full]
enabled = false
[targets.rules.role_limit]
critical = { above = 0.99 }
[targets.rules.role_limit.subjects.batch]
enabled = true
"#,
    )
    .settings();
    let [a, b] = settings.targets.as_slice() else { panic!("two: {settings:?}") };

    let slots = a.rules.slots.unwrap();
    assert_eq!(slots.warning, Some(level(0.8, 60, 0.7)));
    assert_eq!(slots.critical, Some(level(0.95, 10, 0.8)));
    assert_eq!(a.rules.logins_refused, None);
    let roles = a.rules.role_limit.clone().unwrap();
    assert_eq!(roles.levels.warning, None);
    assert_eq!(roles.levels.critical, Some(level(0.9, 10, 0.8)));
    let payment = roles.subjects["pay.ment"].unwrap();
    let used = |above, clear_below| Threshold::Used { above, clear_below };
    assert_eq!(payment.warning.unwrap().threshold, used(15, 14));
    assert_eq!(payment.warning.unwrap().hold, Duration::from_mins(1));
    assert_eq!(payment.critical, Some(level(0.9, 10, 0.8)));
    assert_eq!(roles.subjects["batch"], None);

    let slots = b.rules.slots.unwrap();
    assert_eq!(slots.warning.unwrap().threshold, used(90, 81));
    assert_eq!(slots.warning.unwrap().hold, Duration::from_secs(5));
    assert_eq!(slots.critical, Some(level(0.95, 0, 0.8)));
    assert!(b.rules.logins_refused.is_some());
    assert_eq!(b.rules.slots_full, None);
    let roles = b.rules.role_limit.clone().unwrap();
    assert_eq!(roles.levels.critical, Some(level(0.99, 10, 0.8)));
    assert_eq!(roles.subjects["batch"].unwrap().critical, Some(level(0.99, 10, 0.8)));
}

#[test]
fn later_layers_win() {
    let case = Case::new(
        r#"
instance = "one"
[poll]
interval = "2s"
timeout = "3s"
[rules.slots]
warning = { above_used = 40 }
[[targets]]
postgres = "host=first"
[[targets]]
postgres = "host=second"
"#,
    )
    .file(
        "second.toml",
        r#"
[poll]
interval = "4s"
[rules.slots]
warning = { above = 0.85 }
[[targets]]
postgres = "host=third"
"#,
    )
    .env("DATABASE_URL", "postgresql://lowest")
    .env("PLIMSOLL_INSTANCE", "1.10")
    .env("PLIMSOLL_POLL__BUDGET", "0.02")
    .env("PLIMSOLL_RULES__SLOTS_FULL__ENABLED", "false")
    .env("PLIMSOLL_SERVER__LISTEN", "127.0.0.1:1")
    // What Kubernetes sets for a service of that name.
    .env("PLIMSOLL_PORT", "tcp://10.0.0.1:7546")
    .env("PLIMSOLL_SERVICE_HOST", "10.0.0.1")
    .env("PLIMSOLL_PORT_7546_TCP_ADDR", "10.0.0.1")
    .flags(Overrides { listen: Some("127.0.0.1:2".to_owned()), ..Overrides::default() });
    let settings = case.settings();
    assert_eq!(settings.instance.as_deref(), Some("1.10"));
    assert_eq!(settings.poll.interval, Duration::from_secs(4));
    assert_eq!(settings.poll.timeout, Duration::from_secs(3));
    assert!((settings.poll.budget - 0.02).abs() < f64::EPSILON);
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:2");
    assert_eq!(settings.targets.len(), 1);
    assert_eq!(settings.targets[0].name, "third");
    assert_eq!(settings.targets[0].rules.slots_full, None);
    let slots = settings.targets[0].rules.slots.unwrap();
    assert_eq!(slots.warning, Some(level(0.85, 60, 0.7)));
}

#[test]
fn a_list_can_come_from_a_variable() {
    let receivers = "[{ name = \"a\", type = \"webhook\", url = \"http://a/\" }]";
    let settings = bare().env("PLIMSOLL_RECEIVERS", receivers).settings();
    assert_eq!(settings.receivers[0].name, "a");
}

#[test]
fn database_url_is_the_last_resort() {
    let case = Case::new("").env("DATABASE_URL", "postgresql://app");
    assert_eq!(case.settings().targets[0].name, "app");
    let flag = Overrides { postgres: vec![Secret::new("host=flag")], ..Overrides::default() };
    assert_eq!(case.flags(flag).settings().targets[0].name, "flag");
}

/// A variable that says where a server is makes one target of the surroundings, below all else.
#[test]
fn libpqs_variables_make_a_target_if_they_say_where() {
    let named = |case: Case| {
        let settings = case.settings();
        let names: Vec<_> = settings.targets.iter().map(|target| target.name.clone()).collect();
        names.join(" ")
    };
    let bare = || Case::without_file().env("PGUSER", "u").env("PGPORT", "5433");
    assert_eq!(named(bare().env("PGHOST", "db.env")), "db.env");
    assert_eq!(named(bare().env("PGHOSTADDR", "10.0.0.7")), "10.0.0.7");
    let services = "[eu]\nhost=db.eu\n";
    let in_services = |case: Case| {
        let file = case.path().join("services").display().to_string();
        case.secret("services", services).env("PGSERVICEFILE", &file)
    };
    assert_eq!(named(in_services(bare()).env("PGSERVICE", "eu")), "db.eu");
    let above = bare().env("PGHOST", "db.env").env("DATABASE_URL", "postgresql://app");
    assert_eq!(named(above), "app");
    // For targets that are written they are defaults, each for itself.
    let written = Case::new(
        "[[targets]]\npostgres = \"service=eu\"\n[[targets]]\npostgres = \"user=a\"\n\
         [[targets]]\npostgres = \"\"\nname = \"c\"\n",
    );
    assert_eq!(named(in_services(written).env("PGHOST", "db.env")), "db.eu db.env c");
    // None of these says where.
    let said = bare().env("PGHOST", "").env("PGPASSWORD", "hunter2").mistakes();
    assert!(said.contains("no target is set"), "{said}");
}

#[test]
fn services_are_looked_up_where_libpq_looks() {
    let case = || Case::new("[[targets]]\npostgres = \"service=eu\"\n");
    let found = |case: Case| case.settings().targets[0].name.clone();
    let home = case();
    let folder = home.path().display().to_string();
    let home = home.env("HOME", &folder).secret(".pg_service.conf", "[eu]\nhost=of-home\n");
    assert_eq!(found(home), "of-home");
    let system = case();
    let folder = system.path().display().to_string();
    let system = system.env("PGSYSCONFDIR", &folder);
    assert_eq!(found(system.secret("pg_service.conf", "[eu]\nhost=of-system\n")), "of-system");
    // The user's file comes first, and where it does not have the service, the system's.
    let both = case();
    let folder = both.path().display().to_string();
    let file = both.path().join("mine").display().to_string();
    let both = both.env("PGSYSCONFDIR", &folder).env("PGSERVICEFILE", &file);
    let both = both.secret("pg_service.conf", "[eu]\nhost=of-system\n");
    let both = both.secret("mine", "[us]\nhost=of-mine\n");
    assert_eq!(found(both), "of-system");
    // No home is no error, unless something is asked for there.
    let mut homeless = Case::new("[[targets]]\npostgres = \"host=db\"\n");
    homeless.request.env.clear();
    homeless.request.flags.state_dir = Some("state".to_owned());
    assert_eq!(found(homeless), "db");
}

#[test]
fn a_command_is_a_program_and_its_arguments() {
    let case = Case::new(
        "[[targets]]\npostgres = \"host=a\"\npassword_command = [\"aws\", \"rds\", \"\"]\n\
         [[targets]]\npostgres = \"host=b\"\npassword_command = [\"bin/token\"]\n",
    );
    let settings = case.settings();
    let words = |target: usize| match &settings.targets[target].password {
        Some(PasswordFrom::Command(words)) => {
            words.iter().map(|word| word.expose().to_owned()).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(words(0), ["aws", "rds", ""]);
    // As every file: relative to the one that names it.
    assert_eq!(words(1), [case.path().join("bin/token").display().to_string()]);
}

#[test]
fn the_default_file_is_read_when_none_is_given() {
    let mut case = bare().secret("default.toml", "instance = \"default\"\n");
    case.request.default_file = Some(case.path().join("absent.toml"));
    assert_eq!(case.settings().instance, None);
    case.request.default_file = Some(case.path().join("default.toml"));
    assert_eq!(case.settings().instance.as_deref(), Some("default"));
    let case = case.file("given.toml", "[poll]\n");
    assert_eq!(case.settings().instance, None);
}

#[test]
fn the_state_folder() {
    let folder = |case: Case| case.settings().state_dir;
    let service = bare().env("STATE_DIRECTORY", "/var/lib/plimsoll:/var/lib/other");
    assert_eq!(folder(service), Path::new("/var/lib/plimsoll"));
    let xdg = bare().env("XDG_STATE_HOME", "/xdg");
    assert_eq!(folder(xdg), Path::new("/xdg/plimsoll"));
    let relative = bare().env("XDG_STATE_HOME", "xdg");
    assert_eq!(folder(relative), Path::new("/home/op/.local/state/plimsoll"));
    let flag = Overrides {
        postgres: vec![Secret::new(ADDRESS)],
        state_dir: Some("here".to_owned()),
        ..Overrides::default()
    };
    let flagged = bare().env("STATE_DIRECTORY", "/var/lib/plimsoll").flags(flag);
    assert_eq!(folder(flagged), PathBuf::from("here"));
    let filed = Case::new("state_dir = \"state\"\ntargets = [{ postgres = \"host=a\" }]");
    assert_eq!(filed.settings().state_dir, filed.path().join("state"));
}

#[test]
fn a_thousand_targets_with_rules_of_their_own() {
    let mut text = String::new();
    for number in 0..1000 {
        writeln!(text, "[[targets]]\nname = \"db-{number}\"\npostgres = \"host=db-{number}\"")
            .unwrap();
        writeln!(text, "[targets.rules.slots]\nwarning = {{ above_used = {} }}", number + 1)
            .unwrap();
    }
    let case = Case::new(&text);
    let settings = case.settings();
    assert_eq!(settings.targets.len(), 1000);
    let last = settings.targets[999].rules.slots.unwrap().warning.unwrap();
    assert_eq!(last.threshold, Threshold::Used { above: 1000, clear_below: 900 });
    text.push_str("[[targets]]\npostgres = \"host=one-more\"\n");
    let said = Case::new(&text).mistakes();
    assert!(said.contains("expected at most 1000 targets, found 1001"), "{said}");
}

/// The examples that are shipped can be used as they are.
#[test]
fn the_examples_are_in_order() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut examples = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.file_name().is_some_and(|name| name == "default.toml") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let case = Case::new(&text.replace("/run/secrets/", ""))
            .secret("plimsoll-password", "geheim")
            .secret("pagerduty", "0123456789abcdef0123456789abcdef")
            .secret("signing", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(case.mistakes(), "no mistake", "{}", file.display());
        examples += 1;
    }
    assert!(examples >= 2, "no examples found");
}

proptest! {
    /// What is taken as a webhook's URL can be sent to.
    #[test]
    fn every_accepted_url_is_one_for_the_http_client(
        host in "[a-z0-9.:\\[\\]@_-]{0,12}",
        rest in "([/?#%&=a-z0-9 ~|\\\\^\"]{0,12}|/[ -~]{0,8})",
    ) {
        let url = format!("http://{host}{rest}");
        let quoted = toml::Value::String(url.clone());
        let receivers = format!("[{{ name = \"a\", type = \"webhook\", url = {quoted} }}]");
        if bare().env("PLIMSOLL_RECEIVERS", &receivers).load().is_ok() {
            let parsed: hyper::Uri = url.parse().expect(&url);
            prop_assert!(parsed.host().is_some_and(|host| !host.is_empty()), "{}", url);
        }
    }
}
