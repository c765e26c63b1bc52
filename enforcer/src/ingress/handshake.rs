//! The TLS handshake of one connection: what its ClientHello says, whether it is answered, and who the client proves to be.
//!
//! `connection` waits for it with a time limit. Which versions, suites and certificates are good is the policy's and
//! rustls's business.

use std::{io, sync::Arc, time::Duration};

use enforcer_common::answer::POISON;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection, server::Acceptor};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::{
    hello, identity,
    recorded::Recorded,
    secured::{Early, Secured},
};
use crate::{
    agreement,
    checks::facts::{Client, ClientAddr, Hello},
    clock,
    config::{ServerName, TlsVersion, UnknownName},
    denial::Denial,
    policy::{Listener, hellos::Hellos},
};

/// The fatal alert `unrecognized_name` (RFC 6066 section 3) in a record of its own, as it stands before keys are agreed upon.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The fatal alert `access_denied` (RFC 8446 section 6.2), likewise.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// How long tickets of a whole handshake wait for a first answer to go with: they are for the client's next connection.
const TICKETS: Duration = Duration::from_millis(20);

/// How long the last part of a handshake waits for an answer to go with. Before TLS 1.3 the client waits for it. Who resumes a session has
/// used a ticket up, and may need the new one at once, if it opens several connections; and to look for a request a second time costs
/// more than the write that is saved. What came together with the end of the handshake is answered before either.
fn patience(tls: &ServerConnection) -> Duration {
    let is_new = tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let resumes = tls.handshake_kind() == Some(HandshakeKind::Resumed);
    if is_new && !resumes { TICKETS } else { Duration::ZERO }
}

/// A handshake that failed.
pub(super) struct Failed {
    /// What the client did wrong; `None` if it refused us, or the network broke.
    pub denial: Option<Denial>,
    /// For the log.
    pub error: io::Error,
    /// What its hello said, if there was a whole one.
    pub hello: Option<Hello>,
    /// The server that it asked for.
    pub server_name: Option<Box<str>>,
}

impl Failed {
    /// Whether it was a hello that offers nothing as good as `minimum`. rustls may have found something else wrong with it first:
    /// clients of old versions name no signature algorithms.
    pub(super) fn is_too_old(&self, minimum: TlsVersion) -> bool {
        let reason = self.error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let offered = self.hello.as_ref().map(|hello| hello.version);
        // What the program has poisoned it has refused.
        offered != Some(POISON)
            && (reason.is_some_and(agreement::is_too_old)
                || offered.is_some_and(|version| version < minimum.number()))
    }
}

