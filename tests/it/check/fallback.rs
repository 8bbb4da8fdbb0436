//! `check` of a target with `fallback = "replication"`: it is tried, and what it lacks is said.

use super::*;

/// Checks a server that settings name with a fallback.
pub(super) async fn check_with_fallback(server: &Server) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plimsoll.toml");
    let url = url(server);
    std::fs::write(
        &file,
        format!("[[targets]]\npostgres = \"{url}\"\nfallback = \"replication\"\n"),
    )
    .unwrap();
    check_with(&["--config", &file.display().to_string()]).await
}

#[tokio::test]
async fn the_statement_that_it_needs_is_printed_and_makes_it_work() {
    let server = server(20).await;
    // Without one nothing is said of it.
    assert_eq!(check(&url(&server)).await.grade("fallback"), "");
    let seen = check_with_fallback(&server).await;
    assert_eq!(seen.troubles(), [ALWAYS, "warning fallback"]);
    assert_eq!(seen.code, 0);
    let superuser = server.superuser().await.unwrap();
    for statement in seen.finding("fallback")["statements"].as_array().unwrap() {
        execute(&superuser, statement.as_str().unwrap()).await;
    }
    let seen = check_with_fallback(&server).await;
    assert!(seen.troubles().is_empty(), "{}", seen.json);
    assert_eq!(seen.grade("fallback"), "ok");
    let gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'plimsoll'";
    until_true(&superuser, gone).await;
}

#[tokio::test]
async fn a_server_without_walsenders_has_none_for_it() {
    let server = bare_server(20, &[("max_wal_senders", "0"), ("wal_level", "minimal")]).await;
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "CREATE ROLE plimsoll LOGIN REPLICATION IN ROLE pg_monitor").await;
    let seen = check_with_fallback(&server).await;
    let finding = seen.finding("fallback");
    assert_eq!(finding["grade"], "warning");
    assert!(finding["text"].as_str().unwrap().contains("max_wal_senders"), "{finding}");
}
