//! Timelines of logins that are refused or have no answer, as probes and the log see them.

use crate::joined::joined;
use crate::timeline::check;

#[test]
fn logins_under_way_hold_slots_that_no_view_shows_and_a_probe_is_refused() {
    check(
        joined(),
        "1s: used 1 log quiet probe ok pooler 0/20 app a=0/50,wait=0,timeouts=0
         1s: used 1 log quiet probe all_slots_taken pooler 0/20 app again app a=0/50,wait=0,timeouts=0
         40 x 1s: used 1 log quiet probe held:all_slots_taken pooler 0/20 app again app a=0/50,wait=0,timeouts=0
         75 x 1s: used 1 log quiet probe ok pooler 0/20 app again app a=0/50,wait=0,timeouts=0",
        "1s bottleneck none: 1 of 47 usable slots in use (2 %)
         2s slots_full firing critical
         2s logins_refused(all_slots_taken) firing critical
         2s incident opens critical
         2s -> archive trigger critical: payment-db-primary: logins are refused (every slot is taken, those for superusers too), seen by probe/app, though 46 usable slots look free: logins under way hold them; backfill_invoice_idx holds 1, active
         2s bottleneck logins under way: logins are refused (every slot is taken, those for superusers too), seen by probe/app, though 46 usable slots look free: logins under way hold them; 1 of 47 usable slots in use (2 %); pooler/pgbouncer shows nobody waiting
         43s bottleneck none: 1 of 47 usable slots in use (2 %)
         53s slots_full resolved critical
         103s logins_refused(all_slots_taken) resolved critical
         103s incident ends
         103s -> archive resolve critical: payment-db-primary: resolved after 1 min 41 s: 1 of 47 usable slots in use (2 %)",
    );
}

#[test]
fn a_probe_that_was_refused_and_then_hears_nothing_is_still_refused() {
    check(
        joined(),
        "1s: used 1 log quiet probe all_slots_taken pooler 0/20 app a=0/50,wait=0,timeouts=0
         120 x 1s: used 1 log quiet probe unanswered pooler 0/20 app again app a=0/50,wait=0,timeouts=0
         90 x 1s: used 1 log quiet probe ok pooler 0/20 app again app a=0/50,wait=0,timeouts=0",
        "1s slots_full firing critical
         1s logins_refused(all_slots_taken) firing critical
         1s incident opens critical
         1s -> archive trigger critical: payment-db-primary: logins are refused (every slot is taken, those for superusers too), seen by probe/app, though 46 usable slots look free: logins under way hold them; backfill_invoice_idx holds 1, active
         1s bottleneck logins under way: logins are refused (every slot is taken, those for superusers too), seen by probe/app, though 46 usable slots look free: logins under way hold them; 1 of 47 usable slots in use (2 %); pooler/pgbouncer shows nobody waiting
         2s logins_refused(probe/app) pending critical
         32s logins_refused(probe/app) firing critical
         122s bottleneck none: 1 of 47 usable slots in use (2 %)
         132s slots_full resolved critical
         182s logins_refused(all_slots_taken) resolved critical
         182s logins_refused(probe/app) resolved critical
         182s incident ends
         182s -> archive resolve critical: payment-db-primary: resolved after 3 min 1 s: 1 of 47 usable slots in use (2 %)",
    );
}

#[test]
fn logins_that_have_no_answer_page_after_30_s() {
    check(
        joined(),
        "1s: used 1 log quiet probe ok pooler 0/20 app a=0/50,wait=0,timeouts=0
         35 x 1s: used 1 log quiet probe unanswered pooler 0/20 app again app a=0/50,wait=0,timeouts=0
         62 x 1s: used 1 log quiet probe ok pooler 0/20 app again app a=0/50,wait=0,timeouts=0",
        "1s bottleneck none: 1 of 47 usable slots in use (2 %)
         2s logins_refused(probe/app) pending critical
         2s bottleneck logins under way: probe/app has no answer to its login (no answer within 5 s); 1 of 47 usable slots in use (2 %); pooler/pgbouncer shows nobody waiting
         32s logins_refused(probe/app) firing critical
         32s incident opens critical
         32s -> archive trigger critical: payment-db-primary: probe/app has no answer to its login (no answer within 5 s) for 30 s; backfill_invoice_idx holds 1, active
         37s bottleneck none: 1 of 47 usable slots in use (2 %)
         97s logins_refused(probe/app) resolved critical
         97s incident ends
         97s -> archive resolve critical: payment-db-primary: resolved after 1 min 5 s: 1 of 47 usable slots in use (2 %)",
    );
    // A pooler that stands still leaves logins unanswered too: that proves nothing of the server.
    check(
        joined(),
        "3 x 1s: used 1 log quiet probe unanswered pooler fails:too_slow app a=0/50,wait=0,timeouts=0",
        "1s logins_refused(probe/app) pending critical
         1s source_unreadable(pooler/pgbouncer) pending warning
         1s bottleneck unknown: pooler/pgbouncer cannot be read (too slow: the source is too_slow); 1 of 47 usable slots in use (2 %)",
    );
}

#[test]
fn a_limit_that_others_are_refused_at_is_named() {
    check(
        joined(),
        "1s: used 20 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0
         1s: used 20 log role_limit*7 probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0
         70 x 1s: used 20 log quiet probe ok pooler 5/20 app a=5/50,wait=0,timeouts=0",
        "1s bottleneck none: 20 of 47 usable slots in use (42 %)
         2s logins_refused(role_limit) firing warning
         2s incident opens warning
         2s -> archive trigger warning: payment-db-primary: logins are refused (the role is at its CONNECTION LIMIT), seen in the log for payment@payment; payment-api holds 17, 11 of them waiting for a lock
         2s bottleneck role or database limit: logins are refused (the role is at its CONNECTION LIMIT), seen in the log for payment@payment; 20 of 47 usable slots in use (42 %)
         12s bottleneck none: 20 of 47 usable slots in use (42 %)
         63s logins_refused(role_limit) resolved warning
         63s incident ends
         63s -> archive resolve warning: payment-db-primary: resolved after 1 min 1 s: 20 of 47 usable slots in use (42 %)",
    );
}

#[test]
fn a_pooler_that_takes_no_more_clients_is_the_bottleneck() {
    check(
        joined(),
        "65 x 1s: used 20 log quiet probe pooler_clients pooler 5/20,clients=100/100 app a=5/50,wait=0,timeouts=0",
        "1s logins_refused(pooler_clients) firing critical
         1s pool_utilization(pooler/pgbouncer clients) pending critical
         1s incident opens critical
         1s -> archive trigger critical: payment-db-primary: logins are refused (the pooler takes no more clients), seen by probe/app; payment-api holds 17, 11 of them waiting for a lock
         1s bottleneck pooler: logins are refused (the pooler takes no more clients), seen by probe/app; 100 of 100 clients of pooler/pgbouncer (100 %); 20 of 47 usable slots in use (42 %)
         61s pool_utilization(pooler/pgbouncer clients) firing critical",
    );
}
