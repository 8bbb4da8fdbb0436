//! The text of the series of an answer as the library writes it, kept until the next one.
//!
//! Most series are there again, and to write names and labels anew is most of what an answer costs.
//! So what stands before a value is written by the library once, and then the value alone. A series
//! that is not in an answer is forgotten with it. Called by [`super::text`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::family::{BETWEEN, Family, Kind, Sheet, Value};
use crate::health::{self, BUCKETS};
use crate::serve::limits::MAX_SERIES_KEPT;

/// What was written for the answer before.
#[derive(Debug, Default)]
pub(in crate::serve) struct Encoded {
    families: BTreeMap<&'static str, Kept>,
    /// Bytes of that answer.
    length: usize,
}

/// A family as it was written.
#[derive(Debug)]
struct Kept {
    /// `# HELP` and `# TYPE`.
    head: String,
    /// The keys of its series with one value, in their order, and what stands before the value.
    leads: Vec<(String, String)>,
}

impl Encoded {
    /// Everything on the sheet, as Prometheus reads it.
    pub(super) fn text(&mut self, sheet: Sheet) -> String {
        let mut text = String::with_capacity(self.length);
        let (mut before, mut room) = (std::mem::take(&mut self.families), MAX_SERIES_KEPT);
        for (family, series) in sheet.into_families() {
            let mut kept = before.remove(family.name).unwrap_or_else(|| Kept::of(&family, &series));
            kept.write(&family, series, &mut text);
            if let Some(left) = room.checked_sub(kept.leads.len()) {
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
    fn of(family: &Family, series: &BTreeMap<String, Value>) -> Self {
        let first = series.iter().next().map(|(key, value)| written(family, key, value));
        Self { head: first.map(|(head, _)| head).unwrap_or_default(), leads: Vec::new() }
    }

    /// Writes the values of now, and before them what stood before those that were there.
    fn write(&mut self, family: &Family, series: BTreeMap<String, Value>, text: &mut String) {
        text.push_str(&self.head);
        let leads = std::mem::replace(&mut self.leads, Vec::with_capacity(series.len()));
        let mut before = leads.into_iter().peekable();
        for (key, value) in series {
            while before.next_if(|(gone, _)| *gone < key).is_some() {}
            let Value::Number(number) = value else {
                text.push_str(&written(family, &key, &value).1);
                continue;
            };
            let same = before.next_if(|(same, _)| *same == key);
            let lead = same.map_or_else(|| lead(family, &key), |(_, lead)| lead);
            text.push_str(&lead);
            // As the library writes numbers. A String takes whatever it is given.
            writeln!(text, "{number}").unwrap_or_default();
            self.leads.push((key, lead));
        }
    }
}

/// What the library writes before the value of a series.
fn lead(family: &Family, key: &str) -> String {
    // Without the help, which stands in no line.
    let (_, mut line) = written(&Family { help: "", ..*family }, key, &Value::Number(0.0));
    // The value, and the end of the line.
    line.truncate(line.len() - "0\n".len());
    line
}

/// What the library writes of a family with this one series: the comments, and the rest.
fn written(family: &Family, key: &str, value: &Value) -> (String, String) {
    let mut encoded = MetricFamily::default();
    encoded.set_name(family.name.to_owned());
    encoded.set_help(family.help.to_owned());
    let mut metric = labelled(family, key);
    let kind = match (family.kind, value) {
        (Kind::Counter, Value::Number(number)) => {
            let mut counter = Counter::default();
            counter.set_value(*number);
            metric.set_counter(counter);
            MetricType::COUNTER
        }
        (_, Value::Histogram(seen)) => {
            metric.set_histogram(buckets(seen));
            MetricType::HISTOGRAM
        }
        (_, Value::Number(number)) => {
            let mut gauge = Gauge::default();
            gauge.set_value(*number);
            metric.set_gauge(gauge);
            MetricType::GAUGE
        }
    };
    encoded.set_field_type(kind);
    encoded.set_metric(vec![metric]);
    let text = TextEncoder::new().encode_to_string(std::slice::from_ref(&encoded));
    let mut comments = text.expect("no family is empty or without a name");
    let lines = comments.split_inclusive('\n').take_while(|line| line.starts_with('#'));
    let rest = comments.split_off(lines.map(str::len).sum());
    (comments, rest)
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

#[cfg(test)]
mod tests {
    use super::super::family::{counter, gauge};
    use super::*;

    #[test]
    fn a_kept_series_is_what_the_library_writes() {
        let families = [gauge("g", &[], "A gauge."), counter("c", &["a", "b"], "A \\ counter.")];
        let numbers =
            [0.0, -0.0, 1.0, -2.5, 1e-7, 1e21, f64::MAX, f64::NAN, f64::INFINITY, -f64::INFINITY];
        for (family, key) in families.iter().zip(["", "x \"y\" \\\n10\n"]) {
            for number in numbers {
                let (head, line) = written(family, key, &Value::Number(number));
                let mut text = String::new();
                let series = || BTreeMap::from([(key.to_owned(), Value::Number(number))]);
                let mut kept = Kept::of(family, &series());
                for _ in 0..2 {
                    kept.write(family, series(), &mut text);
                }
                assert_eq!(text, format!("{head}{line}").repeat(2), "{number}");
                assert_eq!((kept.leads.len(), kept.head), (1, head));
            }
        }
    }
}
