//! What a client may take, and how long Plimsoll may be silent before it calls itself ill.
//!
//! A client is anybody who reaches the port: it must never cost Plimsoll the memory, the file
//! descriptors or the threads with which it reads servers and sends pages.

use std::time::Duration;

/// A request's line and headers must be in within this time of the connection, or of the answer
/// before: ends half-sent requests, silent sockets and idle kept-alive ones alike.
pub const HEADER_READ_LIMIT: Duration = Duration::from_secs(10);

/// Line and headers together. A scrape sends about 300 bytes, a browser with cookies of a whole
/// domain some kB.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Once the socket takes no more, the rest of an answer must be gone within this time: ends
/// clients that do not read, and with them the answer in memory. Prometheus gives up at 10 s too.
pub const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Connections at one time. When one more comes, the one that has been without a request for
/// longest is closed: a crowd of idle sockets neither keeps a scrape waiting nor uses up the file
/// descriptors (1,024 by default) that readings and pages need.
pub const MAX_CONNECTIONS: usize = 128;

/// What is being answered when the daemon stops may end within this time.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// After a connection could not be accepted (no file descriptor is left) the next is tried after
/// this time, instead of at once for ever.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Incidents are read from a disk that may stall; then the answer says so after this time.
pub const INCIDENT_READ_LIMIT: Duration = Duration::from_secs(5);

/// Incidents in one answer, unless `?limit=` asks for another number.
pub const INCIDENTS_SHOWN: usize = 50;

/// Incidents in one answer at most: some kB each.
pub const MAX_INCIDENTS_SHOWN: usize = 500;

/// Reasons or names in one answer of `/healthz` and `/readyz`; the rest are counted.
pub const MAX_REASONS_SHOWN: usize = 20;

/// A loop turns at least once in its interval, whatever its sources do; one that has not turned
/// for so long is stuck.
pub const LOOP_STALLED_AFTER: Duration = Duration::from_secs(30);

/// A page that is owed for so long did not reach anybody when it mattered.
pub const OWED_TOO_OLD_AFTER: Duration = Duration::from_mins(5);

/// Holders (application, role, database and state) named a target; the rest are one `other` a
/// state.
pub const MAX_HOLDER_SERIES: usize = 50;

/// Client addresses named a target; the rest are one `other`.
pub const MAX_ADDRESS_SERIES: usize = 50;

/// Databases whose counters are shown a target: those with the most transactions.
pub const MAX_DATABASE_SERIES: usize = 100;

/// Roles, and databases, whose CONNECTION LIMIT is shown a target: the fullest.
pub const MAX_LIMIT_SERIES: usize = 50;

/// Types of other backends named a target (extensions may register any); the rest are `other`.
pub const MAX_BACKEND_TYPE_SERIES: usize = 50;

/// Pools named a target; the rest are one `other` a source.
pub const MAX_POOL_SERIES: usize = 100;

/// Databases and users of a pooler whose clients are shown: those with the fewest places left.
pub const MAX_SCOPE_SERIES: usize = 50;

/// Series in one answer of `/metrics`: about 6 MB of text. Single rows are cut first, Plimsoll's
/// own health and the slots last.
pub const MAX_SERIES: usize = 50_000;

/// Series of which what stands before the value is kept from one answer to the next: 1 to 2 MB. What
/// is beyond is made anew each time.
pub const MAX_SERIES_KEPT: usize = 5_000;

/// Characters of a label's value. Postgres cuts its names at 63 bytes.
pub const MAX_LABEL_CHARS: usize = 128;
