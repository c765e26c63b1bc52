//! The TLS handshake of one connection: what its ClientHello says, whether it is answered, and who the client proves to be.
//!
//! `connection` waits for it with a time limit. Which versions, suites and certificates are good is the policy's and
//! rustls's business.

use std::{io, sync::Arc, time::Duration};

use enforcer_common::answer::POISON;
use rustls::server::Acceptor;
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

/// How long tickets wait for a first answer to go with. No client waits for them: they are for its next connection.
const TICKETS: Duration = Duration::from_millis(20);

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
            // Before TLS 1.3 the client waits for the last word of a handshake.
            let is_new = tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
            below.go_on(if is_new { TICKETS } else { Duration::ZERO });
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
