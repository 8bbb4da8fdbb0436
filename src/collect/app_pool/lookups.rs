//! Addresses of names. The system's resolver can hang for half a minute and cannot be called off,
//! so only a few of its calls are ever under way.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::reading::{Failure, FailureKind};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::failure;
use super::instances::Endpoint;

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

/// The addresses that names had when they were last looked up well. A resolver that fails for a
/// moment takes no instance away.
#[derive(Debug, Default)]
pub(super) struct LastGood(BTreeMap<Endpoint, Vec<SocketAddr>>);

impl LastGood {
    /// By when the name must be looked up: in half of the time, if its instances can be asked
    /// without it.
    pub(super) fn deadline(
        &self,
        endpoint: &Endpoint,
        deadline: Instant,
        timeout: Duration,
    ) -> Instant {
        if self.0.contains_key(endpoint) { deadline - timeout / 2 } else { deadline }
    }

    /// Forgets those that are not listed any more.
    pub(super) fn keep(&mut self, endpoints: &[Endpoint]) {
        self.0.retain(|endpoint, _| endpoints.contains(endpoint));
    }

    /// What was found now, else what was found last; and what is wrong, if that is known of it.
    pub(super) fn or_last(
        &mut self,
        endpoint: &Endpoint,
        found: Result<Vec<SocketAddr>, Failure>,
    ) -> (Result<Vec<SocketAddr>, Failure>, Option<Failure>) {
        let wrong = match found {
            Ok(addresses) => {
                self.0.insert(endpoint.clone(), addresses.clone());
                return (Ok(addresses), None);
            }
            Err(wrong) => wrong,
        };
        let Some(last) = self.0.get(endpoint) else { return (Err(wrong), None) };
        let shown = endpoint.shown(None);
        let text = format!("{shown}: {}; the addresses that it had are still asked", wrong.text);
        (Ok(last.clone()), Some(Failure { text, ..wrong }))
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::settings::Secret;

    use super::*;
    use crate::clock;

    #[test]
    fn a_lookup_that_fails_takes_no_instance_away() {
        let of = |url: &str| Endpoint::of_settings(&Secret::new(url)).unwrap();
        let (endpoint, other) = (of("http://payment.svc:8080/metrics"), of("http://other/metrics"));
        let fails = || Err(failure(FailureKind::Unreachable, "looking up its name: no answer"));
        let mut last = LastGood::default();
        let (deadline, timeout) = (clock::monotonic().into(), Duration::from_secs(2));
        // Nothing is known of it yet.
        assert_eq!(last.or_last(&endpoint, fails()), (fails(), None));
        assert_eq!(last.deadline(&endpoint, deadline, timeout), deadline);
        let addresses = vec![SocketAddr::from(([10, 0, 0, 7], 8080))];
        assert_eq!(last.or_last(&endpoint, Ok(addresses.clone())), (Ok(addresses.clone()), None));
        let (asked, wrong) = last.or_last(&endpoint, fails());
        assert_eq!(asked, Ok(addresses));
        assert_eq!(
            wrong.unwrap().text,
            "payment.svc:8080: looking up its name: no answer; the addresses that it had are \
             still asked"
        );
        assert_eq!(last.deadline(&endpoint, deadline, timeout), deadline - timeout / 2);
        // Another's are its own, and one that is listed no more is forgotten.
        assert_eq!(last.or_last(&other, fails()), (fails(), None));
        last.keep(&[other]);
        assert_eq!(last.or_last(&endpoint, fails()), (fails(), None));
    }
}
