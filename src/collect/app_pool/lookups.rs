//! Addresses of names. The system's resolver can hang for half a minute and cannot be called off,
//! so only a few of its calls are ever under way.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use plimsoll_core::reading::{Failure, FailureKind};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::failure;

/// Calls of one source that may hang at once. The runtime has 512 threads for all that blocks.
const MAX_LOOKUPS: usize = 8;

/// Looks names up.
#[derive(Debug)]
pub(super) struct Lookups(Arc<Semaphore>);

impl Default for Lookups {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS)))
    }
}

impl Lookups {
    /// All addresses that a name has, each once; never none.
    pub(super) async fn addresses(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, Failure> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let late = || failure(FailureKind::Unreachable, "looking up its name takes too long");
        let permit = timeout_at(deadline, Arc::clone(&self.0).acquire_owned()).await;
        let permit = permit.map_err(|_| late())?;
        let name = host.to_owned();
        let looking = tokio::task::spawn_blocking(move || {
            // Kept until the call returns, also when nobody waits for it any more.
            let _permit = permit;
            (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)
        });
        let found = timeout_at(deadline, looking).await.map_err(|_| late())?;
        let found =
            found.map_err(|_| failure(FailureKind::Broken, "looking up its name failed"))?;
        let unknown =
            |why: String| failure(FailureKind::Unreachable, format!("looking up its name: {why}"));
        let mut found = found.map_err(|error| unknown(error.to_string()))?;
        found.sort_unstable();
        found.dedup();
        if found.is_empty() { Err(unknown("it has no address".to_owned())) } else { Ok(found) }
    }
}
