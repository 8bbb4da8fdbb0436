//! Timelines of servers that take each other's place behind one address.

use crate::timeline::{archive, check, silent};

#[test]
fn a_failover_in_an_incident_is_said_in_its_messages_until_it_ends() {
    check(
        archive(),
        "2 x 1s: used 48
         40 x 1s: fails stopped
         1s: used 44 on standby
         1s: used 48 on standby
         1s: used 48 on standby
         12 x 1s: used 20 on standby",
        "1s slots pending critical
         1s slots_full pending critical
         2s slots_full firing critical
         2s incident opens critical
         2s -> archive trigger critical: payment-db-primary: 48 of 47 usable slots in use (102 %) for 1 s; payment-api holds 45, 39 of them waiting for a lock
         3s source_unreadable(postgres) pending critical
         33s source_unreadable(postgres) firing critical
         43s now on the standby
         43s source_unreadable(postgres) resolved critical
         46s slots inactive critical
         56s slots_full resolved critical
         56s incident ends
         56s -> archive resolve critical: payment-db-primary: resolved after 54 s: 20 of 47 usable slots in use (42 %); at worst 48, of which payment-api held 45",
    );
}

#[test]
fn a_page_within_the_hour_after_a_failover_says_so_and_one_after_it_does_not() {
    let said = |wait: &str, said: &str| {
        check(
            archive(),
            &format!(
                "1s: used 20
                 1s: used 20 on other
                 {wait}: used 20 on other
                 2 x 1s: used 48 on other"
            ),
            said,
        );
    };
    said(
        "118 x 30s",
        "2s another server answers
         3543s slots pending critical
         3543s slots_full pending critical
         3544s slots_full firing critical
         3544s incident opens critical
         3544s -> archive trigger critical: payment-db-primary: 48 of 47 usable slots in use (102 %) for 1 s; payment-api holds 45, 39 of them waiting for a lock; another server answers",
    );
    said(
        "120 x 30s",
        "2s another server answers
         3603s slots pending critical
         3603s slots_full pending critical
         3604s slots_full firing critical
         3604s incident opens critical
         3604s -> archive trigger critical: payment-db-primary: 48 of 47 usable slots in use (102 %) for 1 s; payment-api holds 45, 39 of them waiting for a lock",
    );
}

#[test]
fn each_change_of_the_server_has_its_words() {
    check(
        silent(),
        "1s: used 20
         1s: used 20 on standby
         1s: used 20
         1s: used 20 on standby
         1s: used 20 started later
         1s: used 20 on other on standby
         1s: used 20
         1s: used 20 on other",
        "2s now on the standby
         3s the standby was promoted
         4s now on the standby
         5s now on the primary
         6s another server answers, a standby
         7s another server answers
         8s another server answers",
    );
}

#[test]
fn a_restart_an_old_observation_and_an_unreadable_identifier_are_no_change() {
    check(
        silent(),
        "1s: used 20
         1s: used 20 started later
         1s: fails starting
         1s: used 20 on nobody
         1s: used 20 on standby seen before
         1s: used 20",
        "3s source_unreadable(postgres) pending critical
         4s source_unreadable(postgres) inactive critical",
    );
}

#[test]
fn the_daemon_that_starts_anew_knows_of_no_change() {
    check(
        silent(),
        "1s: used 20
         restart
         1s: used 20 on standby",
        "",
    );
}
