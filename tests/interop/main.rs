//! Plimsoll with what it is put together with: the image with a builder that needs no daemon, the
//! dashboard with a real Prometheus, real applications with their pools. `make test-interop` runs
//! it; `cargo test` alone does not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]
#![expect(clippy::print_stderr, reason = "a test that failed shows what was said")]

mod applications;
mod container;
mod dashboard;
mod image;
#[path = "../it/daemon/launch.rs"]
#[expect(dead_code, reason = "shared with tests/it, which uses all of it")]
mod launch;
mod prometheus;
#[path = "../it/app_pool/world.rs"]
#[expect(dead_code, reason = "shared with tests/it, which uses all of it")]
mod world;

use std::path::Path;

use plimsoll::drill::receiver::Receiver;

/// What lies in the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The next message of this kind; others are passed over.
async fn next(receiver: &Receiver, event: &str) -> serde_json::Value {
    let waiting = async {
        loop {
            let body = receiver.next().await.json();
            if body["event"] == event {
                return body;
            }
        }
    };
    let came = tokio::time::timeout(launch::DEADLINE, waiting).await;
    came.unwrap_or_else(|_| panic!("waiting for a {event}; came: {:?}", receiver.received()))
}
