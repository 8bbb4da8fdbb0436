//! What `check` says of a target's other sources: a real log, a real login, a real PgBouncer, and
//! the metrics that an application once showed; well, and each with something wrong.

use plimsoll::drill::bouncer::{self, Bouncer};
use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::drill::server::{Options, Server, Session};
use serde_json::Value;

use super::{Ended, execute, run, url};

const HIKARI: &str =
    include_str!("../../../core/tests/fixtures/exposition/hikaricp_micrometer.prom");

/// Everything that a target can have.
struct World {
    server: Server,
    bouncer: Bouncer,
    application: Receiver,
}

impl World {
    async fn start() -> Self {
        let settings = [
            ("logging_collector", "on"),
            ("log_destination", "csvlog"),
            ("log_directory", "log"),
            ("log_filename", "postgresql.log"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let options = Options { max_connections: 20, settings, ..Options::default() };
        let roles = "CREATE ROLE app LOGIN; \
                     CREATE ROLE plimsoll LOGIN IN ROLE pg_monitor CONNECTION LIMIT 5";
        let server = crate::major::start(options, roles).await;
        let superuser = server.superuser().await.unwrap();
        execute(&superuser, "ALTER SYSTEM SET log_lock_waits = on").await;
        execute(&superuser, "SELECT pg_reload_conf()").await;
        super::until_true(&superuser, "SELECT current_setting('log_lock_waits') = 'on'").await;
        superuser.close().await;
        let shop = format!("shop = host=127.0.0.1 port={} dbname=postgres", server.port());
        let sizes = [("default_pool_size", "7"), ("reserve_pool_size", "0")];
        let sizes = sizes.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let options = bouncer::Options {
            release: None,
            databases: vec![shop],
            settings: sizes,
            ..bouncer::Options::default()
        };
        let bouncer = Bouncer::start(options).await.unwrap();
        let application = Receiver::start(Behaviour::with_body(200, HIKARI)).await.unwrap();
        Self { server, bouncer, application }
    }

    fn log(&self) -> String {
        self.server.data_dir().join("log/postgresql.csv").display().to_string()
    }

    /// What is watched, as settings say it; each part can be replaced.
    fn parts(&self) -> Parts {
        Parts {
            postgres: url(&self.server),
            log: format!("path = \"{}\"", self.log()),
            probe: format!("url = \"{}\"", self.server.url("app", "postgres")),
            pooler: format!("url = \"{}\"", self.bouncer.url("stats", "pgbouncer")),
            application: format!("scrape = [\"{}/metrics\"]", self.application.url()),
        }
    }
}

struct Parts {
    postgres: String,
    log: String,
    probe: String,
    pooler: String,
    application: String,
}

impl Parts {
    fn settings(&self) -> String {
        format!(
            "instance = \"test\"\n[[targets]]\nname = \"db\"\npostgres = \"{}\"\n\
             [targets.log]\n{}\n[[targets.probes]]\nname = \"direct\"\n{}\n\
             [[targets.poolers]]\nname = \"pgbouncer\"\n{}\n\
             [[targets.app_pools]]\napplication = \"payment-api\"\n{}\n",
            self.postgres, self.log, self.probe, self.pooler, self.application
        )
    }

    async fn check(&self) -> Checked {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plimsoll.toml");
        std::fs::write(&file, self.settings()).unwrap();
        let (file, state) = (file.to_str().unwrap(), folder.path().to_str().unwrap());
        let arguments = ["check", "--format", "json", "--config", file, "--state-dir", state];
        let ended: Ended = run(&arguments, &[]).await;
        let json: Value = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("{error}: {} {}", ended.stdout, ended.stderr));
        Checked { code: ended.code, json }
    }
}

struct Checked {
    code: i32,
    json: Value,
}

impl Checked {
    /// The findings of a check, as `grade: text`, and the hint behind it.
    fn said(&self, check: &str) -> Vec<String> {
        let findings = self.json["targets"][0]["findings"].as_array().unwrap();
        let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or("").to_owned();
        let of_it = findings.iter().filter(|finding| finding["check"] == check);
        of_it
            .map(|one| {
                let [grade, text, hint] = ["grade", "text", "hint"].map(|key| word(one, key));
                format!("{grade}: {text}; {hint}")
            })
            .collect()
    }

    /// The one finding of a check.
    #[track_caller]
    fn one(&self, check: &str) -> String {
        let said = self.said(check);
        assert_eq!(said.len(), 1, "{check}: {}", self.json);
        said.concat()
    }

