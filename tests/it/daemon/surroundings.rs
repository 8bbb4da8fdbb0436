//! A daemon that is told nothing: what it needs is in the surroundings, as for any program of libpq.

use std::process::Command;

use super::*;

/// How many sessions of ours are at a server.
async fn ours(server: &Server) -> i64 {
    let superuser = server.superuser().await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'plimsoll'";
    superuser.query_one(sql, &[]).await.unwrap().get(0)
}

async fn until_watched(server: &Server) {
    let watched = async {
        while ours(server).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, watched).await.expect("a session of ours");
}

fn told_nothing(home: &Home) -> Command {
    let mut command = plimsoll();
    command.args(["run", "--listen", "127.0.0.1:0", "--state-dir"]).arg(home.state());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_that_say_where_a_server_is_make_it_the_target() {
    let server = small_server().await;
    let home = Home::new("");
    let mut command = told_nothing(&home);
    command.env("PGHOST", "127.0.0.1").env("PGPORT", server.port().to_string());
    command.env("PGUSER", "plimsoll");
    let daemon = Daemon::start(command);
    let reading = || daemon.get("/api/v1/targets/127.0.0.1").1.contains("\"usable\":17");
    until("a reading", || reading().then_some(())).await;
    assert_eq!(ours(&server).await, 1);

    // Who we would be there, and how, is no server to watch.
    let mut command = told_nothing(&home);
    command.env("PGUSER", "plimsoll").env("PGSSLMODE", "require").env("PGPORT", "1");
    let ended = command.output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("targets: no target is set"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_moves_is_followed_at_a_reload() {
    let (first, second) = (small_server().await, small_server().await);
    let home =
        Home::new("[[targets]]\nname = \"db\"\npostgres = \"service=payment user=plimsoll\"\n");
    let folder = tempfile::tempdir().unwrap();
    let services = folder.path().join(".pg_service.conf");
    let write = |server: &Server| {
        let text = format!("[payment]\nhost=127.0.0.1\nport={}\n", server.port());
        std::fs::write(&services, text).unwrap();
    };
    write(&first);
    let mut command = home.command();
    command.args(["--listen", "127.0.0.1:0"]).env("HOME", folder.path());
    let daemon = Daemon::start(command);
    daemon.until("a first reading", |t| t["severity"] == "ok").await;
    assert_eq!(ours(&first).await, 1);

    write(&second);
    daemon.signal(Signal::HUP);
    until_watched(&second).await;

    // A service that is gone is a mistake, and nothing changes.
    std::fs::write(&services, "[other]\nhost=127.0.0.1\n").unwrap();
    daemon.signal(Signal::HUP);
    until("a failed reload", || {
        daemon.metric("plimsoll_reload_successful", &[]).filter(|ok| *ok < 0.5)
    })
    .await;
    assert!(daemon.log().contains("names a service that is not defined"), "{}", daemon.log());
    assert_eq!(ours(&second).await, 1);
}
