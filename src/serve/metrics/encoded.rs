//! The library's form of the series of an answer, kept until the next one.
//!
//! Most series are there again, and to make their labels anew (two texts each) is half of what an
//! answer costs. A series that is not in an answer is forgotten with it. Called by [`super::text`].

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::family::{BETWEEN, Family, Kind, Sheet, Value};
use crate::health::{self, BUCKETS};
use crate::serve::limits::MAX_SERIES_KEPT;

/// What was encoded for the answer before.
#[derive(Debug, Default)]
pub(in crate::serve) struct Encoded {
    families: BTreeMap<&'static str, Kept>,
    /// Bytes of that answer.
    length: usize,
}

/// A family, and the keys of its series in their order.
#[derive(Debug, Default)]
struct Kept {
    keys: Vec<String>,
    family: MetricFamily,
}

impl Encoded {
    /// Everything on the sheet, as Prometheus reads it.
    pub(super) fn text(&mut self, sheet: Sheet) -> String {
        let (encoder, mut text) = (TextEncoder::new(), String::with_capacity(self.length));
        let (mut before, mut room) = (std::mem::take(&mut self.families), MAX_SERIES_KEPT);
        for (family, series) in sheet.into_families() {
            let mut kept = before.remove(family.name).unwrap_or_else(|| Kept::of(&family));
            kept.take(&family, series);
            encoder
                .encode_utf8(std::slice::from_ref(&kept.family), &mut text)
                .expect("no family is empty or without a name");
            if let Some(left) = room.checked_sub(kept.keys.len()) {
                room = left;
                self.families.insert(family.name, kept);
            }
        }
        // It grows by some digits at most, as a rule.
        self.length = text.len() + text.len() / 16;
        text
    }
}

impl Kept {
    fn of(family: &Family) -> Self {
        let mut encoded = MetricFamily::default();
        encoded.set_name(family.name.to_owned());
        encoded.set_help(family.help.to_owned());
        encoded.set_field_type(match family.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        Self { keys: Vec::new(), family: encoded }
    }

    /// Takes the values of now, and with them the labels of those series that were there before.
    fn take(&mut self, family: &Family, series: BTreeMap<String, Value>) {
        let keys = std::mem::replace(&mut self.keys, Vec::with_capacity(series.len()));
        let mut before = keys.into_iter().zip(self.family.take_metric()).peekable();
        let mut metrics = Vec::with_capacity(series.len());
        for (key, value) in series {
            while before.next_if(|(gone, _)| *gone < key).is_some() {}
            let same = before.next_if(|(same, _)| *same == key);
            let mut metric = same.map_or_else(|| labelled(family, &key), |(_, metric)| metric);
            set(&mut metric, family.kind, &value);
            metrics.push(metric);
            self.keys.push(key);
        }
        self.family.set_metric(metrics);
    }
}

fn labelled(family: &Family, key: &str) -> Metric {
    let pairs = family.labels.iter().zip(key.split(BETWEEN)).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

fn set(metric: &mut Metric, kind: Kind, value: &Value) {
    match (kind, value) {
        (Kind::Counter, Value::Number(number)) => {
            let mut counter = Counter::default();
            counter.set_value(*number);
            metric.set_counter(counter);
        }
        (_, Value::Number(number)) => {
            let mut gauge = Gauge::default();
            gauge.set_value(*number);
            metric.set_gauge(gauge);
        }
        (_, Value::Histogram(seen)) => metric.set_histogram(buckets(seen)),
    }
}

fn buckets(seen: &health::Histogram) -> Histogram {
    let mut cumulated = 0;
    let buckets = BUCKETS.iter().zip(seen.counts).map(|(bound, count)| {
        cumulated += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulated);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(seen.counts.iter().sum());
    histogram.set_sample_sum(seen.sum);
    histogram
}
