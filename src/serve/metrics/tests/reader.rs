//! Reads the text format and the table in the docs, so that tests compare meaning and not text.

use std::collections::BTreeMap;

/// One sample.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: String,
}

/// One family, with the labels that all of its samples have.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) labels: Vec<String>,
    pub(super) series: usize,
}

/// Every sample of a text.
pub(super) fn series(text: &str) -> Vec<Series> {
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

fn sample(line: &str) -> Series {
    let (name, mut rest) = line.split_at(line.find([' ', '{']).expect(line));
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, value) = rest.trim_start_matches(',').split_once("=\"").expect(line);
            let (value, after) = quoted(value);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = after;
        }
        rest = &rest[1..];
    }
    rest.trim().parse::<f64>().expect(line);
    Series { name: name.to_owned(), labels, value: rest.trim().to_owned() }
}

fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, character)) = chars.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next().expect(text).1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    panic!("the quote does not end: {text}")
}

/// The sum over all samples of a family with these labels; all of them are whole.
pub(super) fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> u64 {
    let has = |it: &Series| labels.iter().all(|(l, v)| it.labels.get(*l).is_some_and(|s| s == v));
    let all = series(text);
    all.iter()
        .filter(|it| it.name == name && has(it))
        .map(|it| it.value.parse::<u64>().unwrap())
        .sum()
}

/// Every family of a text; each sample must follow the lines that announce its family.
pub(super) fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut help = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').expect(line).0;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert_eq!(name, help, "every family has its help");
            let (name, kind) = (name.to_owned(), kind.to_owned());
            families.push(Family { name, kind, labels: Vec::new(), series: 0 });
        } else {
            let family = families.last_mut().expect(line);
            let mut sample = sample(line);
            sample.labels.remove("le");
            let suffix = sample.name.strip_prefix(&family.name);
            let of_histogram = ["_bucket", "_sum", "_count"];
            let is_of = |suffix: &str| match family.kind.as_str() {
                "histogram" => of_histogram.contains(&suffix),
                _ => suffix.is_empty(),
            };
            assert!(suffix.is_some_and(is_of), "{line} stands under {}", family.name);
            let labels: Vec<String> = sample.labels.into_keys().collect();
            assert!(family.series == 0 || family.labels == labels, "{line}: {:?}", family.labels);
            family.labels = labels;
            family.series += 1;
        }
    }
    families
}

/// Name, type and labels of every row of a table whose first cell is a metric's name.
pub(super) fn documented(markdown: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let rows = markdown
        .lines()
        .filter(|line| line.starts_with("| `plimsoll_") || line.starts_with("| `process_"));
    let mut documented = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning, absent] = cells[..] else {
            panic!("a row has name, type, labels, meaning and when it is absent: {row}")
        };
        assert!(!meaning.is_empty() && !absent.is_empty(), "{row}");
        let mut labels: Vec<String> = labels
            .split(',')
            .map(|label| label.trim().trim_matches('`').to_owned())
            .filter(|label| label != "–")
            .collect();
        labels.sort();
        let name = name.trim_matches('`').to_owned();
        let row = documented.insert(name.clone(), (kind.to_owned(), labels));
        assert!(row.is_none(), "{name} is documented twice");
    }
    documented
}
