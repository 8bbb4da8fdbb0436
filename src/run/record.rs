//! What the HTTP server asks of the store: incidents of now and before, as everyone may see them.

use std::sync::Arc;

use plimsoll_core::status::{DeliveryStatus, IncidentStatus};

use crate::chain::chain;
use crate::serve::{IncidentQuery, IncidentReader};
use crate::store::{Delivery, IncidentDetail, IncidentRecord, Store, StoreError};

pub(super) fn reader(store: Store) -> IncidentReader {
    Arc::new(move |query| {
        let store = store.clone();
        Box::pin(async move { read(&store, query).await.map_err(|error| chain(&error)) })
    })
}

async fn read(store: &Store, query: IncidentQuery) -> Result<Vec<IncidentStatus>, StoreError> {
    match query {
        IncidentQuery::One { id } => {
            let found = store.incident(&id).await?;
            Ok(found.map(|detail| in_full(&detail)).into_iter().collect())
        }
        IncidentQuery::Newest { target, limit } => {
            let records = store.incidents(target, limit).await?;
            Ok(records.iter().map(in_short).collect())
        }
    }
}

fn in_short(record: &IncidentRecord) -> IncidentStatus {
    IncidentStatus::from_report(&record.report)
}

fn in_full(detail: &IncidentDetail) -> IncidentStatus {
    let deliveries = detail.deliveries.iter().map(delivery).collect();
    IncidentStatus { deliveries, ..in_short(&detail.record) }
}

fn delivery(delivery: &Delivery) -> DeliveryStatus {
    DeliveryStatus {
        id: delivery.id.clone(),
        receiver: delivery.receiver.clone(),
        event: delivery.kind.word().to_owned(),
        state: delivery.state.word().to_owned(),
        attempts: delivery.attempts,
        decided_at: delivery.decided_at,
        finished_at: delivery.finished_at,
        error: delivery.error.clone(),
    }
}
