//! What connection strings come to, and what is said of those that cannot be used.

use std::collections::BTreeMap;

use plimsoll_core::settings::ServiceFile;
use proptest::prelude::*;

use super::*;

fn tls_words(tls: &TlsSettings) -> String {
    let roots = match &tls.roots {
        Roots::File(path) => format!(" {}", path.display()),
        Roots::UserFile(path) => format!(" {}?", path.display()),
        Roots::System => String::new(),
    };
    format!("{:?}{roots}{}", tls.mode, if tls.direct { " direct" } else { "" })
}

fn parse(text: &str) -> Result<ConnInfo, ConnInfoError> {
    ConnInfo::parse(&Secret::new(text))
}

/// Address, default name, user, password, database, TLS.
fn check(text: &str, expected: [&str; 6]) {
    let info = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let seen = [
        info.address(),
        info.default_name(),
        info.user.unwrap_or_default(),
        info.password.map(|p| p.expose().to_owned()).unwrap_or_default(),
        info.dbname,
        tls_words(&info.tls),
    ];
    assert_eq!(seen, expected, "{text}");
}

#[test]
fn urls_are_read_as_libpq_reads_them() {
    check("postgresql://db", ["db:5432", "db", "", "", "postgres", "Prefer"]);
    check(
        "postgres://plimsoll:p%40ss%3Aw%2Frd@db.example:6432/app?sslmode=require",
        ["db.example:6432", "db.example", "plimsoll", "p@ss:w/rd", "app", "Require"],
    );
    check(
        "postgresql://u@[2001:db8::1]:5433/?sslmode=disable",
        ["[2001:db8::1]:5433", "2001:db8::1", "u", "", "postgres", "Disable"],
    );
    let socket = ["/run/pg/.s.PGSQL.5433", "localhost", "u", "", "app", "Prefer"];
    check("postgresql:///app?host=/run/pg&port=5433&user=u", socket);
    check("postgresql://u@%2Frun%2Fpg:5433/app", socket);
    check(
        "postgresql://",
        ["/var/run/postgresql/.s.PGSQL.5432", "localhost", "", "", "postgres", "Prefer"],
    );
    // Everything before the last '@' is the login, as people write it and libpq does not.
    check("postgresql://u:p@ss@db/", ["db:5432", "db", "u", "p@ss", "postgres", "Prefer"]);
    check(
        "postgresql://db?sslmode=verify-full&sslrootcert=/ca.pem",
        ["db:5432", "db", "", "", "postgres", "VerifyFull /ca.pem"],
    );
    check(
        "postgresql://db?sslmode=verify-full&sslrootcert=system",
        ["db:5432", "db", "", "", "postgres", "VerifyFull"],
    );
}

#[test]
fn pairs_are_read_as_libpq_reads_them() {
    check(
        r"host = db port=5433 user='o\'brien' password = 'a b\\c' dbname=app",
        ["db:5433", "db", "o'brien", r"a b\c", "app", "Prefer"],
    );
    check(
        "hostaddr=10.0.0.7 user=a user=b password='' connect_timeout=3",
        ["10.0.0.7:5432", "10.0.0.7", "b", "", "postgres", "Prefer"],
    );
    check(
        "host=/run/pg sslmode=require",
        ["/run/pg/.s.PGSQL.5432", "localhost", "", "", "postgres", "Require"],
    );
    let both = parse("host=db.example hostaddr=10.0.0.7").unwrap();
    assert_eq!(both.address(), "db.example:5432");
    let Place::Tcp { address, .. } = &both.hosts[0].place else { panic!("not TCP") };
    assert_eq!(*address, Some("10.0.0.7".parse().unwrap()));
}

