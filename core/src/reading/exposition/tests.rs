//! What real exporters write, what they should not, and that nothing at all makes it panic.

use proptest::prelude::*;

use super::*;

/// Name, labels and value of each sample, as text; or what is wrong.
fn read_in_pieces(text: &[u8], piece: usize, must_end: bool) -> Result<Vec<String>, Fault> {
    let mut samples = Vec::new();
    let mut take = |sample: &Sample<'_>| {
        let (labels, value) = sample.read()?;
        let labels: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
        samples.push(format!("{} [{}] {value}", sample.name(), labels.join(" ")));
        Ok(())
    };
    let mut feed = Feed::new();
    for piece in text.chunks(piece.max(1)) {
        feed.push(piece, &mut take)?;
    }
    let count = feed.finish(must_end, &mut take)?;
    assert_eq!(count as usize, samples.len());
    Ok(samples)
}

fn read(text: &str) -> Result<Vec<String>, Fault> {
    read_in_pieces(text.as_bytes(), usize::MAX, false)
}

#[test]
fn takes_what_real_exporters_write() {
    for (line, sample) in [
        ("up 1", "up [] 1"),
        ("up\t1", "up [] 1"),
        ("  up   1   ", "up [] 1"),
        ("up 1\r", "up [] 1"),
        ("up{} 1", "up [] 1"),
        ("a:b_C9 -1.5e-3", "a:b_C9 [] -0.0015"),
        ("up 1 1700000000000", "up [] 1"),
        ("up 1 1700000000.123", "up [] 1"),
        ("up 1 -5", "up [] 1"),
        ("up +Inf", "up [] inf"),
        ("up -Inf", "up [] -inf"),
        ("up NaN", "up [] NaN"),
        // simpleclient of 2019 puts a comma behind the last label.
        ("p{pool=\"HikariPool-1\",} 0.0", "p [pool=\"HikariPool-1\"] 0"),
        ("p{a=\"b\", c=\"d\"} 1", "p [a=\"b\" c=\"d\"] 1"),
        ("p{ a = \"b\" , c = \"d\" , } 1", "p [a=\"b\" c=\"d\"] 1"),
        ("p{a=\"c,d\"} 1", "p [a=\"c,d\"] 1"),
        ("p{a=\"b=c\"} 1", "p [a=\"b=c\"] 1"),
        ("p{a=\"q\\\"uo}te\"} 1", "p [a=\"q\\\"uo}te\"] 1"),
        ("p{a=\"back\\\\slash\\nline\"} 1", "p [a=\"back\\\\slash\\nline\"] 1"),
        // An escape that there is none of stays as it is.
        ("p{a=\"\\d\\\u{e9}\"} 1", "p [a=\"\\\\d\\\\\u{e9}\"] 1"),
        ("p{a=\"\"} 1", "p [a=\"\"] 1"),
        ("p{a=\"gr\u{fc}n # {}\"} 1", "p [a=\"gr\u{fc}n # {}\"] 1"),
        // Exemplars of OpenMetrics.
        ("p_bucket{le=\"1\"} 3 # {trace_id=\"x\"} 0.67 1700000000.1", "p_bucket [le=\"1\"] 3"),
        ("p_total 3 1700000000 # {trace_id=\"x\"} 1", "p_total [] 3"),
        // Names in UTF-8.
        ("{\"db.client.connection.count\"} 1", "db.client.connection.count [] 1"),
        (
            "{\"db.client.connection.count\", \"pool.name\"=\"x\", state=\"used\", } 1",
            "db.client.connection.count [pool.name=\"x\" state=\"used\"] 1",
        ),
        ("{ \"gr\u{fc}n\" , a=\"b\"} 1 5", "gr\u{fc}n [a=\"b\"] 1"),
    ] {
        assert_eq!(read(line), Ok(vec![sample.to_owned()]), "{line}");
    }
}

#[test]
fn comments_empty_lines_and_the_end_are_no_samples() {
    let text =
        "# HELP up Whether it is up.\n# TYPE up gauge\n#\n\n \t\r\nup 1\n# UNIT x s\n# EOF\nno !";
    assert_eq!(read(text), Ok(vec!["up [] 1".to_owned()]));
    assert_eq!(read_in_pieces(text.as_bytes(), 1, true), read(text));
    assert_eq!(read(""), Ok(Vec::new()));
    // The last line may lack its newline, but OpenMetrics without its end is torn.
    assert_eq!(read_in_pieces(b"up 1\ndown 0", 3, false).map(|s| s.len()), Ok(2));
    assert_eq!(read_in_pieces(b"up 1\n# EO", 3, true), Err(Fault::Torn));
}

#[test]
fn says_what_is_wrong_with_which_line() {
    let check = |line: &str, said: &str| {
        let text = format!("# HELP up x\nup 1\n{line}\nup 2\n");
        let fault = read(&text).expect_err(line).to_string();
        assert!(fault.starts_with("line 3 ") && fault.contains(said), "{line}: {fault}");
    };
    check("<!DOCTYPE html>", "HTML");
    check("{\"json\": true}", "neither a comma nor a brace");
    check("[1, 2]", "no name and value");
    check("\u{0}\u{1}", "no name and value");
    check("9up 1", "no name and value");
    check("up", "no name and value");
    check("up-1 1", "no name and value");
    check("up ", "no name and value");
    check("up one", "its value is no number");
    check("up{} ", "its value is no number");
    check("up 1 now", "its timestamp is no number");
    check("up 1 2 3", "something follows its timestamp");
    check("p{a=\"b\" 1", "neither a comma nor a brace");
    check("p{a=\"b 1", "a quote is not closed");
    check("p{a=\"b\\\" 1", "a quote is not closed");
    check("p{a=b} 1", "does not stand in quotes");
    check("p{a} 1", "a label has no value");
    check("p{=\"b\"} 1", "a label has no name");
    check("p{,} 1", "a label has no name");
    check("p{a=\"b\",, } 1", "a label has no name");
    check("{} 1", "does not stand in quotes");
    let labels: Vec<String> = (0..=MAX_LABELS).map(|n| format!("l{n}=\"\"")).collect();
    check(&format!("p{{{}}} 1", labels.join(",")), "more than 64 labels");
}

