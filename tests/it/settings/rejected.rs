//! What cannot be used, and how that is said: the whole text that a person sees, in one snapshot
//! a subject, each mistake under what was written.

use std::fmt::Write;

use insta::assert_snapshot;
use plimsoll::load::Overrides;
use plimsoll_core::settings::Secret;

use super::Case;

/// Each text and what is said of it, when nothing else is wrong.
fn said(texts: &[&str]) -> String {
    let mut said = String::new();
    for text in texts {
        for line in text.trim_end().lines() {
            writeln!(said, "> {line}").unwrap();
        }
        writeln!(said, "{}\n", Case::new(text).mistakes()).unwrap();
    }
    said
}

#[test]
fn poolers() {
    let check = |pooler: &str, expected: &str| {
        let text = format!("[[targets]]\npostgres = \"host=db\"\n{pooler}");
        let mistakes = Case::new(&text).env("PGUSER", "watcher").mistakes();
        assert!(mistakes.contains(expected), "{expected}: {mistakes}");
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    };
    let pooler = "[[targets.poolers]]\nname = \"a\"\nurl = \"postgresql://stats:hunter2@b\"\n";
    check("[[targets.poolers]]", "targets[0].poolers[0].name: missing");
    check("[[targets.poolers]]", "targets[0].poolers[0].url: missing");
    check("[targets.poolers]\nname = \"a\"", "expected a list");
    check(&pooler.repeat(2), "two poolers of this target are called \"a\"");
    check(&pooler.replace("stats:hunter2@", ""), "targets[0].poolers[0].url: names no user");
    check(&pooler.replace("stats:", "stats:hunter2?"), "targets[0].poolers[0].url");
    check(&format!("{pooler}interval = \"1h\""), "expected between 10ms and 30s, found 1h");
    check(&format!("{pooler}timeout = \"1ms\""), "expected between 10ms and 5m, found 1ms");
    check(&format!("{pooler}password_file = \"missing\""), "targets[0].poolers[0].password_file");
    check(&format!("{pooler}password_command = []"), "names no program");
    check(&format!("{pooler}pool = 1"), "targets[0].poolers[0].pool: unknown key");
    check(&pooler.repeat(65), "expected at most 64 poolers, found 65");
}

