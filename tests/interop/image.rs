//! The image: what is in it, as whom it runs, and that it watches a real server from inside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll::drill::receiver::{Behaviour, Receiver};
use plimsoll::drill::server::{Options, Server};
use serde_json::json;
use tempfile::TempDir;

use crate::container::{Container, builder, image};
use crate::launch::{DEADLINE, Daemon, until};
use crate::{next, root};

/// What may be pulled at each start of a pod, uncompressed.
const MAX_BYTES: u64 = 15_000_000;

/// The image's user: a number that no distribution gives away.
const USER: u32 = 65_532;

const PASSWORD: &str = "only of this test";

#[test]
fn holds_one_program_and_a_folder_for_its_state() {
    let container = Container::new();
    let files = container.files();
    let paths: Vec<_> = files.iter().map(|entry| entry.path.as_str()).collect();
    let expected = ["/LICENSE", "/plimsoll", "/var", "/var/lib", "/var/lib/plimsoll"];
    assert_eq!(paths, expected);
    let bytes: u64 = files.iter().map(|entry| entry.bytes).sum();
    assert!(bytes <= MAX_BYTES, "the image holds {bytes} bytes");
    let state = files.last().unwrap();
    assert_eq!((state.owner, state.mode), ((USER, USER), 0o700));
    // Nobody but root may change what runs.
    assert_eq!((files[1].owner, files[1].mode), ((0, 0), 0o755));

    let config = &image().config;
    assert_eq!(config["User"], format!("{USER}:{USER}"), "runAsNonRoot believes only numbers");
    assert_eq!(config["Entrypoint"], json!(["/plimsoll"]));
    assert_eq!(config["Cmd"], json!(["run"]));
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert_eq!(config["ExposedPorts"], json!({ "7546/tcp": {} }));
    assert_eq!(config["Volumes"], json!({ "/var/lib/plimsoll": {} }));
    let env = config["Env"].as_array().unwrap();
    assert!(env.contains(&json!("PLIMSOLL_SERVER__LISTEN=0.0.0.0:7546")), "{env:?}");
    let labels = &config["Labels"];
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(labels["org.opencontainers.image.licenses"], "Apache-2.0");

    // The program needs no loader and no library: there is none here.
    let said = builder(&["run", &container.name, "--", "/plimsoll", "--version"]);
    assert_eq!(said, format!("plimsoll {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_as_nobody_in_a_root_that_it_cannot_write_and_goes_on_where_it_was() {
    let server = server_with_tls_and_a_password().await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let outside = Outside::new(&server, &receiver);

    let first = Container::new();
    let daemon = outside.start(&first);
    let quiet = daemon.until("a first reading", |t| t["severity"] == "ok").await;
    assert_eq!(quiet["slots"]["usable"], 17);
    assert_eq!(daemon.metric("plimsoll_slots_usable", &[("target", "db")]), Some(17.0));
    assert!(daemon.metric("process_resident_memory_bytes", &[]).is_some_and(|bytes| bytes > 0.0));
    runs_as_nobody(&daemon);
    // Encrypted, and with a certificate that was checked: nothing else gets in.
    let superuser = server.superuser().await.unwrap();
    let tls = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
               WHERE application_name = 'plimsoll'";
    let encrypted: Vec<bool> =
        superuser.query(tls, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(encrypted, [true]);
    // Without a file of authorities the built-in ones are asked: they do not know this server.
    let public = until("a refusal", || {
        let target = daemon.json("/api/v1/targets/unknown-authority");
        target["sources"][0]["error"].is_string().then_some(target)
    })
    .await;
    let error = public["sources"][0]["error"].as_str().unwrap();
    assert!(error.contains("not of the authorities of Mozilla's list"), "{error}");
    superuser.close().await;

    let free = daemon.until("the superuser gone", |t| t["slots"]["free"] == 16).await;
    let free = usize::try_from(free["slots"]["free"].as_u64().unwrap()).unwrap();
    let sessions = server.fill("app", "payment-api", free).await.unwrap();
    let page = next(&receiver, "trigger").await;
    let incident = page["incident"]["id"].clone();
    daemon.until("a critical incident", |t| t["incident"]["severity"] == "critical").await;
    let (status, log) = daemon.end();
    assert_eq!(status.code(), Some(0), "{log}");
    drop(first);

    let kept = fs::metadata(outside.state().join("state.db")).unwrap();
    assert_eq!((kept.uid(), kept.gid()), (USER, USER));
    let second = Container::new();
    let daemon = outside.start(&second);
    let full = daemon.until("a reading", |t| t["slots"]["free"] == 0).await;
    assert_eq!(full["incident"]["id"], incident, "the same incident");
    drop(sessions);
    let resolve = next(&receiver, "resolve").await;
    assert_eq!(resolve["incident"]["id"], incident);
    let (status, log) = daemon.end();
    assert_eq!(status.code(), Some(0), "{log}");
    let events: Vec<_> = receiver.received().iter().map(|it| it.json()["event"].clone()).collect();
    assert_eq!(events.iter().filter(|event| **event == "trigger").count(), 1, "{events:?}");
}

/// The process that answers is the image's user, with no right of root.
fn runs_as_nobody(daemon: &Daemon) {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let field = |name: &str| -> Vec<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().collect()
    };
    let user = USER.to_string();
    assert_eq!(field("Uid:"), [&user; 4]);
    assert_eq!(field("Gid:"), [&user; 4]);
    assert_eq!(field("Groups:"), [""; 0]);
    assert_eq!(field("CapEff:"), ["0000000000000000"]);
    let program = fs::read_link(format!("/proc/{}/exe", daemon.child.id())).unwrap();
    assert!(program.ends_with("plimsoll"), "{}", program.display());
}

/// What a container is given: settings, a secret and a folder for its state.
struct Outside {
    folder: TempDir,
}

impl Outside {
    fn new(server: &Server, receiver: &Receiver) -> Self {
        let outside = Self { folder: tempfile::tempdir().unwrap() };
        for (name, mode) in [("settings", 0o755), ("secrets", 0o700), ("state", 0o700)] {
            let folder = outside.folder.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            chown(&folder, Some(USER), Some(USER)).unwrap();
        }
        let port = server.port();
        let settings = format!(
            r#"
instance = "image"
[rules.slots]
warning  = {{ above = 0.80, for = "0s", clear_below = 0.70 }}
critical = {{ above = 0.90, for = "0s", clear_below = 0.80 }}
[rules.slots_full]
keep_firing_for = "0s"
[rules.logins_refused]
keep_firing_for = "0s"
[[targets]]
name = "db"
postgres = "host=localhost port={port} user=plimsoll dbname=postgres sslmode=verify-full sslrootcert=/etc/plimsoll/ca.crt"
password_file = "/run/secrets/password"
[[targets]]
name = "unknown-authority"
postgres = "host=localhost port={port} user=plimsoll dbname=postgres sslmode=verify-full"
password_file = "/run/secrets/password"
[[receivers]]
name = "archive"
type = "webhook"
url = "{}"
min_severity = "warning"
"#,
            receiver.url()
        );
        outside.write("settings/plimsoll.toml", settings.as_bytes());
        outside.write("settings/ca.crt", &fs::read(certificate("ca.crt")).unwrap());
        outside.write("secrets/password", PASSWORD.as_bytes());
        outside
    }

    /// A file that the container's user alone may read.
    fn write(&self, name: &str, content: &[u8]) {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        chown(&path, Some(USER), Some(USER)).unwrap();
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Runs the image's own command; only the port is another, for tests share this machine.
    fn start(&self, container: &Container) -> Daemon {
        let here = self.folder.path();
        let (settings, secrets) = (here.join("settings"), here.join("secrets"));
        let state = self.state();
        let mounts: [(&Path, &str); 3] = [
            (&settings, "/etc/plimsoll"),
            (&secrets, "/run/secrets"),
            (&state, "/var/lib/plimsoll"),
        ];
        Daemon::start(container.command(&mounts, &[("PLIMSOLL_SERVER__LISTEN", "0.0.0.0:0")]))
    }
}

/// The certificates of tests of TLS, for `localhost`.
fn certificate(name: &str) -> PathBuf {
    root().join("tests/it/postgres/tls").join(name)
}

/// A server of which 17 slots are usable, that lets Plimsoll in over TLS with a password alone.
async fn server_with_tls_and_a_password() -> Server {
    let server = Server::start(Options { max_connections: 20, ..Options::default() }).await;
    let server = server.unwrap();
    let folder = server.data_dir();
    let owner = fs::metadata(&folder).unwrap();
    for name in ["server.crt", "server.key"] {
        let path = folder.join(name);
        fs::copy(certificate(name), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let superuser = server.superuser().await.unwrap();
    let roles = format!(
        "SET password_encryption = 'scram-sha-256'; CREATE ROLE app LOGIN; \
         CREATE ROLE plimsoll LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 5 IN ROLE pg_monitor"
    );
    superuser.batch_execute(&roles).await.unwrap();
    let ways = "local all all trust\nhost all app 127.0.0.1/32 trust\n\
                hostssl all plimsoll 127.0.0.1/32 scram-sha-256\n";
    fs::write(folder.join("pg_hba.conf"), ways).unwrap();
    superuser.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    superuser.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    superuser.close().await;
    let turned_on = async {
        loop {
            let session = server.superuser().await.unwrap();
            let row = session.query_one("SELECT current_setting('ssl') = 'on'", &[]).await.unwrap();
            session.close().await;
            if row.get(0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // New sessions go by what the postmaster has read of its files.
    tokio::time::timeout(DEADLINE, turned_on).await.expect("the server turns on TLS");
    server
}
