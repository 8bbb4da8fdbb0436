//! Each pooler's own columns: those of PgBouncer by release, and of its look-alikes.
//!
//! PgBouncer's are real in `tests/it/pooler`; what stands here is what no package has. Columns of
//! the look-alikes are in the order of their sources (see [`super::super::kind`]).

use super::super::answer::table;
use super::*;

const BOUNCER_1_18: Kind = Kind::PgBouncer { major: 1, minor: 18 };
const BOUNCER_1_24: Kind = Kind::PgBouncer { major: 1, minor: 24 };

fn pools_of(kind: Kind, text: &str) -> Vec<Pool> {
    pools(&table(POOLS, text), kind, "pgbouncer").unwrap()
}

fn databases_of(kind: Kind, text: &str) -> Vec<Database> {
    databases(&table(DATABASES, text), kind, "pgbouncer").unwrap()
}

fn counters_of(kind: Kind, wanted: &[&'static str], text: &str) -> Vec<Counters> {
    counters(&table(wanted, text), kind, "pgbouncer").unwrap()
}

/// Up to 1.15, as 1.12 has them: twelve columns.
#[test]
fn the_pools_of_1_12_are_read() {
    let text = "database|user|cl_active|cl_waiting|sv_active|sv_idle|sv_used|sv_tested|sv_login|maxwait|maxwait_us|pool_mode
pgbouncer|pgbouncer|1|0|0|0|0|0|0|0|0|statement
shop|app|7|2|5|1|0|0|1|0|700000|transaction";
    let expected = Pool {
        database: "shop".to_owned(),
        user: "app".to_owned(),
        mode: Some("transaction".to_owned()),
        cl_active: Some(7),
        cl_waiting: Some(2),
        sv_active: Some(5),
        sv_idle: Some(1),
        sv_used: Some(0),
        sv_tested: Some(0),
        sv_login: Some(1),
        sv_active_cancel: None,
        sv_being_canceled: None,
        wait_seconds: Some(0.7),
    };
    assert_eq!(pools_of(Kind::PgBouncer { major: 1, minor: 12 }, text), [expected]);
}

/// 1.16 and 1.17 have a column in the middle that no other has.
#[test]
fn a_column_that_is_not_known_is_passed_over() {
    let text = "database|user|cl_active|cl_waiting|cl_cancel_req|sv_active|sv_idle|sv_used|sv_tested|sv_login|maxwait|maxwait_us|pool_mode
shop|app|1|2|3|4|5|6|7|8|9|250000|session";
    let pools = pools_of(Kind::PgBouncer { major: 1, minor: 16 }, text);
    assert_eq!((pools[0].sv_active, pools[0].sv_login), (Some(4), Some(8)));
    assert_eq!(pools[0].wait_seconds, Some(9.25));
}

/// What is being made to follow 1.26: a row a thread.
#[test]
fn the_pools_of_several_threads_are_one() {
    let text = "database|user|cl_active|cl_waiting|sv_active|sv_idle|maxwait|maxwait_us|pool_mode|load_balance_hosts|thread_id
shop|app|1|0|1|4|0|0|transaction|\\N|0
shop|app|3|2|5|0|1|500000|transaction|\\N|1
shop|other|1|0|0|0|0|0|transaction|\\N|1";
    let pools = pools_of(Kind::PgBouncer { major: 1, minor: 27 }, text);
    assert_eq!(pools.len(), 2);
    assert_eq!((pools[0].cl_active, pools[0].cl_waiting), (Some(4), Some(2)));
    assert_eq!((pools[0].sv_active, pools[0].sv_idle), (Some(6), Some(4)));
    assert_eq!(pools[0].wait_seconds, Some(1.5));
    // Said by none, so not zero.
    assert_eq!(pools[0].sv_login, None);
}

#[test]
fn sizes_and_limits_of_zero_mean_what_the_release_means() {
    let old = "name|host|port|database|force_user|pool_size|min_pool_size|reserve_pool|pool_mode|max_connections|current_connections|paused|disabled
pgbouncer|\\N|6432|pgbouncer|pgbouncer|2|0|0|statement|0|0|0|0
shop|db|5432|shop|\\N|20|0|5|\\N|0|7|0|0
local|\\N|5432|shop|owner|0|0|0|\\N|30|7|1|1";
    let read = databases_of(BOUNCER_1_18, old);
    assert_eq!(read.len(), 2);
    assert_eq!((read[0].pool_size, read[0].reserve_pool_size), (Some(20), Some(5)));
    assert_eq!((read[0].max_connections, read[0].max_client_connections), (None, None));
    assert_eq!((read[0].host.as_deref(), read[0].port), (Some("db"), Some(5432)));
    assert_eq!((read[1].host.as_deref(), read[1].force_user.as_deref()), (None, Some("owner")));
    assert_eq!((read[1].pool_size, read[1].max_connections), (Some(0), Some(30)));
    assert!(!read[0].paused && read[1].paused && read[1].disabled);

    let new = "name|host|port|database|force_user|pool_size|min_pool_size|reserve_pool_size|server_lifetime|pool_mode|load_balance_hosts|max_connections|current_connections|max_client_connections|current_client_connections|paused|disabled
shop|db|5432|shop|\\N|0|0|3|3600|\\N|\\N|0|7|40|12|0|0";
    let read = databases_of(BOUNCER_1_24, new);
    assert_eq!((read[0].pool_size, read[0].reserve_pool_size), (None, Some(3)));
    assert_eq!(read[0].max_client_connections, Some(40));
    assert_eq!(read[0].current_client_connections, Some(12));
}

#[test]
fn users_without_a_limit_are_left_out() {
    let old = "name|pool_mode\napp|\\N\nadmin|session";
    assert_eq!(users(&table(USERS, old), BOUNCER_1_18).unwrap(), []);
    let new = "name|pool_size|reserve_pool_size|pool_mode|max_user_connections|current_connections|max_user_client_connections|current_client_connections
admin||||0|0|0|1
app|        7|        0||0|5|0|30
batch||||4|4|9|3";
    let read = users(&table(USERS, new), BOUNCER_1_24).unwrap();
    assert_eq!(read.len(), 2);
    assert_eq!((read[0].pool_size, read[0].reserve_pool_size), (Some(7), Some(0)));
    assert_eq!((read[0].max_user_connections, read[0].current_connections), (None, Some(5)));
    assert_eq!((read[1].pool_size, read[1].max_user_connections), (None, Some(4)));
    assert_eq!(read[1].max_user_client_connections, Some(9));
    assert!(read.iter().all(|user| !user.sizes_in_doubt));
}

/// As 1.24.1 lists them where `app` alone has sizes.
#[test]
fn sizes_that_are_repeated_are_in_doubt_in_releases_that_repeat_them() {
    let text = "name|pool_size|reserve_pool_size|max_user_connections
admin|||0
app|        3|        2|0
bob|        3|        2|0
zed|        4|        2|0";
    let doubted = |minor| {
        let read = users(&table(USERS, text), Kind::PgBouncer { major: 1, minor }).unwrap();
        read.iter().map(|user| user.sizes_in_doubt).collect::<Vec<_>>()
    };
    assert_eq!(doubted(24), [false, true, true]);
    assert_eq!(doubted(26), [false, false, false]);
}

#[test]
fn limits_are_read_from_the_settings() {
    let text = "key|value|default|changeable
max_client_conn|2000|100|yes
max_user_connections|0|0|yes
default_pool_size|20|20|yes
query_wait_timeout|120|120|yes
reserve_pool_timeout|0.000000|5|yes
admin_users|\\N||yes";
    let limits = limits(&table(CONFIG, text));
    assert_eq!((limits.max_client_conn, limits.max_user_connections), (Some(2000), None));
    assert_eq!(limits.default_pool_size, Some(20));
    assert_eq!(limits.query_wait_timeout, Some(Duration::from_mins(2)));
    assert_eq!(limits.reserve_pool_timeout, Some(Duration::ZERO));
}

#[test]
fn the_state_and_the_clients_are_read() {
    let state = |text: &str| paused(&table(STATE, text));
    assert_eq!(state("key|value\nactive|yes\npaused|no\nsuspended|no"), Some(false));
    assert_eq!(state("key|value\nactive|no\npaused|yes"), Some(true));
    assert_eq!(state("key|value\nactive|yes"), None);
    let lists = "list|items\nfree_clients|40\nused_clients|12\nlogin_clients|1";
    assert_eq!(clients(&table(LISTS, lists), BOUNCER_1_18), Ok(Some(12)));
    assert_eq!(clients(&table(LISTS, "list|items\npools|1"), BOUNCER_1_18), Ok(None));
}

#[test]
fn counters_have_two_forms() {
    let totals =
        "database|xact_count|query_count|bytes_received|bytes_sent|xact_time|query_time|wait_time
pgbouncer|0|9|0|0|0|0|0
shop|5|7|1|2|3|4|18446744073709551615";
    let read = counters_of(BOUNCER_1_18, STATS_TOTALS, totals);
    assert_eq!(read.len(), 1);
    assert_eq!((read[0].transactions, read[0].queries), (Some(5), Some(7)));
    assert_eq!((read[0].wait_micros, read[0].server_assignments), (Some(u64::MAX), None));
    let totals = "database|server_assignment_count|xact_count|query_count|wait_time\nshop|3|5|7|9";
    let read = counters_of(BOUNCER_1_24, STATS_TOTALS, totals);
    assert_eq!(read[0].server_assignments, Some(3));
}

/// Odyssey's `cl_waiting` are clients that are idle, and it measures no waits.
#[test]
fn odyssey_s_zeros_are_not_taken_for_figures() {
    let text = "database|user|cl_active|cl_waiting|sv_active|sv_idle|sv_used|sv_tested|sv_login|maxwait|maxwait_us|pool_mode
shop|app|7|40|7|1|0|0|0|0|0|transaction";
    let pools = pools_of(Kind::Odyssey, text);
    assert_eq!((pools[0].cl_active, pools[0].cl_waiting), (Some(7), None));
    assert_eq!((pools[0].sv_active, pools[0].sv_idle, pools[0].sv_login), (Some(7), Some(1), None));
    assert_eq!(pools[0].wait_seconds, None);
    // With a column of its own for those that are idle.
    let text = "database|user|cl_active|cl_idle|cl_waiting|sv_active|sv_idle|sv_used|sv_tested|sv_login|sv_detail|maxwait|maxwait_us|pool_mode
shop|app|7|40|2|7|1|0|0|0|{7/1/2}|0|0|transaction";
    let pools = pools_of(Kind::Odyssey, text);
    assert_eq!((pools[0].cl_waiting, pools[0].wait_seconds), (Some(2), None));

    let text = "name|host|port|database|force_user|pool_size|reserve_pool|pool_mode|max_connections|current_connections|paused|disabled
shop|db|5432|default|app|0|0|transaction|100|47|0|0";
    let read = databases_of(Kind::Odyssey, text);
    assert_eq!((read[0].pool_size, read[0].max_connections), (None, None));
    assert_eq!(read[0].current_connections, None);
    assert_eq!(read[0].max_client_connections, Some(100));
    assert_eq!(read[0].current_client_connections, Some(47));

    let text = "database|total_xact_count|total_query_count|total_received|total_sent|total_xact_time|total_query_time|total_wait_time|avg_xact_count|avg_query_count|avg_recv|avg_sent|avg_xact_time|avg_query_time|avg_wait_time
shop|5|7|1|2|3|4|0|0|0|0|0|0|0|0";
    let read = counters_of(Kind::Odyssey, STATS, text);
    assert_eq!((read[0].queries, read[0].wait_micros), (Some(7), None));
}

/// Each server of a pgcat pool is a database, and its idle clients are free ones.
#[test]
fn pgcat_s_servers_are_one_pool() {
    let text = "database|user|pool_mode|cl_idle|cl_active|cl_waiting|cl_cancel_req|sv_active|sv_idle|sv_used|sv_tested|sv_login|maxwait|maxwait_us
shop|app|transaction|3|2|1|0|2|8|0|0|0|0|1250";
    let pools = pools_of(Kind::PgCat, text);
    assert_eq!((pools[0].cl_active, pools[0].cl_waiting), (Some(2), Some(1)));
    assert_eq!(pools[0].wait_seconds, Some(0.001_25));

    let text = "name|host|port|database|force_user|pool_size|min_pool_size|reserve_pool|pool_mode|max_connections|current_connections|paused|disabled
shop_shard_0_primary|10.0.0.1|5432|shard0|app|9|0|0|transaction|9|5|0|0
shop_shard_0_replica_0|10.0.0.2|5432|shard0|app|9|0|0|transaction|9|3|0|1
shop_shard_0_primary|10.0.0.1|5432|shard0|batch|2|0|0|session|2|1|0|0";
    let read = databases_of(Kind::PgCat, text);
    let told: Vec<_> = read
        .iter()
        .map(|d| (d.name.as_str(), d.force_user.as_deref(), d.pool_size, d.current_connections))
        .collect();
    assert_eq!(
        told,
        [("shop", Some("app"), Some(18), Some(8)), ("shop", Some("batch"), Some(2), Some(1))]
    );
    assert!(read.iter().all(|d| d.max_connections.is_none() && !d.disabled));

    let lists = "list|items\nfree_clients|3\nused_clients|2\nlogin_clients|0";
    assert_eq!(clients(&table(LISTS, lists), Kind::PgCat), Ok(Some(5)));

    let text = "instance|database|user|total_xact_count|total_query_count|total_received|total_sent|total_xact_time|total_query_time|total_wait_time|total_errors|avg_xact_count
shop_shard_0_primary|shop|app|5|7|0|0|0|0|100|0|0
shop_shard_0_replica_0|shop|app|1|2|0|0|0|0|50|0|0";
    let read = counters_of(Kind::PgCat, STATS, text);
    assert_eq!(read.len(), 1);
    assert_eq!((read[0].transactions, read[0].wait_micros), (Some(6), Some(150)));
}

/// A row a server, a time in milliseconds, and a list a column.
#[test]
fn pgdog_s_columns_are_read() {
    let text = "id|database|user|addr|port|shard|role|cl_waiting|sv_idle|sv_active|sv_idle_xact|sv_total|maxwait|maxwait_us|pool_mode|paused|banned|healthy|errors|re_synced|out_of_sync|force_closed|online|schema_admin
1|shop|app|10.0.0.1|5432|0|primary|4|0|10|2|10|2|500000|transaction|f|f|t|0|0|0|0|t|f
2|shop|app|10.0.0.2|5432|0|replica|0|6|4|0|10|0|0|transaction|f|f|t|0|0|0|0|t|f";
    let pools = pools_of(Kind::PgDog, text);
    assert_eq!(pools.len(), 1);
    assert_eq!((pools[0].cl_active, pools[0].cl_waiting), (None, Some(4)));
    assert_eq!((pools[0].sv_active, pools[0].sv_idle), (Some(14), Some(6)));
    assert_eq!(pools[0].wait_seconds, Some(2.5));

    let lists = "databases|users|pools|used_clients|used_clients|free_servers|used_servers\n1|1|2|0|17|0|20";
    assert_eq!(clients(&table(LISTS, lists), Kind::PgDog), Ok(Some(17)));

    let text = "database|user|addr|port|shard|role|total_xact_count|total_query_count|total_server_assignment_count|total_wait_time
shop|app|10.0.0.1|5432|0|primary|5|7|3|1500.250
shop|app|10.0.0.2|5432|0|replica|1|1|1|0.000";
    let read = counters_of(Kind::PgDog, STATS, text);
    assert_eq!((read[0].wait_micros, read[0].server_assignments), (Some(1_500_250), Some(4)));

    let config = limits(&table(CONFIG, "name|value\ndefault_pool_size|10\nworkers|2"));
    assert_eq!(config.default_pool_size, Some(10));
}

#[test]
fn what_is_no_console_is_said_to_be_none() {
    let said = |text: &str| pools(&table(POOLS, text), Kind::Other, "pgbouncer").unwrap_err().0;
    assert_eq!(said("a|b\n1|2"), "has no columns database and user");
    assert_eq!(said("database|cl_active\n1|2"), "has no column user");
    let garbage = "database|user|cl_active\nshop|app|<html>";
    assert_eq!(said(garbage), "has no number for cl_active: \"<html>\"");
    // NULL for a name, or a number that is not said, is no reason to give up.
    let text = "database|user|cl_active|cl_waiting\n\\N|app|1|1\nshop|app|\\N|-1";
    let pools = pools_of(Kind::Other, text);
    assert_eq!(pools.len(), 1);
    assert_eq!((pools[0].cl_active, pools[0].cl_waiting, pools[0].sv_active), (None, None, None));
    assert_eq!(pools[0].wait_seconds, None);
    // No pool at all is no mistake.
    assert_eq!(pools_of(Kind::Other, "database|user"), []);
}
