//! What is no console, and speaks all the same: each is said, and none takes us with it.

use super::*;

/// Where something listens that does this with its first connection, and nothing with others.
async fn listening<F>(answer: impl FnOnce(TcpStream) -> F + Send + 'static) -> (String, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream).await;
        std::future::pending::<()>().await;
    });
    (format!("postgresql://stats@127.0.0.1:{port}/pgbouncer?sslmode=disable"), tasks)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind], length.to_be_bytes().as_slice(), body].concat()
}

/// `AuthenticationOk`, a parameter, and that it is ready.
fn greeting() -> Vec<u8> {
    let parameter = message(b'S', b"server_version\x001.18.0/bouncer\0");
    [message(b'R', &[0; 4]), parameter, message(b'Z', b"I")].concat()
}

fn row_description(columns: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for column in columns {
        body.extend(
            [column.as_bytes(), &[0; 7], &[0, 0, 0, 25, 0xff, 0xff], &[0xff; 4], &[0; 2]].concat(),
        );
    }
    message(b'T', &body)
}

fn row(values: &[&[u8]]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(*value);
    }
    message(b'D', &body)
}

fn done() -> Vec<u8> {
    [message(b'C', b"SHOW\0"), message(b'Z', b"I")].concat()
}

/// Reads the next message, or the startup packet, to its end.
async fn hear(stream: &mut TcpStream, has_kind: bool) -> Option<Vec<u8>> {
    if has_kind {
        stream.read_u8().await.ok()?;
    }
    let length = stream.read_u32().await.ok()?;
    let mut body = vec![0; usize::try_from(length).ok()?.checked_sub(4)?];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

/// A console that answers with what is written here: `SHOW VERSION` first, the rest by its words.
async fn console(mut stream: TcpStream, pools: Vec<u8>, others: Vec<u8>) {
    hear(&mut stream, false).await;
    stream.write_all(&greeting()).await.unwrap();
    while let Some(asked) = hear(&mut stream, true).await {
        let asked = String::from_utf8(asked).unwrap();
        let answer = if asked.contains("VERSION") {
            [row_description(&["version"]), row(&[b"PgBouncer 1.99.0"]), done()].concat()
        } else if asked.contains("POOLS") {
            pools.clone()
        } else {
            others.clone()
        };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

async fn check(expected: FailureKind, words: &str, (url, _tasks): (String, JoinSet<()>)) {
    let told = PoolerSettings { timeout: Duration::from_secs(20), ..told(&url) };
    let failure = Watched::start(&told).fails(expected).await;
    assert!(failure.text.contains(words), "{failure:?}");
    assert!(failure.text.len() < 1_000, "{failure:?}");
}

fn error(code: &str, severity: &str, words: &str) -> Vec<u8> {
    let fields = format!("S{severity}\0V{severity}\0C{code}\0M{words}\0\0");
    message(b'E', fields.as_bytes())
}

#[tokio::test]
async fn what_speaks_no_protocol_is_told_as_that() {
    let http = listening(|mut stream| async move {
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await);
    });
    let failure = Watched::start(&told(&http.await.0)).failure().await;
    assert!(matches!(failure.kind, FailureKind::Unsupported | FailureKind::Stopped), "{failure:?}");
    let closes = listening(|stream| async move { drop(stream) }).await;
    check(FailureKind::Stopped, "logging in", closes).await;
    let endless = listening(|mut stream| async move {
        hear(&mut stream, false).await;
        drop(stream.write_all(&message(b'R', &[0; 4])).await);
        while stream.write_all(&message(b'N', &[b'x'; 16 * 1024])).await.is_ok() {}
    });
    check(FailureKind::Unsupported, "more than 1048576 bytes to a login", endless.await).await;
}

#[tokio::test]
async fn answers_without_end_are_not_listened_to() {
    // A gigabyte in one row.
    let large = listening(|stream| async move {
        let mut large = row_description(&["database", "user"]);
        large.extend([b"D", (1_u32 << 30).to_be_bytes().as_slice()].concat());
        large.extend(vec![b'x'; 32 * 1024 * 1024]);
        console(stream, large, done()).await;
    });
    check(FailureKind::Unsupported, "more than 16777216 bytes", large.await).await;
    // Rows without end.
    let many = listening(|stream| async move {
        let rows = row(&[b"a", b"b"]).repeat(200_000);
        let many = [row_description(&["database", "user"]), rows, done()].concat();
        console(stream, many, done()).await;
    });
    check(FailureKind::Unsupported, "more than 30000 rows", many.await).await;
}

#[tokio::test]
async fn pools_without_columns_rows_or_numbers_are_no_pools() {
    let answers = |pools: Vec<u8>| listening(|stream| console(stream, pools, done()));
    let pools = |columns: &[&str], values: &[&[u8]]| {
        [row_description(columns), row(values), done()].concat()
    };
    let unsupported = FailureKind::Unsupported;
    check(unsupported, "has no columns database and user", answers(done()).await).await;
    let strange = pools(&["a", "b"], &[b"1", b"2"]);
    check(unsupported, "has no columns database and user", answers(strange).await).await;
    let words = pools(&["database", "user", "cl_active"], &[b"d", b"u", b"many"]);
    check(unsupported, "has no number for cl_active", answers(words).await).await;
    // A row with more values than there are columns.
    let torn = [row_description(&["database"]), row(&[b"d", b"u"]), done()].concat();
    check(unsupported, "cannot be read", answers(torn).await).await;
    let refused = [error("08P01", "ERROR", "unknown command"), message(b'Z', b"I")].concat();
    check(unsupported, "SHOW POOLS was refused: unknown command", answers(refused).await).await;
    let rights = [error("42501", "ERROR", "admin access needed"), message(b'Z', b"I")].concat();
    check(FailureKind::NotAllowed, "stats_users", answers(rights).await).await;
    let ends = [error("08P01", "FATAL", "shutting down")].concat();
    check(FailureKind::Stopped, "shutting down", answers(ends).await).await;
}

/// What is not needed may be missing, refused or nonsense: the pools are still told.
#[tokio::test]
async fn a_console_with_pools_and_nothing_else_is_read() {
    let name = b"caf\xe9".as_slice();
    let columns = ["database", "user", "cl_active", "cl_waiting", "maxwait", "maxwait_us"];
    let pools = [
        row_description(&columns),
        row(&[b"shop", name, b"3", b"", b"0", b"700000"]),
        row(&[b"pgbouncer", b"pgbouncer", b"1", b"0", b"0", b"0"]),
        done(),
    ]
    .concat();
    let refused = [error("42000", "ERROR", "no such command"), message(b'Z', b"I")].concat();
    for others in [refused, done(), [row_description(&["x"]), row(&[b"1"]), done()].concat()] {
        let pools = pools.clone();
        let (url, _tasks) = listening(|stream| console(stream, pools, others)).await;
        let watched = Watched::start(&told(&url));
        let seen = watched.next().await.outcome.unwrap();
        assert_eq!(seen.pools.len(), 1);
        let shop = &seen.pools[0];
        assert_eq!((shop.user.as_str(), shop.cl_active), ("(not UTF-8)", Some(3)));
        assert_eq!((shop.cl_waiting, shop.wait_seconds), (None, Some(0.7)));
        assert_eq!((seen.clients, seen.paused, seen.databases.len()), (None, None, 0));
        assert_eq!((seen.sockets.clone(), seen.counters.len()), (None, 0));
        assert!(seen.refused.contains(&"SHOW DATABASES".to_owned()), "{:?}", seen.refused);
        watched.end().await;
    }
}

/// It stops half-way through an answer.
#[tokio::test]
async fn half_an_answer_is_none() {
    let (url, _tasks) = listening(|stream| {
        let half = [row_description(&["database", "user"]), row(&[b"a", b"b"])].concat();
        console(stream, half, done())
    })
    .await;
    let told = PoolerSettings { timeout: Duration::from_millis(500), ..told(&url) };
    let failure = Watched::start(&told).fails(FailureKind::TooSlow).await;
    assert_eq!(failure.text, "no answer to SHOW POOLS in 0.5 s");
}