#[test]
fn what_is_wrong_is_said_without_any_part_of_the_text() {
    // Each has "canary" where a password is, or may be by mistake.
    let cases = [
        (
            "",
            "is empty, and no PGHOST or PGSERVICE says where the server is; expected postgresql://",
        ),
        ("mysql://u:canary@db", "it begins with postgresql:// or postgres://"),
        ("canary", "is neither a URL nor key=value pairs: a word stands without '='"),
        ("password=my canary host=db", "a word stands without '='"),
        ("password='canary", "a quoted value has no closing quote"),
        ("postgresql://u:my?canary@db", "an '@' stands behind a '/' or '?'"),
        ("postgresql://u:my/canary@db", "an '@' stands behind a '/' or '?'"),
        ("postgresql://u:canary%4@db", "a '%' is not followed by two hexadecimal digits"),
        ("postgresql://u:canary@db:port", "has a port that cannot be used"),
        ("postgresql://u:canary@db:0", "expected a number from 1 to 65535"),
        ("postgresql://u:canary@::1/", "an IPv6 address stands in '[' and ']'"),
        ("postgresql://u:canary@[::1/", "an IPv6 address has no closing ']'"),
        ("postgresql://u:canary@a:1,b:2,c/?port=1,2", "lists 3 hosts and 2 ports; expected one"),
        ("host=a,b password=canary hostaddr=::1", "lists 2 hosts and 1 addresses"),
        ("host=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,canary", "lists more than 16 hosts"),
        ("host=a,b port=1,canary", "has a port that cannot be used"),
        ("host=db canary=1", "has an unknown parameter, number 2"),
        ("host=db ssl_mode=canary", "number 2; did you mean sslmode?"),
        ("postgresql://db?database=canary", "did you mean dbname?"),
        ("postgresql://db?sslmode=canary", "expected disable, allow, prefer, require, verify-ca"),
        ("postgresql://db?sslmode=verify-ca", "a file of certificates beside sslmode=verify-ca"),
        ("host=db sslrootcert=system sslmode=require", "verify-full beside sslrootcert=system"),
        ("host=db sslcert=canary", "has a sslcert that cannot be used; expected sslkey beside it"),
        ("host=db sslcertmode=canary", "expected disable or allow"),
        ("host=db sslnegotiation=direct", "sslmode=require or stronger beside direct"),
        ("host=db sslpassword=canary", "sets sslpassword, which is not supported"),
        ("host=db sslcrl=canary", "sets sslcrl, which is not supported"),
        ("host=db requireauth=canary", "sets requireauth, which is not supported"),
        ("host=db gssencmode=require", "has a gssencmode that cannot be used; expected disable"),
        ("host=db channel_binding=canary", "expected disable, prefer or require"),
        ("host=db load_balance_hosts=canary", "expected disable or random"),
        ("service=canary", "names a service that is not defined; there is no file of services"),
        ("host=db target_session_attrs=canary", "read-only, primary, standby or prefer-standby"),
        ("hostaddr=canary", "has a hostaddr that cannot be used; expected an IP address"),
    ];
    for (text, expected) in cases {
        let error = parse(text).unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(said.contains(expected), "{text}: {said}");
        assert!(!said.contains("canary"), "{text}: {said}");
    }
}

#[test]
fn a_password_is_not_printed() {
    let info = parse("postgresql://u:canary@db").unwrap();
    assert!(!format!("{info:?}").contains("canary"));
}

#[test]
fn several_hosts_are_lists() {
    let hosts = |text: &str| parse(text).unwrap().address();
    assert_eq!(hosts("postgresql://u:p,w@a:1,b,[::1]:3/db"), "a:1,b:5432,[::1]:3");
    assert_eq!(hosts("postgresql://a,b/?port=7"), "a:7,b:7");
    assert_eq!(hosts("host=a,/run/pg port=1,2"), "a:1,/run/pg/.s.PGSQL.2");
    assert_eq!(hosts("host=a,,b"), "a:5432,/var/run/postgresql/.s.PGSQL.5432,b:5432");
    assert_eq!(hosts("host=a,b hostaddr=10.0.0.1,10.0.0.2 port=,9"), "a:5432,b:9");
    assert_eq!(hosts("hostaddr=10.0.0.1,::1"), "10.0.0.1:5432,[::1]:5432");
    let info = parse("host=a,b target_session_attrs=read-write load_balance_hosts=random").unwrap();
    assert_eq!((info.wanted, info.at_random), (Wanted::ReadWrite, true));
    assert_eq!(info.default_name(), "a");
}

/// A home, variables and a file of services.
fn around(variables: &[(&str, &str)], services: &str) -> Surroundings {
    let variable = |(name, value): &(&str, &str)| ((*name).to_owned(), Secret::new(*value));
    let text = Ok(Some(Secret::new(services)));
    Surroundings {
        variables: variables.iter().map(variable).collect(),
        home: Some("/home/op".into()),
        service_files: vec![ServiceFile { path: "/etc/services".into(), text }],
    }
}