/// Shakes hands. `lists` are those that hold for this client, and `rehearse` hears of what a dry run of them has spared.
pub(super) async fn shake(
    settings: &Listener,
    stream: Recorded,
    address: ClientAddr,
    lists: Option<&Hellos>,
    rehearse: impl Fn(Denial),
) -> Result<(Secured, Client), Box<Failed>> {
    let mut started = greet(stream).await?;
    let hello = started.io.take().as_deref().and_then(hello::read);
    // Whoever compares it later, with lists, certificates and the hosts of requests, finds one spelling.
    let asked = started.client_hello();
    let server_name = asked.server_name().map(|name| ServerName::plain(name).into_boxed_str());
    let judgement = lists.map(|lists| {
        let fingerprint = hello.as_ref().and_then(|hello| hello.fingerprint);
        lists.judge(server_name.as_deref(), fingerprint)
    });
    let judgement = judgement.unwrap_or_default();
    judgement.rehearsed.into_iter().flatten().for_each(&rehearse);
    if let Some(denial) = judgement.refused {
        let alert = if denial == Denial::TlsRefusedName { UNRECOGNIZED_NAME } else { ACCESS_DENIED };
        let told = started.io.write_all(&alert).await;
        let error = told.err().unwrap_or_else(|| io::Error::other("kernel.hellos"));
        return Err(Box::new(Failed { denial: Some(denial), error, hello, server_name }));
    }
    let known = server_name.as_deref().is_some_and(|name| settings.certificates.serve(name));
    if settings.unknown_name == UnknownName::Refuse && !known {
        let told = started.io.write_all(&UNRECOGNIZED_NAME).await;
        let error = told.err().unwrap_or_else(|| io::Error::other("no certificate for this server name"));
        return Err(Box::new(Failed { denial: Some(Denial::TlsUnknownName), error, hello, server_name }));
    }
    let tls = Arc::clone(&settings.tls);
    let shaken = if settings.early_data {
        // Such a listener asks for no certificates, so nothing that is looked at below comes later.
        Early::accept(started, tls).await.map(|early| Secured::Early(Box::new(early)))
    } else {
        started.io.begin();
        let complete = started.into_stream(tls).await;
        complete.map(|mut stream| {
            let (below, tls) = stream.get_mut();
            below.go_on(patience(tls));
            Secured::Complete(stream)
        })
    };
    let stream = match shaken {
        Ok(stream) => stream,
        Err(error) => return Err(failed(error, hello, server_name)),
    };
    let shown = stream.tls().peer_certificates().and_then(<[_]>::first);
    let identity = shown.and_then(|leaf| identity::read(leaf, clock::unix_now()));
    if identity.is_none() && (shown.is_some() || settings.needs_identity) {
        let error = io::Error::other("the client's certificate is missing or no longer valid");
        let denial = Some(Denial::TlsClientCertificate);
        return Err(Box::new(Failed { denial, error, hello, server_name }));
    }
    let client =
        Client { address, server_name, hello: hello.map(Box::new), identity: identity.map(Box::new) };
    Ok((stream, client))
}

/// Waits for a whole ClientHello. A future of its own, so that its room is free for the rest of the handshake.
async fn greet(stream: Recorded) -> Result<StartHandshake<Recorded>, Box<Failed>> {
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), stream);
    match (&mut acceptor).await {
        Ok(started) => Ok(started),
        Err(error) => {
            let bytes = acceptor.take_io().and_then(|mut stream| stream.take());
            let hello = bytes.as_deref().and_then(hello::read);
            Err(failed(error, hello, None))
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "whatever else rustls refuses is a failed handshake")]
fn failed(error: io::Error, hello: Option<Hello>, server_name: Option<Box<str>>) -> Box<Failed> {
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let denial = reason.and_then(|reason| match reason {
        rustls::Error::AlertReceived(_) => None,
        rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_) => {
            Some(Denial::TlsClientCertificate)
        }
        _ => Some(Denial::TlsHandshake),
    });
    Box::new(Failed { denial, error, hello, server_name })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
        crypto::aws_lc_rs::default_provider, version,
    };
    use rustls_pki_types::{PrivatePkcs8KeyDer, ServerName};

    use super::*;

    /// The server's end of a handshake that is over, tickets included.
    fn shaken(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> ServerConnection {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        while client.wants_write() || server.wants_write() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut &*bytes).unwrap();
            server.process_new_packets().unwrap();
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut &*bytes).unwrap();
            client.process_new_packets().unwrap();
        }
        server
    }

    #[test]
    fn only_the_tickets_of_a_whole_handshake_of_tls_1_3_wait() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        for (version, first) in [(&version::TLS13, TICKETS), (&version::TLS12, Duration::ZERO)] {
            let versions: [&'static SupportedProtocolVersion; 1] = [version];
            let provider = Arc::new(default_provider());
            let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
            let server = server.with_protocol_versions(&versions).unwrap().with_no_client_auth();
            let server =
                server.with_single_cert(vec![made.cert.der().clone()], key.clone_key().into()).unwrap();
            let client =
                ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).unwrap();
            let client = client.with_root_certificates(roots.clone()).with_no_client_auth();
            let (server, client) = (Arc::new(server), Arc::new(client));
            let whole = shaken(&client, &server);
            assert_eq!((whole.handshake_kind(), patience(&whole)), (Some(HandshakeKind::Full), first));
            let resumed = shaken(&client, &server);
            assert_eq!(
                (resumed.handshake_kind(), patience(&resumed)),
                (Some(HandshakeKind::Resumed), Duration::ZERO)
            );
        }
    }
}
