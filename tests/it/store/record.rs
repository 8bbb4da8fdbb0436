//! What the API reads of incidents, and what became of owed notifications.

use plimsoll::store::{Delivery, DeliveryState, Durability};
use plimsoll_core::judge::incident::IncidentState;
use plimsoll_core::judge::telling::NotificationKind;

use super::build::{at, quiet, report, told};
use super::{column, look, open};

fn said(deliveries: &[Delivery]) -> Vec<(u64, DeliveryState, u32, Option<&str>)> {
    let each = deliveries.iter();
    each.map(|d| (d.sequence, d.state, d.attempts, d.error.as_deref())).collect()
}

#[tokio::test]
async fn an_incident_is_read_with_what_became_of_its_notifications() {
    let folder = tempfile::tempdir().unwrap();
    let before = open(folder.path());
    for n in 1..=5 {
        before.store().commit(told("db", n, &["on-call"])).await;
    }
    let outbox = before.store().outbox();
    outbox.retry("db-on-call-0001", 1, at(10), "connection refused");
    outbox.delivered("db-on-call-0001", at(11));
    outbox.parked("db-on-call-0002", at(12), "400 Bad Request: no such key");
    outbox.superseded(&["db-on-call-0003".to_owned()], at(13));
    outbox.retry("db-on-call-0004", 3, at(99), "503 Service Unavailable");
    outbox.delivered("no-such-id", at(14));

    let expected = [
        (1, DeliveryState::Delivered, 2, None),
        (2, DeliveryState::Parked, 1, Some("400 Bad Request: no such key")),
        (3, DeliveryState::Superseded, 0, None),
        (4, DeliveryState::Owed, 3, Some("503 Service Unavailable")),
        (5, DeliveryState::Owed, 0, None),
    ];
    let fresh = before.store().incident("incident-of-db").await.unwrap().unwrap();
    assert_eq!(said(&fresh.deliveries), expected);
    assert_eq!(fresh.deliveries[0].kind, NotificationKind::Trigger);
    assert_eq!(fresh.deliveries[0].finished_at, Some(at(11)));
    assert_eq!(fresh.deliveries[3].next_at, Some(at(99)));
    assert_eq!(fresh.record.report, report("incident-of-db", "db", IncidentState::Open, 5));
    assert_eq!(fresh.record.updated_at, at(5));

    let owed = outbox.owed("on-call");
    assert_eq!(owed.iter().map(|one| one.notification.sequence).collect::<Vec<_>>(), [4, 5]);
    assert_eq!((owed[0].attempts, owed[0].next_at), (3, Some(at(99))));
    assert_eq!(owed[0].last_error.as_deref(), Some("503 Service Unavailable"));
    assert_eq!(owed[0].previous_accepted_at, Some(at(11)));
    drop(outbox);
    before.close().await;

    let after = open(folder.path());
    assert_eq!(after.store().outbox().owed("on-call"), owed);
    let kept = after.store().incident("incident-of-db").await.unwrap().unwrap();
    assert_eq!(kept, fresh);
    assert_eq!(after.store().incident("no-such-incident").await.unwrap(), None);
    after.close().await;
}

#[tokio::test]
async fn incidents_are_read_the_newest_first_and_no_more_than_asked() {
    let folder = tempfile::tempdir().unwrap();
    let open = open(folder.path());
    for n in 1..=5 {
        let mut change = quiet("db", n);
        let mut newest = report(&format!("incident-{n}"), "db", IncidentState::Open, n);
        newest.opened_at = at(n.cast_signed());
        change.reports = vec![newest];
        open.store().commit(change).await;
    }
    let newest = open.store().incidents(None, 3).await.unwrap();
    let ids: Vec<&str> = newest.iter().map(|one| one.report.id.as_str()).collect();
    assert_eq!(ids, ["incident-5", "incident-4", "incident-3"]);
    open.close().await;
}

#[tokio::test]
async fn the_record_is_up_to_date_while_the_disk_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let open = open(folder.path());
    open.store().commit(told("db", 1, &["on-call"])).await;
    let held = rusqlite::Connection::open(folder.path().join("state.db")).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut change = told("db", 2, &["on-call"]);
    change.reports = vec![report("incident-of-db", "db", IncidentState::Resolved, 2)];
    assert_eq!(open.store().commit(change).await, Durability::Volatile);
    open.store().outbox().delivered("db-on-call-0001", at(3));

    let newest = open.store().incidents(None, 10).await.unwrap();
    assert_eq!(newest.len(), 1);
    assert_eq!(newest[0].report.state, IncidentState::Resolved);
    let detail = open.store().incident("incident-of-db").await.unwrap().unwrap();
    assert_eq!(detail.record, newest[0]);
    let (delivered, owed) = (DeliveryState::Delivered, DeliveryState::Owed);
    assert_eq!(said(&detail.deliveries), [(1, delivered, 1, None), (2, owed, 0, None)]);
    let on_disk = column(&look(folder.path()), "SELECT state FROM outbox");
    assert_eq!(on_disk, ["owed"], "the file knew it all along");
    drop(held);
    open.close().await;
}

#[tokio::test]
async fn what_is_old_is_forgotten_and_what_is_owed_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let open = open(folder.path());
    open.store().commit(told("db", 1, &["on-call"])).await;
    open.store().commit(told("db", 2, &["on-call"])).await;
    open.store().outbox().delivered("db-on-call-0001", at(3));
    let days = |n: i64| at(n * 86_400);
    let mut later = quiet("db", 3);
    later.at = days(100);
    open.store().commit(later).await;
    let file = look(folder.path());
    assert_eq!(column(&file, "SELECT id FROM outbox"), ["db-on-call-0002"]);
    assert_eq!(column(&file, "SELECT transition FROM transitions"), Vec::<String>::new());
    // Open for a hundred days, and still open.
    assert_eq!(column(&file, "SELECT id FROM incidents"), ["incident-of-db"]);
    open.close().await;
}
