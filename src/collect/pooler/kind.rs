//! Which pooler it is: what they say of themselves, and where the same column means another thing.
//!
//! Facts are from their sources: PgBouncer `src/admin.c`; Odyssey `sources/console.c`; pgcat
//! `src/admin.rs` and `src/stats/pool.rs`; pgdog `pgdog/src/admin/`. Read by [`super::parts`].

/// The pooler that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `PgBouncer 1.24.1`: its release.
    PgBouncer { major: u32, minor: u32 },
    /// Says a number alone, and is Postgres 9.6.0 in its greeting.
    Odyssey,
    /// `PgCat 1.2.0`.
    PgCat,
    /// `PgDog v0.1.10 …`.
    PgDog,
    /// Another that speaks like PgBouncer.
    Other,
}

/// What Odyssey says as `server_version` at its console, in each of its releases.
const ODYSSEY_SERVER_VERSION: &str = "9.6.0";

impl Kind {
    /// From what `SHOW VERSION` says, if it says anything, and the greeting.
    pub(super) fn of(said: Option<&str>, server_version: &str) -> Self {
        let said = said.unwrap_or_default();
        let (name, rest) = said.split_once(' ').unwrap_or((said, ""));
        match name.to_ascii_lowercase().as_str() {
            "pgbouncer" => {
                let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
                let mut number = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
                Self::PgBouncer { major: number(), minor: number() }
            }
            "pgcat" => Self::PgCat,
            "pgdog" => Self::PgDog,
            "odyssey" => Self::Odyssey,
            _ if server_version == ODYSSEY_SERVER_VERSION => Self::Odyssey,
            _ => Self::Other,
        }
    }

    /// What it is called in readings.
    pub(super) fn version(self, said: Option<&str>, server_version: &str) -> String {
        match (self, said) {
            (Self::Odyssey, Some(said)) if !said.to_ascii_lowercase().starts_with("odyssey") => {
                format!("Odyssey {said}")
            }
            (Self::Odyssey, None) => "Odyssey".to_owned(),
            (_, Some(said)) => said.to_owned(),
            (_, None) => server_version.to_owned(),
        }
    }

    /// Whether a `pool_size` of 0 is no limit. PgBouncer took it for none at all before 1.24.
    pub(super) fn has_unlimited_pools(self) -> bool {
        match self {
            Self::PgBouncer { major, minor } => (1, 24) <= (major, minor),
            Self::Odyssey | Self::PgCat | Self::PgDog | Self::Other => true,
        }
    }

    /// Whether `SHOW USERS` repeats a size for users after the one that has it, who have none
    /// (admin.c, `admin_show_users`: the text is not cleared; measured on 1.24.1, mended in 1.26).
    pub(super) fn repeats_sizes_of_users(self) -> bool {
        matches!(self, Self::PgBouncer { major: 1, minor: 23..=25 })
    }

    /// Whether one that is told to stop waits for those at its console, too (measured: 1.24 and
    /// 1.26, since SIGTERM waits for clients at all).
    pub(super) fn waits_for_its_console(self) -> bool {
        matches!(self, Self::PgBouncer { major, minor } if (1, 23) <= (major, minor))
    }

    /// Whether its pools' `maxwait` is measured, and `wait_time` counted. Odyssey prints 0.
    pub(super) fn measures_waits(self) -> bool {
        self != Self::Odyssey
    }

    /// Whether all its counts of servers are counted. Odyssey prints 0 for those that are checked,
    /// reset or logged in.
    pub(super) fn counts_other_servers(self) -> bool {
        self != Self::Odyssey
    }

    /// Whether `cl_waiting` are clients that wait for a server. In Odyssey they are those that are
    /// idle, unless there is a column `cl_idle` beside it.
    pub(super) fn counts_waiting(self, has_idle: bool) -> bool {
        self != Self::Odyssey || has_idle
    }

    /// Whether a database's `max_connections` and `current_connections` are of clients.
    pub(super) fn limits_clients_of_databases(self) -> bool {
        self == Self::Odyssey
    }

    /// Whether each server of a pool is a row of `SHOW DATABASES`, called by pool, shard and role.
    pub(super) fn lists_servers_as_databases(self) -> bool {
        self == Self::PgCat
    }

    /// Whether `used_clients` leaves out those that are idle, who are `free_clients`.
    pub(super) fn calls_idle_clients_free(self) -> bool {
        self == Self::PgCat
    }

    /// Whether its times are milliseconds with a fraction, and not microseconds.
    pub(super) fn counts_in_millis(self) -> bool {
        self == Self::PgDog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poolers_are_told_by_what_they_say() {
        let kind = |said: Option<&str>| Kind::of(said, "1.18.0/bouncer");
        let pgbouncer = |major, minor| Kind::PgBouncer { major, minor };
        assert_eq!(kind(Some("PgBouncer 1.18.0")), pgbouncer(1, 18));
        assert_eq!(kind(Some("PgBouncer 1.26.1")), pgbouncer(1, 26));
        assert_eq!(kind(Some("PgBouncer 2.0dev")), pgbouncer(2, 0));
        assert_eq!(kind(Some("PgBouncer")), pgbouncer(0, 0));
        assert_eq!(kind(Some("PgCat 1.2.0")), Kind::PgCat);
        assert_eq!(kind(Some("PgDog v0.1.10 [main@abc]")), Kind::PgDog);
        assert_eq!(kind(Some("15.3")), Kind::Other);
        assert_eq!(kind(None), Kind::Other);
        assert_eq!(Kind::of(Some("1.3-25-abc-release"), "9.6.0"), Kind::Odyssey);
        assert_eq!(Kind::of(None, "9.6.0"), Kind::Odyssey);
    }

    #[test]
    fn a_size_of_zero_is_unlimited_from_1_24_on() {
        let has = |major, minor| Kind::PgBouncer { major, minor }.has_unlimited_pools();
        assert!(!has(1, 23) && has(1, 24) && has(2, 0) && Kind::Odyssey.has_unlimited_pools());
    }

    #[test]
    fn versions_are_shown_as_they_are_said() {
        let shown = |said: Option<&str>, greeting| Kind::of(said, greeting).version(said, greeting);
        assert_eq!(shown(Some("PgBouncer 1.18.0"), "1.18.0/bouncer"), "PgBouncer 1.18.0");
        assert_eq!(shown(Some("1.3-25-abc"), "9.6.0"), "Odyssey 1.3-25-abc");
        assert_eq!(shown(None, "9.6.0"), "Odyssey");
        assert_eq!(shown(None, "1.7"), "1.7");
    }
}
