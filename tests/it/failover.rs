//! What failovers are staged with: an address that leads to one server and then to another, and
//! a standby of a server.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use plimsoll::drill::server::{Mode, Options, Server};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::major;

/// An address behind which servers take each other's place.
pub(crate) struct Address {
    listens_on: u16,
    leads_to: watch::Sender<u16>,
    _forwards: JoinSet<()>,
}

impl Address {
    pub(crate) async fn of(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listens_on = listener.local_addr().unwrap().port();
        let (leads_to, port) = watch::channel(server.port());
        let mut forwards = JoinSet::new();
        forwards.spawn(forward(listener, port));
        Self { listens_on, leads_to, _forwards: forwards }
    }

    pub(crate) fn url(&self, role: &str) -> String {
        format!("postgresql://{role}@127.0.0.1:{}/postgres", self.listens_on)
    }

    /// Leads to this server from now on; connections that are there end.
    pub(crate) fn lead_to(&self, server: &Server) {
        self.leads_to.send_replace(server.port());
    }
}

async fn forward(listener: TcpListener, mut leads_to: watch::Receiver<u16>) {
    loop {
        let mut connections = JoinSet::new();
        let port = *leads_to.borrow_and_update();
        loop {
            tokio::select! {
                changed = leads_to.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                accepted = listener.accept() => {
                    let (mut client, _) = accepted.unwrap();
                    connections.spawn(async move {
                        // Where nothing listens the client finds its connection closed.
                        let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
                            return;
                        };
                        drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                    });
                }
            }
        }
    }
}

/// Gives a server a cluster of its own, with a system identifier of its own: those of other tests
/// are copies of one, and that goes by the name of the system that it was copied from.
pub(crate) async fn begin_anew(server: &mut Server) {
    server.stop(Mode::Fast).await.unwrap();
    let owner = std::fs::metadata(server.data_dir()).unwrap();
    std::fs::remove_dir_all(server.data_dir()).unwrap();
    let mut initdb = Command::new(server.programs().join("initdb"));
    initdb.args(["--auth=trust", "--no-sync", "--locale=C", "--username=postgres", "--pgdata"]);
    initdb.arg(server.data_dir()).current_dir(server.socket_dir());
    if rustix::process::geteuid().is_root() {
        initdb.uid(owner.uid()).gid(owner.gid());
    }
    let said = initdb.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    server.start_again().await.unwrap();
}

/// A standby that follows this server: a copy of its folder, made while it was stopped. (Not every
/// package of a server has `pg_basebackup`.)
pub(crate) async fn standby_of(primary: &mut Server, max_connections: u32) -> Server {
    let options = Options { max_connections, ..Options::default() };
    let mut standby = major::start(options, "").await;
    standby.stop(Mode::Fast).await.unwrap();
    primary.stop(Mode::Fast).await.unwrap();
    std::fs::remove_dir_all(standby.data_dir()).unwrap();
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(primary.data_dir()).arg(standby.data_dir());
    assert!(copy.status().unwrap().success());
    std::fs::write(standby.data_dir().join("standby.signal"), "").unwrap();
    let settings = standby.data_dir().join("postgresql.auto.conf");
    let mut settings = File::options().append(true).open(settings).unwrap();
    let port = primary.port();
    writeln!(settings, "primary_conninfo = 'host=127.0.0.1 port={port} user=postgres'").unwrap();
    primary.start_again().await.unwrap();
    standby.start_again().await.unwrap();
    standby
}
