//! What `check` says of TLS to a target, and whether it says of the certificate what was done.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::*;

/// A file of the fixtures of TLS to Postgres.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/postgres/tls").join(name)
}

async fn server_with_tls() -> Server {
    let server = server(20).await;
    let folder = server.data_dir();
    let owner = std::fs::metadata(&folder).unwrap();
    for name in ["server.crt", "server.key"] {
        let path = folder.join(name);
        std::fs::copy(fixture(name), &path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let superuser = server.superuser().await.unwrap();
    execute(&superuser, "ALTER SYSTEM SET ssl = on").await;
    execute(&superuser, "SELECT pg_reload_conf()").await;
    until_true(&superuser, "SELECT current_setting('ssl') = 'on'").await;
    server
}

/// Checks it by the name that its certificate is for.
async fn check_by_name(server: &Server, parameters: &str, variables: &[(&str, &str)]) -> Checked {
    let port = server.port();
    let place = format!("host=localhost hostaddr=127.0.0.1 port={port} user=plimsoll");
    check_in(&["--postgres", &format!("{place} {parameters}")], variables).await
}

#[tokio::test]
async fn tls_as_the_server_sees_it_and_the_certificate_as_it_was_checked() {
    let server = server_with_tls().await;
    let roots = format!("sslrootcert={}", fixture("ca.crt").display());
    let home = tempfile::tempdir().unwrap();
    let (empty, with_roots) = (home.path().join("empty"), home.path().join("with-roots"));
    std::fs::create_dir_all(&empty).unwrap();
    std::fs::create_dir_all(with_roots.join(".postgresql")).unwrap();
    std::fs::copy(fixture("ca.crt"), with_roots.join(".postgresql/root.crt")).unwrap();
    let unchecked = "but the certificate is not checked";
    let of_authority = "and the certificate is checked, but not which host it is for";
    let of_host = "and the certificate is checked";
    let cases = [
        ("sslmode=prefer".to_owned(), &empty, unchecked),
        (format!("sslmode=prefer {roots}"), &with_roots, unchecked),
        ("sslmode=require".to_owned(), &empty, unchecked),
        ("sslmode=require".to_owned(), &with_roots, of_authority),
        (format!("sslmode=require {roots}"), &empty, of_authority),
        (format!("sslmode=verify-ca {roots}"), &empty, of_authority),
        (format!("sslmode=verify-full {roots}"), &empty, of_host),
        ("sslmode=verify-full".to_owned(), &with_roots, of_host),
    ];
    for (parameters, home, expected) in cases {
        let seen = check_by_name(&server, &parameters, &[("HOME", home.to_str().unwrap())]).await;
        let finding = seen.finding("tls");
        let text = finding["text"].as_str().unwrap();
        let case = format!("{parameters} {}: {finding}", home.display());
        assert!(text.starts_with("TLSv1.3 (TLS_"), "{case}");
        assert!(text.ends_with(&format!("), {expected}")), "{case}");
        let hint = finding["hint"].as_str();
        assert_eq!(hint.is_some_and(|hint| hint.contains("verify-full")), expected != of_host);
        assert_eq!(finding["grade"], "ok", "{case}");
    }
}

#[tokio::test]
async fn the_authorities_of_this_machine_are_those_that_are_trusted() {
    let server = server_with_tls().await;
    let of_machine = async |roots: &str| {
        let file = fixture(roots).display().to_string();
        check_by_name(&server, "sslrootcert=system", &[("SSL_CERT_FILE", &file)]).await
    };
    let seen = of_machine("ca.crt").await;
    let text = seen.finding("tls")["text"].as_str().unwrap();
    assert!(text.ends_with("), and the certificate is checked"), "{text}");
    assert_eq!(seen.code, 0);
    let seen = of_machine("other-ca.crt").await;
    assert_eq!((seen.troubles(), seen.code), (vec!["wrong reach".to_owned()], 4));
    let text = seen.finding("reach")["text"].as_str().unwrap();
    assert!(text.contains("the authorities that this machine trusts"), "{text}");
}
