//! Nothing secret in what `check` and `setup-sql` print, whatever goes wrong.

use plimsoll::drill::receiver::{Behaviour, Receiver};

use super::{run, server};

/// In every place that takes a secret.
const CANARIES: [&str; 6] = [
    "canary-password",
    "canary-token",
    "canary-path",
    "canary-proxy",
    "canaryroutingkey",
    "Y2FuYXJ5",
];

#[tokio::test]
async fn no_canary_is_printed() {
    let server = server(20).await;
    let receiver = Receiver::start(Behaviour::status(200)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let receivers = format!(
        "[[receivers]]\nname = \"well\"\ntype = \"webhook\"\nurl = \"{}/canary-path?t=canary-token\"\n\
         signing_secret = \"whsec_Y2FuYXJ5LXNpZ25pbmctc2VjcmV0LWNhbmFyeQ==\"\n\
         [[receivers]]\nname = \"gone\"\ntype = \"webhook\"\nurl = \"http://127.0.0.1:1/canary-path\"\n\
         [[receivers]]\nname = \"nowhere\"\ntype = \"webhook\"\n\
         url = \"https://nowhere.invalid/canary-path?t=canary-token\"\n\
         [[receivers]]\nname = \"on-call\"\ntype = \"pagerduty\"\nbase_url = \"http://127.0.0.1:1\"\n\
         routing_key = \"canaryroutingkeycanaryroutingkey\"\n",
        receiver.url()
    );
    let port = server.port();
    let target = |name: &str, postgres: &str| {
        format!("[[targets]]\nname = \"{name}\"\npostgres = \"{postgres}\"\n")
    };
    let good = [
        target("well", &format!("postgresql://plimsoll:canary-password@127.0.0.1:{port}/postgres")),
        target("nobody", &format!("postgresql://nobody:canary-password@127.0.0.1:{port}/postgres")),
        target(
            "no-tls",
            &format!(
                "postgresql://plimsoll:canary-password@127.0.0.1:{port}/postgres?sslmode=require"
            ),
        ),
        target("gone", "postgresql://plimsoll:canary-password@127.0.0.1:1/postgres"),
        target("nowhere", "host=nowhere.invalid user=plimsoll password=canary-password"),
    ];
    let head = "instance = \"test\"\nstate_dir = \"state\"\n";
    let bad_url = target(
        "bad",
        "postgresql://plimsoll:canary-password@db?password=canary-password&oops=canary-token",
    );
    let cases = [
        file("good.toml", &format!("{head}{}{receivers}", good.concat())),
        // Settings with mistakes beside each secret.
        file(
            "bad.toml",
            &format!("{head}unknown = 1\n{bad_url}{receivers}url = \"canary-token\"\n"),
        ),
        file(
            "broken.toml",
            &format!("{head}{bad_url}{receivers}routing_key = \"canaryroutingkey\n"),
        ),
    ];
    let proxy = "http://user:canary-proxy@127.0.0.1:1";
    let variables =
        [("HTTPS_PROXY", proxy), ("PLIMSOLL_POLL__TIMEOUT", "2s"), ("RUST_LOG", "trace")];
    let mut printed = String::new();
    for config in &cases {
        for format in ["text", "json"] {
            let arguments = ["check", "--config", config, "--format", format];
            let ended = run(&arguments, &variables).await;
            assert!([3, 4].contains(&ended.code), "{}", ended.code);
            printed.push_str(&ended.stdout);
            printed.push_str(&ended.stderr);
        }
    }
    for arguments in [
        ["setup-sql", "--config", &cases[0], "--target", "gone"],
        ["setup-sql", "--config", &cases[0], "--target", "nobody"],
        ["setup-sql", "--config", &cases[1], "--target", "bad"],
    ] {
        let ended = run(&arguments, &variables).await;
        assert_ne!(ended.code, 0);
        printed.push_str(&ended.stdout);
        printed.push_str(&ended.stderr);
    }
    for word in ["nobody", "nowhere.invalid", "unknown", "no-tls"] {
        assert!(printed.contains(word), "what was searched is what was meant: {word}\n{printed}");
    }
    for canary in CANARIES {
        if let Some(at) = printed.find(canary) {
            panic!("{canary} was printed: {}", &printed[at.saturating_sub(200)..]);
        }
    }
}