    /// What does not work.
    fn wrong(&self) -> Vec<&str> {
        let findings = self.json["targets"][0]["findings"].as_array().unwrap();
        let wrong = findings.iter().filter(|finding| finding["grade"] == "wrong");
        wrong.map(|finding| finding["check"].as_str().unwrap()).collect()
    }
}

const SOURCES: [&str; 4] = ["log", "probe", "pooler", "app_pool"];

#[tokio::test]
async fn sources_that_are_well() {
    let world = World::start().await;
    let client: tokio_postgres::Config = world.bouncer.url("app", "shop").parse().unwrap();
    let client = Session::open(&client).await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    let seen = world.parts().check().await;
    assert_eq!((seen.code, seen.wrong()), (0, vec![]), "{}", seen.json);
    assert_eq!(seen.one("log"), format!("ok: {} is followed, as csvlog; ", world.log()));
    let probe = seen.one("probe");
    assert!(probe.starts_with("ok: direct: it gets in; connect "), "{probe}");
    assert!(probe.contains(" ms, authentication ") && probe.contains(", first answer "), "{probe}");
    let pooler = seen.one("pooler");
    let release = world.bouncer.release();
    assert!(pooler.starts_with(&format!("ok: pgbouncer: PgBouncer {release}.")), "{pooler}");
    let together = ", pools: 1, which may open 7 connections together; 2 of 100 client slots are";
    assert!(pooler.contains(together), "{pooler}");
    let pools = "1 of 1 instances show HikariPool-1 (hikaricp_micrometer, at most 10)";
    assert_eq!(seen.one("app_pool"), format!("ok: payment-api: {pools}; "));
    // Both together, against what is usable.
    let sum = "payment-api 1 × 10 + pgbouncer 7 = 17 ≤ 17 usable slots";
    assert_eq!(seen.one("overcommit"), format!("ok: {sum}; "));
    drop(client);
}

#[tokio::test]
async fn each_source_that_is_not_well_is_told_and_hides_no_other() {
    let mut world = World::start().await;
    let all_but = |one: &str| SOURCES.into_iter().filter(|it| *it != one).collect::<Vec<_>>();

    // A log that is not there, one that the server does not write, one of which much is missing.
    let gone = Parts { log: "path = \"/nowhere/postgresql.csv\"".to_owned(), ..world.parts() };
    let seen = gone.check().await;
    assert_eq!((seen.code, seen.wrong()), (4, vec!["log"]), "{}", seen.json);
    assert!(seen.one("log").contains("/nowhere"), "{}", seen.one("log"));
    for other in all_but("log") {
        assert!(seen.one(other).starts_with("ok: "), "{}", seen.json);
    }
    let superuser = world.server.superuser().await.unwrap();
    for setting in ["log_lock_waits = off", "log_min_messages = 'log'"] {
        execute(&superuser, &format!("ALTER SYSTEM SET {setting}")).await;
    }
    execute(&superuser, "SELECT pg_reload_conf()").await;
    super::until_true(&superuser, "SELECT current_setting('log_min_messages') = 'log'").await;
    let seen = world.parts().check().await;
    let warnings = seen.said("log").split_off(1);
    assert!(warnings[0].starts_with("warning: log_min_messages is log: errors"), "{warnings:?}");
    assert!(warnings[1].starts_with("warning: log_lock_waits is off"), "{warnings:?}");
    assert_eq!(seen.code, 0);
    let findings = seen.json["targets"][0]["findings"].as_array().unwrap();
    for statement in findings.iter().flat_map(|one| one["statements"].as_array().unwrap()) {
        let statement = statement.as_str().unwrap();
        if statement.contains("log_") {
            execute(&superuser, statement).await;
        }
    }
    execute(&superuser, "SELECT pg_reload_conf()").await;
    super::until_true(&superuser, "SELECT current_setting('log_lock_waits') = 'on'").await;
    assert_eq!(world.parts().check().await.said("log").len(), 1);

    // A login that the role's limit refuses.
    execute(&superuser, "ALTER ROLE app CONNECTION LIMIT 0").await;
    let seen = world.parts().check().await;
    assert_eq!((seen.code, seen.wrong()), (4, vec!["probe"]), "{}", seen.json);
    assert!(seen.one("probe").contains("the role's CONNECTION LIMIT"), "{}", seen.one("probe"));
    execute(&superuser, "ALTER ROLE app CONNECTION LIMIT -1").await;

    // A user who may not look, and a pooler that is gone.
    let stranger = format!("url = \"{}\"", world.bouncer.url("app", "pgbouncer"));
    let seen = Parts { pooler: stranger, ..world.parts() }.check().await;
    assert_eq!((seen.code, seen.wrong()), (4, vec!["pooler"]), "{}", seen.json);
    assert!(seen.one("pooler").contains("stats_users"), "{}", seen.one("pooler"));
    world.bouncer.stop().await.unwrap();
    let seen = world.parts().check().await;
    assert_eq!((seen.code, seen.wrong()), (4, vec!["pooler"]), "{}", seen.json);

    // An application without pools; then one of two instances.
    world.application.behave(Behaviour::with_body(200, "<html>Welcome</html>"));
    let seen = world.parts().check().await;
    assert_eq!(seen.wrong(), ["pooler", "app_pool"], "{}", seen.json);
    assert!(seen.one("app_pool").contains("HTML"), "{}", seen.one("app_pool"));
    world.application.behave(Behaviour::with_body(200, HIKARI));
    let scrape = format!(
        "scrape = [\"{}/metrics\", \"http://127.0.0.1:1/metrics\"]",
        world.application.url()
    );
    let seen = Parts { application: scrape, ..world.parts() }.check().await;
    let said = seen.said("app_pool");
    assert!(said[0].starts_with("ok: payment-api: 1 of 2 instances show HikariPool-1"), "{said:?}");
    assert!(said[1].starts_with("warning: payment-api: 1 of 2 instances do not: "), "{said:?}");
    assert!(said[1].contains("127.0.0.1:1"), "{said:?}");
    // What is known of it is more than there is: seventeen slots, and ten for each instance.
    let list = format!("scrape = [\"{0}/a\", \"{0}/b\"]", world.application.url());
    let seen = Parts { application: list, ..world.parts() }.check().await;
    let said = seen.one("overcommit");
    assert!(said.contains("payment-api 2 × 10 = 20 > 17 usable slots"), "{said}");
    assert!(said.starts_with("warning: "), "{said}");
}