#[test]
fn what_is_no_utf_8_is_said_and_only_where_it_is_asked_for() {
    let fault = read_in_pieces(b"p{a=\"\xff\"} 1\n", 2, false).unwrap_err();
    assert_eq!(fault.to_string(), "line 1 is no metric: it is no UTF-8 text");
    let mut names = Vec::new();
    let mut take = |sample: &Sample<'_>| {
        names.push(sample.name().to_owned());
        Ok(())
    };
    let mut feed = Feed::new();
    feed.push(b"p{a=\"\xff\"} 1\nq 2\n", &mut take).unwrap();
    assert_eq!(feed.finish(false, &mut take), Ok(2));
    assert_eq!(names, ["p", "q"]);
}

#[test]
fn lines_and_their_number_are_bounded() {
    let fits = format!("p{{a=\"{}\"}} 1\n", "x".repeat(MAX_LINE_BYTES - 20));
    assert_eq!(read_in_pieces(fits.as_bytes(), 1000, false).map(|s| s.len()), Ok(1));
    let long = format!("up 1\np{{a=\"{}\"}} 1\n", "x".repeat(MAX_LINE_BYTES));
    for piece in [1000, usize::MAX] {
        let fault = read_in_pieces(long.as_bytes(), piece, false);
        assert_eq!(fault, Err(Fault::LongLine { number: 2 }));
    }
    // One that never ends is given up while it comes.
    let mut feed = Feed::new();
    let pieces = (0..).map(|_| feed.push(&[b'x'; 1000], &mut |_: &Sample<'_>| Ok(())));
    let given_up = pieces.take(1000).position(|pushed| pushed.is_err());
    assert_eq!(given_up, Some(MAX_LINE_BYTES / 1000));
    let mut feed = Feed::new();
    let lines = "\n".repeat(MAX_LINES as usize);
    let mut nothing = |_: &Sample<'_>| Ok(());
    assert_eq!(feed.push(lines.as_bytes(), &mut nothing), Ok(()));
    assert_eq!(feed.push(b"\n", &mut nothing), Err(Fault::ManyLines));
}

#[test]
fn selectors_are_taken_apart() {
    let selector = |metric: &str, labels: &[(&str, &str)]| Selector {
        metric: metric.to_owned(),
        labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
    };
    let check = |text: &str, expected| assert_eq!(Selector::parse(text), expected, "{text}");
    check("up", Ok(selector("up", &[])));
    check(" db.client.count ", Ok(selector("db_client_count", &[])));
    check("p{state=\"used\"}", Ok(selector("p", &[("state", "used")])));
    check("p { a=\"b\", \"c.d\"=\"e,f\", }", Ok(selector("p", &[("a", "b"), ("c_d", "e,f")])));
    check("", Err("it does not begin with the name of a metric"));
    check("9", Err("it does not begin with the name of a metric"));
    check("sum(up)", Err("it does not begin with the name of a metric"));
    check("p{a!=\"b\"}", Err("a label has no value"));
    check("p{a=\"b\"} > 1", Err("something follows its labels"));
    check("p{a=\"b\"", Err("a label is followed by neither a comma nor a brace"));
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

proptest! {
    /// Whatever arrives, in whatever pieces: no panic, and the same however it was cut.
    #[test]
    fn bytes_never_panic(
        text in proptest::collection::vec(any::<u8>(), 0..300),
        piece in 1usize..40,
    ) {
        prop_assert_eq!(read_in_pieces(&text, piece, false), read_in_pieces(&text, 1, false));
    }

    /// The same of what looks like metrics, which comes further.
    #[test]
    fn what_looks_like_metrics_never_panics(
        text in "([a-z_]{0,3}[{}\",=\\\\ #\n\r\t0-9.+eINan\u{e9}-]{0,6}){0,20}",
        piece in 1usize..10,
    ) {
        let text = text.as_bytes();
        prop_assert_eq!(read_in_pieces(text, piece, true), read_in_pieces(text, usize::MAX, true));
    }

    /// What is written by the rules is read as it was meant.
    #[test]
    fn samples_come_back_as_they_were_written(
        name in "[a-z_:][a-z0-9_:]{0,10}",
        labels in proptest::collection::vec(("[a-z_][a-z0-9_]{0,5}", any::<String>()), 0..5),
        value in any::<f64>().prop_filter("equal to itself", |value| !value.is_nan()),
        in_quotes: bool,
        comma: bool,
    ) {
        // A carriage return is no end of a line inside of one.
        let labels: Vec<_> = labels.into_iter().map(|(n, v)| (n, v.replace('\r', ""))).collect();
        let mut inside: Vec<String> = Vec::new();
        inside.extend(in_quotes.then(|| format!("\"{}\"", escaped(&name))));
        inside.extend(labels.iter().map(|(n, v)| format!("{n}=\"{}\"", escaped(v))));
        let comma = if comma && !inside.is_empty() { "," } else { "" };
        let outside = if in_quotes { "" } else { name.as_str() };
        let line = format!("{outside}{{{}{comma}}} {value:?}\n", inside.join(","));
        let written: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
        let expected = format!("{name} [{}] {value}", written.join(" "));
        prop_assert_eq!(read(&line), Ok(vec![expected]), "{}", line);
    }
}
