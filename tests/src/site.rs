//! Everything a daemon needs on disk: certificates, a JWK set, tokens to go with it, and a configuration.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use enforcer::clock;
use serde_json::Value;

use crate::{
    bpffs,
    cleanup::{self, Owned},
    clients::HOST,
    netns::WIRE,
    pki::{Authority, KeyKind},
    poll,
    tokens::{self, SigningKey},
};

const ISSUER: &str = "https://id.example.com/";
const AUDIENCE: &str = "api";

/// Where the daemon's metrics are, inside the server's namespace.
pub const METRICS: &str = "127.0.0.1:9464";

/// The default of `handshake_timeout`, seconds.
const HANDSHAKE: u64 = 10;

/// A directory with what a daemon needs, and the keys behind it. The directory ends with this value.
pub struct Site {
    /// The directory.
    pub dir: PathBuf,
    authority: Authority,
    key: SigningKey,
    stranger: SigningKey,
    _owned: Owned,
}

/// A configuration, in the parts that tests vary. Each is TOML.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Lines below `[kernel]`.
    pub kernel: String,
    /// Lines below `[kernel.limits]`.
    pub limits: String,
    /// `address` of the listener.
    pub listener: String,
    /// `handshake_timeout` of the listener: the default, but where CPUs are emulated.
    pub handshake_timeout: Duration,
    /// Whole `[[route]]` tables.
    pub routes: String,
    /// Further tables.
    pub more: String,
    /// `address` of the metrics listener.
    pub metrics: String,
    /// Servers of the upstream `api`.
    pub upstream: SocketAddr,
    /// File names of chain and key, below the site's directory.
    pub certificate: (String, String),
    /// Whether the program outlives the daemon, pinned in [`Site::pins`]. Most tests are about one daemon.
    pub persist: bool,
}

impl Plan {
    /// The small configuration of the README, on the lab's wire.
    pub fn small(upstream: SocketAddr) -> Self {
        Self {
            kernel: format!("interfaces = [\"{WIRE}\"]\n"),
            limits: String::new(),
            listener: "[::]:443".to_owned(),
            handshake_timeout: poll::stretched(Duration::from_secs(HANDSHAKE)),
            routes: route("/api/v1/", "scopes = [\"read\"]\nlimit = { rate = \"5/s\", burst = 10 }\n"),
            more: String::new(),
            metrics: METRICS.to_owned(),
            upstream,
            certificate: ("api.pem".to_owned(), "api.key".to_owned()),
            persist: false,
        }
    }

    /// As [`Plan::small`], but requests are not limited.
    pub fn unlimited(upstream: SocketAddr) -> Self {
        Self { routes: route("/api/v1/", "scopes = [\"read\"]\n"), ..Self::small(upstream) }
    }
}

/// A `[[route]]` of the upstream `api` with tokens of `main`.
pub fn route(path: &str, more: &str) -> String {
    format!("[[route]]\npath = \"{path}\"\nupstream = \"api\"\ntoken = \"main\"\n{more}\n")
}

impl Site {
    /// Makes the directory, an authority, a certificate for [`HOST`] and a JWK set.
    pub fn new() -> Result<Self> {
        let (owned, dir) = Owned::directory()?;
        let authority = Authority::new("Test authority")?;
        fs::write(dir.join("ca.pem"), authority.pem())?;
        authority.issue(&[HOST], KeyKind::P256)?.write(&dir, "api")?;
        let key = SigningKey::p256("main-1")?;
        // A forger knows the published key id, but not the key.
        let stranger = SigningKey::p256("main-1")?;
        fs::write(dir.join("jwks.json"), tokens::jwks(&[&key]))?;
        Ok(Self { dir, authority, key, stranger, _owned: owned })
    }

    /// The authority's certificate, for `curl --cacert`.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The daemon's control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// The directory of pins: on a BPF file system of this site alone, which is mounted when a plan asks for it.
    pub fn pins(&self) -> PathBuf {
        cleanup::bpffs(&self.dir).join("enforcer")
    }

    /// The file that bans are kept in.
    pub fn store(&self) -> PathBuf {
        self.dir.join("bans.redb")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("enforcer.toml")
    }

    /// Writes `STEM.pem` and `STEM.key`: another certificate for the same name, by the same authority.
    pub fn issue(&self, stem: &str) -> Result<(PathBuf, PathBuf)> {
        self.authority.issue(&[HOST], KeyKind::P256)?.write(&self.dir, stem)
    }

    /// Writes the configuration.
    pub fn write(&self, plan: &Plan) -> Result<PathBuf> {
        if plan.persist {
            bpffs::below(&self.dir)?;
        }
        fs::write(self.config(), self.render(plan))?;
        Ok(self.config())
    }

    /// The text of a configuration.
    pub fn render(&self, plan: &Plan) -> String {
        let path = |name: &str| Path::new(&self.dir).join(name).display().to_string();
        let (chain, key) = (path(&plan.certificate.0), path(&plan.certificate.1));
        let Plan {
            kernel,
            limits,
            listener,
            handshake_timeout,
            routes,
            more,
            metrics,
            upstream,
            persist,
            ..
        } = plan;
        let store = format!("[bans]\nstore = \"{}\"\n", self.store().display());
        let more = match more.contains("[bans]\n") {
            true => more.replace("[bans]\n", &store),
            false => format!("{store}\n{more}"),
        };
        let handshake = match handshake_timeout.as_secs() {
            HANDSHAKE => String::new(),
            other => format!("handshake_timeout = \"{other}s\"\n"),
        };
        format!(
            "[kernel]\npersist = {persist}\npin_directory = \"{pins}\"\n{kernel}\n[kernel.limits]\n{limits}\n\
             [[listener]]\naddress = \"{listener}\"\n{handshake}\
             certificates = [{{ chain = \"{chain}\", key = \"{key}\" }}]\n\n\
             [upstream.api]\nservers = [\"http://{upstream}\"]\n\n\
             [token.main]\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\njwks = \"{jwks}\"\n\n\
             {routes}\
             [metrics]\naddress = \"{metrics}\"\n\n[control]\nsocket = \"{socket}\"\n\n{more}",
            pins = self.pins().display(),
            jwks = path("jwks.json"),
            socket = self.socket().display(),
        )
    }

    /// A good token with these scopes.
    pub fn token(&self, scope: &str) -> Result<String> {
        self.key.mint(&claims(scope))
    }

    /// A good token that lasts for `time`.
    pub fn long_token(&self, scope: &str, time: Duration) -> Result<String> {
        let mut claims = claims(scope);
        claims["exp"] = (clock::unix_now() + time.as_secs()).into();
        self.key.mint(&claims)
    }

    /// A token that ended an hour ago.
    pub fn expired_token(&self) -> Result<String> {
        let past = clock::unix_now().saturating_sub(2 * 3600);
        let mut claims = tokens::claims(ISSUER, AUDIENCE, "read", past);
        claims["exp"] = (past + 3600).into();
        self.key.mint(&claims)
    }

    /// A token with the right key id, signed by somebody else.
    pub fn forged_token(&self) -> Result<String> {
        self.stranger.mint(&claims("read"))
    }
}

fn claims(scope: &str) -> Value {
    tokens::claims(ISSUER, AUDIENCE, scope, clock::unix_now())
}
