//! What a poll frees is kept by its backend: the page faults of backends are counted.

use std::fs;

use super::{Watch, our_backends, server};

/// Page faults of a process that needed no disk: the tenth field of `/proc/PID/stat` (proc(5)).
fn page_faults(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_the_name) = stat.rsplit_once(") ").unwrap();
    after_the_name.split(' ').nth(7).unwrap().parse().unwrap()
}

#[tokio::test]
async fn polls_ask_the_system_for_no_memory_again_and_again() {
    let server = server(300, &[]).await;
    let superuser = server.superuser().await.unwrap();
    let _sessions = server.fill("app", "payment-api", 200).await.unwrap();

    // Another session pays for each look.
    let pid: i32 = superuser.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let mut before = 0;
    for look in 0..13 {
        if look == 3 {
            before = page_faults(pid);
        }
        let sql = "SELECT application_name, count(*) FROM pg_stat_get_activity(NULL) GROUP BY 1";
        superuser.query(sql, &[]).await.unwrap();
    }
    let ten_looks = page_faults(pid) - before;
    assert!(ten_looks > 400, "{ten_looks}: there is nothing to be spared here");

    // Names, counters and the first polls of all touch what they need once.
    let watch = Watch::of(&server);
    for _ in 0..5 {
        watch.seen_from_now().await;
    }
    let pid = our_backends(&superuser).await[0];
    let before = page_faults(pid);
    for _ in 0..10 {
        watch.seen_from_now().await;
    }
    let ten_polls = page_faults(pid) - before;
    assert!(ten_polls * 4 < ten_looks, "{ten_polls} page faults, and {ten_looks} without");
}