/// What is talked to: user, address, database, TLS.
fn talks_to(text: &str, around: &Surroundings) -> String {
    match ConnInfo::parse_in(&Secret::new(text), around) {
        Ok(info) => format!(
            "{}@{}/{} {}",
            info.user.clone().unwrap_or_default(),
            info.address(),
            info.dbname,
            tls_words(&info.tls)
        ),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_text_wins_over_its_service_and_that_over_variables() {
    let services = "[eu]\nhost=db.eu\nport=6432\nuser=of-service\nsslmode=disable\n";
    let variables = [
        ("PGHOST", "db.env"),
        ("PGPORT", "7432"),
        ("PGUSER", "of-env"),
        ("PGDATABASE", "env"),
        ("PGSSLMODE", "require"),
    ];
    let all = around(&variables, services);
    let roots = "/home/op/.postgresql/root.crt?";
    let cases = [
        ("", format!("of-env@db.env:7432/env Require {roots}")),
        ("service=eu", format!("of-service@db.eu:6432/env Disable {roots}")),
        ("service=eu host=a user=b", format!("b@a:6432/env Disable {roots}")),
        ("postgresql://u@db:1/x?sslmode=allow", format!("u@db:1/x Allow {roots}")),
        ("postgresql:///x?service=eu", format!("of-service@db.eu:6432/x Disable {roots}")),
        // Said to be empty: nothing is taken from elsewhere.
        ("host='' user=u", format!("u@/var/run/postgresql/.s.PGSQL.7432/env Require {roots}")),
        ("service='' user=u", format!("u@db.env:7432/env Require {roots}")),
    ];
    for (text, expected) in cases {
        assert_eq!(talks_to(text, &all), expected, "{text}");
    }
    let chosen = around(&[("PGSERVICE", "eu"), ("PGHOST", "db.env")], services);
    assert_eq!(talks_to("", &chosen), format!("of-service@db.eu:6432/postgres Disable {roots}"));
    let missing = around(&[("PGSERVICE", "canary")], services);
    let said = "names a service that is not defined; looked in /etc/services";
    assert_eq!(talks_to("host=db", &missing), said);
}

/// Where a server is comes from one place: an address of the environment would make all targets
/// the same server, whatever they are called.
#[test]
fn an_address_from_elsewhere_is_not_mixed_with_a_host() {
    let around = around(&[("PGHOSTADDR", "10.0.0.9"), ("PGHOST", "db.env")], "");
    let place = |text: &str| {
        ConnInfo::parse_in(&Secret::new(text), &around).unwrap().hosts[0].place.clone()
    };
    let tcp = |host: &str, address: Option<&str>| Place::Tcp {
        host: host.to_owned(),
        address: address.map(|address| address.parse().unwrap()),
    };
    assert_eq!(place("user=u"), tcp("db.env", Some("10.0.0.9")));
    assert_eq!(place("host=db"), tcp("db", None));
    assert_eq!(place("hostaddr=10.0.0.1"), tcp("10.0.0.1", Some("10.0.0.1")));
}

#[test]
fn nothing_around_an_empty_text_is_a_mistake() {
    for variables in [&[][..], &[("PGUSER", "u"), ("PGPORT", "1")][..], &[("PGHOST", "")][..]] {
        let said = talks_to("", &around(variables, ""));
        assert!(said.starts_with("is empty"), "{variables:?}: {said}");
    }
}

#[test]
fn the_password_and_its_file() {
    let password = |text: &str, variables: &[(&str, &str)]| {
        let around = around(variables, "[s]\npassword=of-service\n");
        let info = ConnInfo::parse_in(&Secret::new(text), &around).unwrap();
        assert!(!format!("{info:?}").contains("of-"), "{info:?}");
        let password = info.password.map(|password| password.expose().to_owned());
        (password.unwrap_or_default(), info.passfile.unwrap().display().to_string())
    };
    let env = [("PGPASSWORD", "of-env"), ("PGPASSFILE", "/pass")];
    let home = "/home/op/.pgpass".to_owned();
    assert_eq!(password("host=a password=of-text", &env), ("of-text".into(), "/pass".into()));
    assert_eq!(password("host=a service=s", &env), ("of-service".into(), "/pass".into()));
    assert_eq!(password("host=a", &env), ("of-env".into(), "/pass".into()));
    assert_eq!(password("host=a", &[]), (String::new(), home.clone()));
    // Said to be empty, it is looked up in the file alone.
    assert_eq!(password("host=a password=''", &env[..1]), (String::new(), home));
    assert_eq!(password("host=a passfile=/mine", &env).1, "/mine");
    let alone = parse("host=a").unwrap();
    assert_eq!((alone.passfile, alone.tls.own), (None, None));
}

#[test]
fn certificates_of_the_user_are_found_at_home() {
    let own = |text: &str| {
        let info = ConnInfo::parse_in(&Secret::new(text), &around(&[], "")).unwrap();
        info.tls.own.map(|own| {
            let (certificate, key) = (own.certificate.display(), own.key.display());
            format!("{certificate} {key} {}", own.required)
        })
    };
    let folder = "/home/op/.postgresql";
    let theirs = format!("{folder}/postgresql.crt {folder}/postgresql.key false");
    assert_eq!(own("host=a"), Some(theirs));
    assert_eq!(own("host=a sslcert=/c"), Some(format!("/c {folder}/postgresql.key true")));
    assert_eq!(own("host=a sslcert=/c sslkey=/k"), Some("/c /k true".to_owned()));
    assert_eq!(own("host=a sslcert=/c sslkey=/k sslcertmode=disable"), None);
    let words = |text: &str| talks_to(text, &around(&[], ""));
    assert!(words("host=a sslmode=verify-ca").ends_with(&format!("VerifyCa {folder}/root.crt?")));
    assert!(words("host=a sslrootcert=system").ends_with("VerifyFull"));
    assert!(
        words("host=a sslrootcert=/r sslmode=require sslnegotiation=direct")
            .ends_with("Require /r direct")
    );
}

/// All that a connection string comes to, a line a part.
fn parts(info: &ConnInfo) -> Vec<String> {
    let hosts: Vec<String> = info.hosts.iter().map(|host| format!("{host:?}")).collect();
    let TlsSettings { mode, roots, own, direct } = &info.tls;
    let own = own.as_ref().map(|KeyFile { certificate, key, required }| {
        (certificate.display().to_string(), key.display().to_string(), *required)
    });
    vec![
        hosts.join(" "),
        format!("user {:?}", info.user),
        format!("password {:?}", info.password.as_ref().map(Secret::expose)),
        format!("passfile {:?}", info.passfile),
        format!("dbname {:?}", info.dbname),
        format!("options {:?}", info.options),
        format!("mode {mode:?}"),
        format!("roots {roots:?}"),
        format!("own {own:?}"),
        format!("direct {direct}"),
        format!("binding {:?}", info.channel_binding),
        format!("wanted {:?}", info.wanted),
        format!("at random {}", info.at_random),
        format!("application {:?}", info.application),
    ]
}

/// What a variable changes beside those that are always there, and nothing else.
#[test]
fn each_variable_that_is_documented_has_its_effect() {
    let home = "/home/op/.postgresql";
    let in_home = |certificate: &str, key: &str, required| {
        format!("own {:?}", Some((certificate, key.replace('~', home), required)))
    };
    let a_key = format!("{home}/postgresql.crt");
    let host = |place: &str, port| format!("Host {{ place: Tcp {{ {place} }}, port: {port} }}");
    let cases = [
        ("PGHOST", "other", host("host: \"other\", address: None", 5432)),
        ("PGHOSTADDR", "10.0.0.9", host("host: \"db\", address: Some(10.0.0.9)", 5432)),
        ("PGPORT", "6432", host("host: \"db\", address: None", 6432)),
        ("PGUSER", "me", "user Some(\"me\")".to_owned()),
        ("PGPASSWORD", "secret", "password Some(\"secret\")".to_owned()),
        ("PGPASSFILE", "/pass", "passfile Some(\"/pass\")".to_owned()),
        ("PGDATABASE", "app", "dbname \"app\"".to_owned()),
        ("PGOPTIONS", "-c geqo=off", "options Some(\"-c geqo=off\")".to_owned()),
        ("PGSSLMODE", "verify-full", "mode VerifyFull".to_owned()),
        ("PGSSLROOTCERT", "/ca.crt", "roots File(\"/ca.crt\")".to_owned()),
        ("PGSSLCERT", "/c", in_home("/c", "~/postgresql.key", true)),
        ("PGSSLKEY", "/k", in_home(&a_key, "/k", false)),
        ("PGSSLCERTMODE", "disable", "own None".to_owned()),
        ("PGSSLNEGOTIATION", "direct", "direct true".to_owned()),
        ("PGCHANNELBINDING", "require", "binding Require".to_owned()),
        ("PGTARGETSESSIONATTRS", "standby", "wanted Standby".to_owned()),
        ("PGLOADBALANCEHOSTS", "random", "at random true".to_owned()),
    ];
    let read = |variables: &[(&str, &str)]| {
        // `direct` is for those who insist on TLS.
        let always = [("PGHOST", "db"), ("PGSSLMODE", "require")];
        let around = around(&[&always, variables].concat(), "");
        parts(&ConnInfo::parse_in(&Secret::new(""), &around).unwrap())
    };
    let before = read(&[]);
    for (name, value, expected) in &cases {
        let changed: Vec<_> =
            read(&[(*name, *value)]).into_iter().filter(|part| !before.contains(part)).collect();
        assert_eq!(changed, [expected.as_str()], "{name}");
    }
    // These are all, in this order.
    let page = include_str!("../../../docs/configuration.md");
    let list = page.split_once("3. the variables ").unwrap().1.split_once("They are").unwrap().0;
    let documented: Vec<&str> = list.split('`').filter(|word| word.starts_with("PG")).collect();
    assert_eq!(cases.map(|(name, ..)| name).to_vec(), documented);
}

#[test]
fn what_is_wrong_around_the_text_is_said_with_its_place() {
    let cases = [
        (("PGSSLMODE", "canary"), "", "has a sslmode (from PGSSLMODE) that cannot be used"),
        (("PGPORT", "canary"), "", "has a port (from PGPORT) that cannot be used"),
        (("PGSSLCRL", "canary"), "", "sets sslcrl (from PGSSLCRL), which is not supported"),
        (("PGREQUIREAUTH", "canary"), "", "sets requireauth (from PGREQUIREAUTH)"),
        (("PGGSSENCMODE", "require"), "", "has a gssencmode (from PGGSSENCMODE)"),
        (("PGSERVICE", "s"), "[s]\nport=canary", "a port (from line 2 of /etc/services)"),
        (("PGSERVICE", "s"), "[s]\n\nsslcrl=canary", "sslcrl (from line 3 of /etc/services)"),
        (("PGSERVICE", "s"), "[s]\ncanary", "line 2 of /etc/services has no '='"),
    ];
    for (variable, services, expected) in cases {
        let said = talks_to("host=db", &around(&[variable], services));
        assert!(said.contains(expected), "{variable:?} {services}: {said}");
        assert!(!said.contains("canary"), "{said}");
    }
    // What the text says itself is not looked up elsewhere, and not found wrong there.
    let wrong = around(&[("PGSSLMODE", "canary")], "");
    assert!(talks_to("host=db sslmode=disable", &wrong).contains("Disable"));
    // Variables of other programs, and those of the session alone, are nothing to us.
    let others = around(&[("PGDATA", "/x"), ("PGTZ", "UTC"), ("PGAPPNAME", "psql")], "");
    assert!(talks_to("host=db", &others).starts_with("@db:5432"));
}

proptest! {
    /// Whatever surrounds it, an error shows nothing of a value.
    #[test]
    fn no_value_is_shown(
        keys in prop::collection::btree_map(
            prop::sample::select(vec![
                "PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE",
                "PGDATABASE", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGCHANNELBINDING",
                "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGGSSENCMODE", "PGSSLCRL",
            ]),
            "canary[,= a]{0,3}",
            0..6,
        ),
        text in "(host=|port=|sslmode=|service=|canary|[ =?@/:'\\\\,]){0,8}",
    ) {
        let variables: BTreeMap<&str, String> = keys;
        let list: Vec<(&str, &str)> = variables.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let around = around(&list, "[canary]\nport=canary\ncanary\n");
        if let Err(error) = ConnInfo::parse_in(&Secret::new(text), &around) {
            let said = format!("{error} {error:?}");
            prop_assert!(!said.contains("canary"), "{}", said);
        }
    }
}
