//! What stands between a client and a server that is not its own.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Passes everything on, but changes the process id in the backend's key, as every pooler does that
/// gives a client a connection of somebody else's.
pub(crate) async fn pooler(port: u16, listener: TcpListener) {
    // The message is as long as this on every server that speaks protocol 3.0.
    const KEY: &[u8] = b"K\0\0\0\x0c";
    let (mut client, _) = listener.accept().await.unwrap();
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let back = async {
        let mut bytes = vec![0; 65_536];
        loop {
            let count = from_server.read(&mut bytes).await.unwrap_or(0);
            if count == 0 {
                return;
            }
            let key = bytes[..count].windows(KEY.len()).position(|window| window == KEY);
            if let Some(at) = key {
                bytes[at + KEY.len() + 3] ^= 1;
            }
            to_client.write_all(&bytes[..count]).await.unwrap();
        }
    };
    tokio::select! {
        () = back => {}
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
    }
}
