//! How many round trips a client waits for its first answer, whatever they take: counted between client and edge, by who speaks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use enforcer_tests::{
    edge::{NAME, Site},
    origin::Origin,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};
use rustls_pki_types::ServerName;

const PATIENCE: Duration = Duration::from_secs(20);

/// Who spoke, each change noted.
type Flights = Arc<Mutex<Vec<&'static str>>>;

/// A relay for one connection, and who spoke on it.
fn relay(to: SocketAddr) -> Result<(SocketAddr, Flights)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, flights) = (listener.local_addr()?, Flights::default());
    let shared = Arc::clone(&flights);
    std::thread::spawn(move || -> Result<()> {
        let (client, _) = listener.accept()?;
        let server = TcpStream::connect(to)?;
        for (mut from, mut to, who) in
            [(client.try_clone()?, server.try_clone()?, "client"), (server, client, "server")]
        {
            from.set_read_timeout(Some(PATIENCE))?;
            let flights = Arc::clone(&shared);
            std::thread::spawn(move || {
                let mut piece = [0; 16 << 10];
                while let Ok(count @ 1..) = from.read(&mut piece) {
                    let mut flights = flights.lock().unwrap();
                    if flights.last() != Some(&who) {
                        flights.push(who);
                    }
                    drop(flights);
                    if to.write_all(&piece[..count]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Write);
            });
        }
        Ok(())
    });
    Ok((address, flights))
}

#[tokio::test]
async fn a_new_connection_has_its_answer_in_three_round_trips() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    let mut roots = RootCertStore::empty();
    roots.add(edge.site.authority.certificate())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    // The second one resumes the session of the first.
    for _ in 0..2 {
        let (address, flights) = relay(edge.address)?;
        let config = Arc::clone(&config);
        let answer = tokio::task::spawn_blocking(move || -> Result<Vec<u8>> {
            let mut tls = ClientConnection::new(config, ServerName::try_from(NAME)?)?;
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            // What is asked goes out with the end of the handshake.
            let request = format!("GET /public/x HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
            tls.writer().write_all(request.as_bytes())?;
            let mut answer = Vec::new();
            Stream::new(&mut tls, &mut stream).read_to_end(&mut answer)?;
            Ok(answer)
        });
        assert!(answer.await??.starts_with(b"HTTP/1.1 200"));
        // One round trip of TCP comes before these two; what follows says that the client has gone.
        let flights = flights.lock().unwrap().clone();
        assert_eq!(flights[..4], ["client", "server", "client", "server"]);
        assert!(flights.len() <= 5, "{flights:?}");
    }
    Ok(())
}
