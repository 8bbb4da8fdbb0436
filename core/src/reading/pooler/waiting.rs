//! Who waits at a pooler, and for how long: pure functions over what was observed.
//!
//! `wait_time` of its counters is no help here: it grows once a client *has* its server, so it
//! stands still in a total stall. Called by the rules.

use super::{Lookup, Observation, Pool};

impl Pool {
    /// Servers that clients have: linked, and those whose statement is being cancelled.
    pub fn in_use(&self) -> Option<u32> {
        let active = self.sv_active?;
        Some(active.saturating_add(self.sv_being_canceled.unwrap_or(0)))
    }

    /// Servers of any kind, logins under way included: what the server at the other end counts,
    /// but for logins that it has not seen yet.
    pub fn servers(&self) -> Option<u32> {
        let active = self.sv_active?;
        let others = [
            self.sv_idle,
            self.sv_used,
            self.sv_tested,
            self.sv_login,
            self.sv_active_cancel,
            self.sv_being_canceled,
        ];
        Some(others.into_iter().flatten().fold(active, u32::saturating_add))
    }
}

impl Lookup<'_> {
    /// How long the client of this pool that waits longest has waited until now, in seconds; zero
    /// if none waits, `None` if the pooler does not say.
    ///
    /// That is `maxwait` + `maxwait_us` ÷ 1,000,000. Where no server has ever let the pool in, its
    /// clients wait for a greeting, and PgBouncer says 0 of them (admin.c: `query_start` is not
    /// set). Then it is what was seen of the single clients, with the age of that.
    pub fn wait_seconds(&self, pool: &Pool) -> Option<f64> {
        let said = pool.wait_seconds?;
        if pool.cl_waiting.is_none_or(|waiting| waiting == 0) {
            return Some(said);
        }
        let age = self.seen.sockets.as_ref().map(|sockets| sockets.age.as_secs_f64());
        let of_pool = self.login_wait(pool).zip(age).map(|(seconds, age)| seconds + age);
        Some(of_pool.map_or(said, |seconds| seconds.max(said)))
    }
}

impl Observation {
    /// Clients that wait for a server, in all pools; `None` if the pooler does not say.
    pub fn clients_waiting(&self) -> Option<u32> {
        sum(self.pools.iter().map(|pool| pool.cl_waiting))
    }

    /// Logins of the pooler at its servers that are under way; `None` if it does not say.
    ///
    /// PgBouncer logs in one at a time a pool, so many pools are needed for many. One that stays
    /// means churn, or a server that takes no logins.
    pub fn server_logins(&self) -> Option<u32> {
        sum(self.pools.iter().map(|pool| pool.sv_login))
    }

    /// How often a server was given to a client since the pooler began (1.23 and later).
    ///
    /// While clients wait and this stands still, nobody is served.
    pub fn assignments(&self) -> Option<u64> {
        let counted = self.counters.iter().map(|counters| counters.server_assignments);
        counted
            .fold(None, |sum, one| one.map(|one| sum.unwrap_or(0_u64).saturating_add(one)).or(sum))
    }
}

/// Of those that are said; `None` if none is.
fn sum(values: impl Iterator<Item = Option<u32>>) -> Option<u32> {
    values.fold(None, |sum, one| one.map(|one| sum.unwrap_or(0_u32).saturating_add(one)).or(sum))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Counters, Database, LoginWait, Sockets};
    use super::*;

    fn pool(user: &str, waiting: u32, wait_seconds: f64) -> Pool {
        Pool {
            database: "shop".to_owned(),
            user: user.to_owned(),
            cl_waiting: Some(waiting),
            wait_seconds: Some(wait_seconds),
            ..Pool::default()
        }
    }

    #[test]
    fn servers_are_added_up_as_far_as_they_are_said() {
        let mut pool = Pool { sv_active: Some(3), sv_idle: Some(2), ..Pool::default() };
        assert_eq!((pool.in_use(), pool.servers()), (Some(3), Some(5)));
        pool.sv_being_canceled = Some(1);
        pool.sv_login = Some(4);
        assert_eq!((pool.in_use(), pool.servers()), (Some(4), Some(10)));
        assert_eq!((Pool::default().in_use(), Pool::default().servers()), (None, None));
    }

    #[test]
    fn those_who_wait_for_a_greeting_wait_as_long_as_their_sockets_say() {
        let wait = |user: &str, seconds| LoginWait {
            database: "shop".to_owned(),
            user: user.to_owned(),
            seconds,
        };
        let sockets = Sockets {
            age: Duration::from_secs(3),
            login_waits: vec![wait("greeted", 1.0), wait("stalled", 20.0)],
            ..Sockets::default()
        };
        let seen = Observation { sockets: Some(sockets), ..Observation::default() };
        let waited = |pool: &Pool| seen.lookup().wait_seconds(pool);
        assert_eq!(waited(&pool("stalled", 5, 0.0)), Some(23.0));
        // Nobody waits any more, whatever was seen 3 s ago.
        assert_eq!(waited(&pool("stalled", 0, 0.0)), Some(0.0));
        assert_eq!(waited(&pool("greeted", 1, 7.5)), Some(7.5));
        assert_eq!(waited(&pool("other", 1, 0.7)), Some(0.7));
        assert_eq!(waited(&Pool { wait_seconds: None, ..pool("stalled", 5, 0.0) }), None);
    }

    #[test]
    fn clients_of_a_forced_user_have_come_as_others() {
        let wait = |user: &str, seconds| LoginWait {
            database: "shop".to_owned(),
            user: user.to_owned(),
            seconds,
        };
        let login_waits = vec![wait("anna", 5.0), wait("ben", 9.0)];
        let mut seen = Observation {
            sockets: Some(Sockets { login_waits, ..Sockets::default() }),
            ..Observation::default()
        };
        let pool = pool("owner", 2, 0.0);
        assert_eq!(seen.lookup().wait_seconds(&pool), Some(0.0));
        seen.databases.push(Database {
            name: "shop".to_owned(),
            force_user: Some("owner".to_owned()),
            ..Database::default()
        });
        assert_eq!(seen.lookup().wait_seconds(&pool), Some(9.0));
    }

    #[test]
    fn what_is_not_said_is_not_zero() {
        assert_eq!(Observation::default().clients_waiting(), None);
        assert_eq!(Observation::default().assignments(), None);
        let counters =
            |assignments| Counters { server_assignments: assignments, ..Counters::default() };
        let seen = Observation {
            pools: vec![pool("a", 2, 0.0), Pool::default(), pool("b", 3, 0.0)],
            counters: vec![counters(Some(7)), counters(None), counters(Some(5))],
            ..Observation::default()
        };
        assert_eq!(seen.clients_waiting(), Some(5));
        assert_eq!(seen.server_logins(), None);
        assert_eq!(seen.assignments(), Some(12));
    }
}