/// The same with a target in front, so that one is there.
fn said_beside_a_target(texts: &[&str]) -> String {
    let target = "targets = [{ name = \"db\", postgres = \"postgresql://db\" }]\n";
    let texts: Vec<String> = texts.iter().map(|text| format!("{target}{text}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    said(&texts).replace(&format!("> {target}"), "")
}

#[test]
fn unknown_keys() {
    assert_snapshot!(said_beside_a_target(&[
        "[poll]\nintervall = \"1s\"",
        "[rule.slots]\nfor = \"1s\"",
        "budget = 0.01",
        "[poll]\ncolour = 1",
        "[rules.slots]\nwarning = { abov = 0.9 }",
        "[rules]\n\"postgresql://u:hunter2@db\" = 1",
    ]));
    assert_snapshot!(said(&["[[target]]\npostgres = \"postgresql://db\""]));
}

#[test]
fn wrong_types() {
    assert_snapshot!(said_beside_a_target(&[
        "[rules.slots.warning]\nabove = true",
        "[server]\nlisten = 7546\nexternal_url = 1979-05-27",
        "poll = [\"1s\"]",
        "[[server]]\nlisten = \"0.0.0.0:1\"",
        "[receivers]\nname = \"a\"",
        "[[receivers]]\nname = \"a\"\ntype = \"webhook\"\nurl = 12345",
    ]));
    assert_snapshot!(said(&[
        "targets = 3",
        "targets = [3]",
        "targets = [{ postgres = \"host=db\", labels = { port = 5432 } }]",
        "targets = [{ postgres = [\"host=db password=hunter2\"] }]",
    ]));
}

#[test]
fn durations() {
    assert_snapshot!(said_beside_a_target(&[
        "[rules.slots.warning]\nfor = \"60\"",
        "[rules.slots.warning]\nfor = 60",
        "[rules.slots.warning]\nfor = \"-5s\"",
        "[rules.slots.warning]\nfor = \"9000 years\"",
        "[poll]\ninterval = \"0s\"\ntimeout = \"1h\"",
        "[receiver_defaults.webhook]\nrepeat_interval = \"0s\"\ntimeout = \"0s\"",
    ]));
}

#[test]
fn thresholds() {
    assert_snapshot!(said_beside_a_target(&[
        "[rules.slots.warning]\nabove = 80",
        "[rules.slots.warning]\nabove = \"80%\"",
        "[rules.slots.warning]\nabove = 1.01",
        "[rules.slots.warning]\nabove = -0.1",
        "[rules.slots.warning]\nabove = nan",
        "[poll]\nbudget = 0",
        "[rules.slots]\nwarning = { above = 0.6, clear_below = 0.65 }",
        "[rules.slots]\nwarning = { clear_below = 0.85 }",
        "[rules.slots]\nwarning = { above = 0.6 }",
        "[rules.slots]\nwarning = { above_used = 90, above = 0.8 }",
        "[rules.slots]\nwarning = { above_used = 90, clear_below_used = 91 }",
        "[rules.slots]\nwarning = { clear_below_used = 9 }",
        "[rules.slots]\nwarning = { above_used = 0.9 }",
    ]));
}

#[test]
fn a_line_that_only_one_target_or_one_role_has_wrong() {
    assert_snapshot!(said(&["[rules.slots.warning]
above = 0.9
[[targets]]
postgres = \"postgresql://a\"
[[targets]]
postgres = \"postgresql://b\"
rules = { slots = { warning = { clear_below = 0.95 } } }
[rules.role_limit.subjects.\"pay.ment\"]
critical = { above = 0.5 }
"]));
}

#[test]
fn targets() {
    let long = format!("[[targets]]\nname = \"{}\"\npostgres = \"host=db\"", "n".repeat(129));
    assert_snapshot!(said(&[
        "",
        "[[targets]]\nname = \"db\"",
        "[[targets]]\nname = \"db\"\npostgres = \"host=a\"\n\
         [[targets]]\nname = \"db\"\npostgres = \"host=b\"",
        "[[targets]]\npostgres = \"host=db port=1\"\n[[targets]]\npostgres = \"host=db port=2\"",
        "[[targets]]\npostgres = \"postgresql://db:port/\"",
        "[[targets]]\npostgres = \"postgresql://db?sslmode=on\"",
        "[[targets]]\npostgres = \"mysql://db\"",
        "[[targets]]\nname = \"a\\u0007b\"\npostgres = \"host=db\"",
        "[[targets]]\nname = \"eu/db\"\npostgres = \"host=db\"",
        "[[targets]]\nname = \" db\"\npostgres = \"host=db\"",
        &long,
        "[[targets]]\npostgres = \"host=db\"\nlabels = { \"a/b\" = \"x\" }",
        "[[targets]]\npostgres = \"host=db\"\nfallback = \"replicaton\"",
        "[[targets]]\npostgres = \"host=db\"\nfallback = true",
    ]));
}

#[test]
fn probes() {
    let target = "[[targets]]\npostgres = \"host=db\"\n";
    let probe = "[[targets.probes]]\nname = \"a\"\nurl = \"postgresql://app:hunter2@db\"\n";
    let texts = [
        "[[targets.probes]]".to_owned(),
        "[targets.probes]\nname = \"a\"".to_owned(),
        "[[targets.probes]]\nname = \"a/b\"\nurl = \"host=db user=app\"".to_owned(),
        format!("{probe}{probe}"),
        format!("{probe}user = \"app\""),
        "[[targets.probes]]\nname = \"a\"\nurl = \"postgresql://db\"".to_owned(),
        "[[targets.probes]]\nname = \"a\"\nurl = \"mysql://app:hunter2@db\"".to_owned(),
        "[[targets.probes]]\nname = \"a\"\nurl = \"\"".to_owned(),
        format!("{probe}interval = \"500ms\"\ntimeout = \"0s\"\nkeep_free = 0.9"),
        format!("{probe}interval = \"1h\"\ntimeout = \"6m\"\nkeep_free = 2"),
        format!("{probe}password_file = \"none\"\npassword_command = [\"hunter2\"]"),
        "[[targets.probes]]\n".repeat(9),
    ];
    let texts = texts.map(|text| format!("{target}{text}"));
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_snapshot!(said(&texts));
}

#[test]
fn password_commands() {
    let target = "[[targets]]\npostgres = \"host=db\"\n";
    let texts = [
        "password_command = \"aws rds generate-db-auth-token\"",
        "password_command = []",
        "password_command = [\"\"]",
        "password_command = [1]",
        "password_command = [\"a\\u0000b\"]",
    ];
    let texts = texts.map(|text| format!("{target}{text}"));
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let both = Case::new(&format!(
        "{target}password_command = [\"token\"]\npassword_file = \"password\"\n"
    ));
    let both = both.secret("password", "hunter2").mistakes();
    assert_snapshot!(format!("{}{both}\n", said(&texts)));
}

#[test]
fn app_pools() {
    let target = "[[targets]]\nname = \"db\"\npostgres = \"host=db\"\n";
    let pool = "[[targets.app_pools]]\napplication = \"api\"\n";
    let url = "scrape = [\"http://h/metrics\"]\n";
    let check = |keys: &str| {
        let said = Case::new(&format!("{target}{keys}")).mistakes();
        format!("> {}\n{said}\n\n", keys.trim_end().replace('\n', "\n> "))
    };
    let scraped = |keys: &str| check(&format!("{pool}{url}{keys}"));
    assert_snapshot!(
        [
            check("[[targets.app_pools]]\nscrape = [\"http://h/metrics\"]"),
            check(pool),
            check(&format!("{pool}{url}{pool}{url}")),
            check(&format!(
                "{pool}scrape = [\"http://u:hunter2@h/\", \"h:80\", \"http://h/\", \"http://h/\"]"
            )),
            check(&format!("{pool}scrape = \"http://h/metrics?token=hunter2\"")),
            check(&format!(
                "{pool}file_sd = \"list.json\"\ndns = true\nmetrics_path = \"metrics\""
            )),
            scraped("metrics_path = \"/m\""),
            scraped("interval = \"1s\"\ntimeout = \"2s\""),
            scraped("interval = \"0s\""),
            scraped("username = \"u\""),
            scraped("username = \"u:v\""),
            scraped("bearer_token_file = \"token\""),
            scraped("preset = \"hikaricp\""),
            scraped("preset = \"go_sqll\""),
            scraped("preset = \"spring\"\n[targets.app_pools.mapping]\nin_use = \"x\""),
            scraped("[targets.app_pools.mapping]\nidle = \"x\"\nwait_unit = \"m\""),
            scraped("[targets.app_pools.mapping]\nin_use = \"sum(x)\"\nwait_unit = \"ms\""),
            check("[app_pool_defaults]\ninterval = \"1s\"\ntimeout = \"2s\""),
        ]
        .concat()
    );
    let both = format!("{target}{pool}{url}bearer_token_file = \"a\"\npassword_file = \"a\"\n");
    let both = Case::new(&both).secret("a", "hunter2").mistakes();
    assert!(both.contains("there is one way to say who asks"), "{both}");
    let alone = Case::new(&format!("{target}{pool}{url}password_file = \"a\"\n"));
    let alone = alone.secret("a", "hunter2").mistakes();
    assert!(alone.contains("username: missing, and there is a `password_file`"), "{alone}");
}

#[test]
fn what_surrounds_a_connection_string() {
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let mut said = String::new();
    let cases: [(&str, Variables<'_>, &str); 9] = [
        ("", &[("PGUSER", "u")], ""),
        ("service=eu", &[], "[us]\nhost=db"),
        ("service=eu", &[], "[eu]\nhost=db\nnonsense"),
        ("service=eu", &[], "[eu]\nhost=db\nservice=us"),
        ("service=eu", &[], "[eu]\nhost=db\nsslmode=nonsense"),
        ("host=db", &[("PGSSLMODE", "nonsense")], ""),
        ("host=db", &[("PGSSLCRL", "crl.pem")], ""),
        ("host=a,b port=1,2,3", &[], ""),
        ("host=db sslmode=require sslrootcert=system", &[], ""),
    ];
    for (text, variables, services) in cases {
        let case = Case::new(&format!("[[targets]]\npostgres = \"{text}\"\n"));
        let file = case.path().join("services").display().to_string();
        let folder = case.path().display().to_string();
        let case = case.secret("services", services).env("PGSERVICEFILE", &file);
        let case = case.env("PGSYSCONFDIR", &folder);
        let case = variables.iter().fold(case, |case, (name, value)| case.env(name, value));
        writeln!(said, "> {text} {variables:?} {services:?}\n{}\n", case.mistakes()).unwrap();
    }
    let case = Case::without_file().env("PGHOST", "db").env("PGPORT", "nonsense");
    writeln!(said, "{}", case.mistakes()).unwrap();
    assert_snapshot!(said);
}

#[test]
fn server() {
    assert_snapshot!(said_beside_a_target(&[
        "[server]\nlisten = \":7546\"",
        "[server]\nlisten = \"localhost:7546\"",
        "[server]\nlisten = \"db.example.com:7546\"",
        "[server]\nlisten = \"127.0.0.1\"",
        "[server]\nexternal_url = \"plimsoll.example.com\"",
    ]));
}

#[test]
fn receivers() {
    let webhook = |rest: &str| format!("[[receivers]]\nname = \"a\"\ntype = \"webhook\"\n{rest}");
    assert_snapshot!(said_beside_a_target(&[
        "[[receivers]]",
        "[[receivers]]\nname = \"a\"\ntype = \"webhok\"",
        "[[receivers]]\nname = \"a\"\ntype = \"slack\"",
        &webhook(""),
        &webhook("url = \"hooks.example.com/x\""),
        &webhook("url = \"http://a\"\nrouting_key = \"x\""),
        &webhook("url = \"http://a\"\nurl_file = \"f\""),
        &webhook("url = \"http://a\"\nsigning_secret = \"abc\""),
        &webhook("url = \"http://a\"\nmin_severity = \"info\"\nsend_resolved = \"no\""),
        &webhook("url = \"http://a\"\nrules = [\"slot\"]\ntargets = [\"bd\"]"),
        &format!("{}\n{}", webhook("url = \"http://a\""), webhook("url = \"http://b\"")),
    ]));
}

#[test]
fn pagerduty() {
    let receiver = |name: &str, rest: &str| {
        format!("[[receivers]]\nname = \"{name}\"\ntype = \"pagerduty\"\n{rest}\n")
    };
    let key = "routing_key = \"0123456789abcdef0123456789abcdef\"";
    assert_snapshot!(said_beside_a_target(&[
        &receiver("a", "routing_key = \"0123\""),
        &receiver("a", "region = \"asia\""),
        &format!("{}{}", receiver("a", key), receiver("b", key)),
        &receiver("a", &format!("{key}\nregion = \"eu\"\nbase_url = \"https://proxy\"")),
    ]));
}

/// Sidecars are all called localhost: at PagerDuty one would close what another opened.
#[test]
fn pagerduty_and_a_target_without_a_name_of_its_own() {
    let key = "routing_key = \"0123456789abcdef0123456789abcdef\"";
    let receiver = format!("[[receivers]]\nname = \"a\"\ntype = \"pagerduty\"\n{key}\n");
    let unnamed = format!("targets = [{{ postgres = \"host=localhost\" }}]\n{receiver}");
    assert_snapshot!(Case::new(&unnamed).mistakes());
    let postgres = vec![Secret::new("postgresql://localhost")];
    let flags = Overrides { postgres, ..Overrides::default() };
    assert_snapshot!(Case::new(&receiver).flags(flags).mistakes());
    // With an instance, or for a receiver that does not hear of it, nothing is ambiguous.
    let with_instance = format!("instance = \"eu\"\n{unnamed}");
    assert_eq!(Case::new(&with_instance).mistakes(), "no mistake");
    let other = format!("{receiver}targets = [\"db\"]\n[[targets]]\npostgres = \"host=localhost\"");
    let other = format!("{other}\n[[targets]]\nname = \"db\"\npostgres = \"host=a\"");
    assert_eq!(Case::new(&other).mistakes(), "no mistake");
}

#[test]
fn secret_files() {
    let text = "
[[targets]]
name = \"db\"
postgres = \"postgresql://db\"
password_file = \"password\"
[[receivers]]
name = \"a\"
type = \"webhook\"
url_file = \"url\"
signing_secret_files = [\"new\", \"old\"]
[[receivers]]
name = \"b\"
type = \"pagerduty\"
routing_key_file = \"key\"
[[receivers]]
name = \"c\"
type = \"webhook\"
url_file = \"long\"
";
    assert_snapshot!(Case::new(text).mistakes());
    let case = Case::new(text)
        .secret("password", "\n")
        .secret("url", "http://a\nhttp://b\n")
        .secret("new", b"\xff\xfe")
        .secret("old", "whsec_short\n")
        .secret("key", "0123456789abcdef0123456789abcde\n")
        .secret("long", "x".repeat(70_000));
    assert_snapshot!(case.mistakes());
}

#[test]
fn syntax() {
    assert_snapshot!(said_beside_a_target(&[
        "interval = 1s\n[poll\ninterval = \"2s\"",
        "[poll]\ninterval = \"1s",
        "[poll]\nbudget = 0,1",
        "[poll]\nbudget = 0.1\nbudget = 0.2",
        "poll = { budget = 0.1, interval }",
        "[[receivers]]\nname = \"a\"\ntype = \"pagerduty\"\nrouting_key = hunter2",
    ]));
}

/// A list of a hundred is long enough; the other layers are still heard.
#[test]
fn a_file_that_is_no_configuration() {
    let mut keys = String::new();
    let mut lines = String::new();
    for number in 0..300 {
        writeln!(keys, "key-{number} = {number}").unwrap();
        writeln!(lines, "{number} bottles").unwrap();
    }
    for text in [keys, lines] {
        let case = Case::new(&text).env("PLIMSOLL_POLL__INTERVAL", "60");
        let said = case.mistakes();
        let places: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(places.len(), 102, "{said}");
        assert!(said.contains("more than 100 mistakes"), "{said}");
        assert!(said.contains("PLIMSOLL_POLL__INTERVAL: poll.interval"), "{said}");
    }
}

#[test]
fn files() {
    let mut case = Case::new("");
    case.request.files = vec![case.path().join("absent.toml"), case.path().to_owned()];
    assert_snapshot!(case.mistakes());
    let case = Case::new("").file("big.toml", &"#".repeat(1024 * 1024 + 1));
    assert_snapshot!(case.mistakes());
    let case = Case::new("");
    std::fs::write(case.path().join("plimsoll.toml"), b"instance = \"\xff\"\n").unwrap();
    assert_snapshot!(case.mistakes());
}

#[test]
fn variables_and_flags() {
    let case = Case::without_file()
        .env("DATABASE_URL", "postgresql://db")
        .env("PLIMSOLL_POLL__BUDGET", "2")
        .env("PLIMSOLL_POLL__INTERVAL", "60")
        .env("PLIMSOLL_POLL__TIMEOUTS", "1s")
        .env("PLIMSOLL_RULES__SLOTS__ENABLED", "off")
        .env("PLIMSOLL_TARGETS__0__POSTGRES", "postgresql://db")
        .flags(Overrides { listen: Some("7546".to_owned()), ..Overrides::default() });
    assert_snapshot!(case.mistakes());
    let mut case = Case::without_file().env("DATABASE_URL", "postgresql://db");
    case.request.env.remove("HOME");
    assert_snapshot!(case.mistakes());
}

/// One file with mistakes of all kinds: all of them are listed, in the order of its lines.
#[test]
fn all_at_once() {
    assert_snapshot!(said(&["instence = \"eu\"
[server]
listen = \"localhost\"
shutdown_grace = \"60\"
[poll]
interval = \"0s\"
budget = 1.5
timeout = 5 s
[rules.slots]
warning = { above = true, for = \"60\" }
critical = { above = 0.7, clear_below = 0.8 }
[[targets]]
name = \"db\"
postgres = \"postgresql://u:hunter2@db?sslmode=on\"
[[targets]]
name = \"db\"
postgres = \"postgresql://u:hunter2@db:port\"
password_file = \"absent\"
[[targets]]
name = \"twin\"
postgres = \"host=a\"
[[targets]]
name = \"twin\"
postgres = \"host=b\"
[[receivers]]
name = \"on-call\"
type = \"pagerduty\"
routing_key = \"too-short\"
[[receivers]]
name = \"first\"
type = \"pagerduty\"
routing_key = \"0123456789abcdef0123456789abcdef\"
[[receivers]]
name = \"second\"
type = \"pagerduty\"
routing_key = \"0123456789abcdef0123456789abcdef\"
[[receivers]]
name = \"archive\"
type = \"webhook\"
url = \"example.com\"
"]));
}
