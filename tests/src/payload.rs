//! An app's side of encrypted bodies: keys, requests in every form, and answers.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey},
    encoding::{AsDer as _, Pkcs8V1Der},
    rand::fill,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use enforcer::{
    clock::unix_now,
    config::{self, PayloadFormat, PayloadKey},
    sealed::{
        Answered, Head, Place, Refused, hpke, jwe,
        keys::{Curve, Private, Public},
        layout,
    },
};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use std::{fs, path::Path, time::Duration};

use crate::{
    edge::{Outgoing, Site, route},
    signing::nonce,
};

/// What bodies are, unless a test says otherwise.
pub const KIND: &str = "application/json";
/// Bytes of a body, at most.
pub const MOST: u64 = 64 << 10;
const MOST_ANSWER: usize = 1 << 20;
/// RFC 8410 section 7: what stands before the 32 bytes.
const X25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20];

/// Every form and curve.
pub const FORMS: [(Form, Curve); 8] = [
    (Form::Jwe(jwe::Alg::Direct), Curve::P256),
    (Form::Jwe(jwe::Alg::Wrapped), Curve::P256),
    (Form::Hpke, Curve::P256),
    (Form::Layout, Curve::P256),
    (Form::Jwe(jwe::Alg::Direct), Curve::X25519),
    (Form::Jwe(jwe::Alg::Wrapped), Curve::X25519),
    (Form::Hpke, Curve::X25519),
    (Form::Layout, Curve::X25519),
];

/// How a body is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RFC 7516.
    Jwe(jwe::Alg),
    /// RFC 9180.
    Hpke,
    /// What apps already use.
    Layout,
}

/// A new private key in PEM.
pub fn pem(curve: Curve) -> Result<String> {
    let der = match curve {
        Curve::P256 => {
            let key = PrivateKey::generate(&ECDH_P256).map_err(|_| anyhow!("no key"))?;
            let der: Pkcs8V1Der<'_> = key.as_der().map_err(|_| anyhow!("no DER"))?;
            der.as_ref().to_vec()
        }
        Curve::X25519 => {
            let mut seed = [0; 32];
            fill(&mut seed).map_err(|_| anyhow!("no randomness"))?;
            [&X25519[..], &seed].concat()
        }
    };
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der)))
}

/// Writes a new key to a file; the public one.
pub fn write_key(file: &Path, curve: Curve) -> Result<Public> {
    let pem = pem(curve)?;
    fs::write(file, &pem)?;
    Ok(Private::from_pem(pem.as_bytes()).map_err(anyhow::Error::msg)?.public().clone())
}

/// `[payload.NAME]` with every form, and these keys.
pub fn section(keys: Vec<PayloadKey>) -> config::Payload {
    config::Payload {
        formats: vec![PayloadFormat::Jwe, PayloadFormat::Hpke, PayloadFormat::Layout],
        keys,
        keys_path: "/.well-known/enforcer/payload-keys".to_owned(),
        keys_max_age: Duration::from_secs(300),
        max_body_bytes: MOST,
        max_answer_bytes: MOST,
        window: Duration::from_secs(120),
        clock_skew: Duration::from_secs(60),
        content_type: KIND.to_owned(),
        plain: false,
    }
}

/// Adds `[payload.app]` with a key of each curve, `p256.pem` and `x25519.pem`, and a public route for it at `/sealed/`; uses are kept, so
/// that what is made at once is not in doubt.
pub fn add(site: &mut Site) -> Result<[Public; 2]> {
    let file = |name: &str| site.dir.path().join(name);
    let (p256, x25519) = (file("p256.pem"), file("x25519.pem"));
    let public = [write_key(&p256, Curve::P256)?, write_key(&x25519, Curve::X25519)?];
    let keys = [p256, x25519].map(|file| PayloadKey { file, id: None, until: None });
    site.config.payloads.insert("app".to_owned(), section(keys.to_vec()));
    site.config.replay.store = Some(file("replay.redb"));
    let mut route = route("/sealed/", None, &[]);
    route.payload = Some("app".to_owned());
    site.config.routes.push(route);
    Ok(public)
}

/// An app that knows a key of the server.
#[derive(Clone, Debug)]
pub struct App {
    /// The server's key.
    pub server: Public,
    /// Its id.
    pub key: String,
}

/// What an app encrypts.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// In which form.
    pub form: Form,
    /// Method.
    pub method: &'a str,
    /// Path, without a query.
    pub path: &'a str,
    /// What the body is; empty: not said.
    pub kind: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// Seconds since 1970.
    pub made: u64,
    /// In a field and not as a body.
    pub in_field: bool,
}

impl<'a> Order<'a> {
    /// A POST of now.
    pub fn post(form: Form, path: &'a str, body: &'a [u8]) -> Self {
        Self { form, method: "POST", path, kind: KIND, body, made: unix_now(), in_field: false }
    }

    /// A request of now that has no body.
    pub fn bare(form: Form, method: &'a str, path: &'a str) -> Self {
        Self { method, kind: "", in_field: true, ..Self::post(form, path, b"") }
    }
}

/// An encrypted request, and what opens its answer.
#[derive(Debug)]
pub struct Sent {
    /// Method.
    pub method: String,
    /// Path, to which a test may add a query.
    pub path: String,
    /// Fields.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Vec<u8>,
    key: String,
    opener: Opener,
}

