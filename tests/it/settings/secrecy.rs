//! Whatever is wrong with a configuration, nothing secret in it is shown.

use proptest::prelude::*;

use super::Case;

/// In place of every secret. No eight characters of it may be seen in a message.
const CANARY: &str = "c4n4ry7Zq9Xw2Vt5Ry8Up1Ls6Km3Jh0G";

fn configuration() -> String {
    format!(
        "instance = \"eu\"
[poll]
interval = \"1s\"
[[targets]]
name = \"db\"
postgres = \"postgresql://plimsoll:{CANARY}@db:5432/postgres\"
labels = {{ env = \"production\" }}
[[targets.app_pools]]
application = \"api\"
scrape = [\"http://h/metrics?token={CANARY}\"]
[[targets]]
name = \"other\"
postgres = 'host=db password={CANARY} port=1'
[[targets.probes]]
name = \"as-the-application\"
url = \"postgresql://payment:{CANARY}@db:5432/payment\"
interval = \"30s\"
keep_free = 0.02
[rules.slots]
warning = {{ above = 0.8, for = \"60s\" }}
[[receivers]]
name = \"on-call\"
type = \"pagerduty\"
routing_key = \"{CANARY}\"
[[receivers]]
name = \"archive\"
type = \"webhook\"
url = \"https://hooks.example.com/{CANARY}\"
signing_secret = \"whsec_{CANARY}\"
"
    )
}

fn assert_nothing_secret(shown: &str) {
    for window in CANARY.as_bytes().windows(8) {
        let piece = std::str::from_utf8(window).unwrap();
        assert!(!shown.contains(piece), "{piece} is shown in:\n{shown}");
    }
}

#[test]
fn the_configuration_is_in_order() {
    assert_eq!(Case::new(&configuration()).mistakes(), "no mistake");
    let settings = Case::new(&configuration()).settings();
    assert_nothing_secret(&format!("{settings:?}"));
}

/// Each value in the place of each other: a secret where a number, a name or a table belongs.
#[test]
fn a_secret_in_the_wrong_place_is_not_shown() {
    let text = configuration();
    let values: Vec<&str> =
        text.lines().filter_map(|line| Some(line.split_once(" = ")?.1)).collect();
    for (index, line) in text.lines().enumerate() {
        // What is called by a secret has made it public.
        let Some(key) = line.split_once(" = ").map(|(key, _)| key) else { continue };
        if key == "name" {
            continue;
        }
        for value in &values {
            let line = format!("{key} = {value}");
            let text: Vec<&str> = text
                .lines()
                .enumerate()
                .map(|(at, old)| if at == index { line.as_str() } else { old })
                .collect();
            assert_nothing_secret(&Case::new(&text.join("\n")).mistakes());
        }
    }
}

#[test]
fn a_secret_in_the_environment_is_not_shown() {
    let canary_url = format!("postgresql://u:{CANARY}@db:port");
    let case = Case::new("")
        .env("DATABASE_URL", &canary_url)
        .env("PLIMSOLL_POLL__INTERVAL", CANARY)
        .env("PLIMSOLL_RECEIVERS", &format!("[{{ routing_key = {CANARY} }}]"))
        .env("PLIMSOLL_RECEIVERS__ROUTING_KEY", CANARY);
    assert_nothing_secret(&case.mistakes());
}

proptest! {
    /// A slip of the keyboard anywhere, or several. A secret may be torn apart, not shortened:
    /// what is left of it in another place could be anything.
    #[test]
    fn no_slip_of_the_keyboard_shows_a_secret(
        mut slips in prop::collection::vec(
            (0..configuration().len(), 0_usize..40, slip()),
            1..4,
        ),
    ) {
        let original = configuration();
        let mut text = original.clone();
        slips.sort_by_key(|slip| slip.0);
        let mut intact = original.len();
        for (start, length, insert) in slips.into_iter().rev() {
            let secret = original.match_indices(CANARY).map(|(at, _)| at..at + CANARY.len());
            let kept = secret.filter(|secret| secret.end > start).map(|secret| secret.start);
            let end = (start + length).min(intact).min(kept.min().unwrap_or(intact)).max(start);
            text.replace_range(start..end, insert);
            intact = start;
        }
        assert_nothing_secret(&Case::new(&text).mistakes());
    }
}

fn slip() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "",
        "\"",
        "'",
        "=",
        "\n",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        "#",
        "\\",
        "x = ",
        "@",
        "://",
        "interval = ",
        "name = \"",
        "\"\"\"",
        "'''",
        " ",
    ])
}