#[derive(Debug)]
enum Opener {
    Jwe { own: Private, id: String, echo: [u8; jwe::ECHO] },
    Hpke { own: Private, once: [u8; hpke::ONCE] },
    Layout { session: layout::Session, iv: [u8; 12] },
}

fn refused(_: Refused) -> anyhow::Error {
    anyhow!("refused")
}

impl App {
    /// One that knows `server` by its thumbprint.
    pub fn new(server: &Public) -> Self {
        Self { server: server.clone(), key: server.thumbprint() }
    }

    /// Encrypts a request.
    pub fn seal(&self, order: &Order<'_>) -> Result<Sent> {
        let own = Private::generate(self.server.curve()).map_err(refused)?;
        let place = Place { method: order.method, path: order.path };
        let (to, key, made, kind) = (&self.server, self.key.as_str(), order.made, order.kind);
        let mut headers = Vec::new();
        let (body, opener) = match order.form {
            Form::Jwe(alg) => {
                let id = nonce();
                let mut echo = [0; jwe::ECHO];
                fill(&mut echo).map_err(|_| anyhow!("no randomness"))?;
                let answer_to = own.public();
                let request = jwe::Request { alg, to, key, made, id: &id, answer_to, kind, echo };
                headers.push(("content-type", "application/jose".to_owned()));
                (request.seal(place, order.body).map_err(refused)?, Opener::Jwe { own, id, echo })
            }
            Form::Hpke => {
                let mut once = [0; hpke::ONCE];
                fill(&mut once).map_err(|_| anyhow!("no randomness"))?;
                let request = hpke::Request { to, key, made, once, answer_to: own.public(), kind };
                headers.push(("content-type", "application/vnd.enforcer.hpke".to_owned()));
                (request.seal(place, order.body).map_err(refused)?, Opener::Hpke { own, once })
            }
            Form::Layout => {
                let session = layout::Session::of_app(&own, to, key).map_err(refused)?;
                let (body, iv) =
                    layout::request(&session, place, (key, made, kind), order.body).map_err(refused)?;
                headers.push(("payload-key", key.to_owned()));
                headers.push(("payload-session", URL_SAFE_NO_PAD.encode(own.public().bytes())));
                headers.push(("payload-time", made.to_string()));
                if !kind.is_empty() {
                    headers.push(("content-type", kind.to_owned()));
                }
                (body, Opener::Layout { session, iv })
            }
        };
        let mut sent = Sent {
            method: order.method.to_owned(),
            path: order.path.to_owned(),
            headers,
            body,
            key: key.to_owned(),
            opener,
        };
        if order.in_field {
            let body = std::mem::take(&mut sent.body);
            let text = if order.form == Form::Hpke {
                URL_SAFE_NO_PAD.encode(body)
            } else {
                String::from_utf8(body)?
            };
            sent.headers.retain(|(name, _)| *name != "content-type");
            sent.headers.push(("payload-sealed", text));
        }
        Ok(sent)
    }
}

impl Sent {
    /// As it is sent.
    pub fn request(&self) -> Result<Request<Outgoing>> {
        let mut builder = Request::builder().method(self.method.as_str()).uri(&self.path);
        for (name, value) in &self.headers {
            builder = builder.header(*name, value);
        }
        Ok(builder.body(Full::new(Bytes::from(self.body.clone())).boxed())?)
    }

    /// Opens an answer, which has to be of this request.
    pub async fn open(&self, response: Response<Incoming>) -> Result<(Answered, HeaderMap)> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((self.read(head.status.as_u16(), &head.headers, &body)?, head.headers))
    }

    /// The same of an answer in its parts.
    pub fn read(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Result<Answered> {
        let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let kind = field("content-type").unwrap_or_default();
        let sealed = match field("payload-sealed") {
            Some(_) if !body.is_empty() => bail!("a body beside the field"),
            Some(text) if matches!(self.opener, Opener::Hpke { .. }) => URL_SAFE_NO_PAD.decode(text)?,
            Some(text) => text.as_bytes().to_vec(),
            None => {
                let expected = match self.opener {
                    Opener::Jwe { .. } => Some("application/jose"),
                    Opener::Hpke { .. } => Some("application/vnd.enforcer.hpke"),
                    Opener::Layout { .. } => None,
                };
                ensure!(
                    expected.is_none_or(|expected| kind == expected),
                    "{} {kind}: {}",
                    status,
                    String::from_utf8_lossy(body)
                );
                body.to_vec()
            }
        };
        let path = self.path.split('?').next().unwrap_or_default();
        let place = Place { method: &self.method, path };
        let answered = match &self.opener {
            Opener::Jwe { own, id, echo } => {
                jwe::open_answer(&sealed, own, place, (&self.key, id, echo), MOST_ANSWER)
            }
            Opener::Hpke { own, once } => {
                hpke::open_answer(&sealed, own, place, (&self.key, once), MOST_ANSWER)
            }
            Opener::Layout { session, iv } => {
                ensure!(
                    field("payload-key") == Some(&self.key),
                    "{}: {}",
                    status,
                    String::from_utf8_lossy(body)
                );
                let said = Head { status, kind };
                let opened = layout::open_answer(&sealed, session, place, (&self.key, iv), said, MOST_ANSWER);
                opened.map(|body| Answered { status: said.status, kind: kind.to_owned(), body })
            }
        };
        let answered = answered.map_err(refused).context("the answer")?;
        ensure!(answered.status == status, "another status than the one that was encrypted");
        Ok(answered)
    }
}
