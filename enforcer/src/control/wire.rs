//! The language of the control socket: one request per line, one response per line, both JSON.
//!
//! Server and client share these types. Fields are only ever added; whatever changes a meaning moves [`VERSION`].

mod bans;
mod changes;
mod device;
mod failure;
mod many;
mod pins;
mod tier;
mod token;
mod upstream;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    capture::sight::Sight,
    kernel::{Attachment, Explanation, Practice, Protocol},
    prefix::Prefix,
};

pub use bans::{AllowanceRow, BanRow};
pub use changes::{FilesRow, ReloadRow, Reloaded};
pub use device::{DeviceCommand, DeviceFilter, DeviceRow, DevicesRow, HardwareRow};
pub use failure::{Failure, FailureKind};
pub use many::{Many, RefusedRow};
pub use pins::{DeclaredRow, OtherRow, PinsCommand, PinsRow, SeenRow};
pub use tier::{TierCommand, TierRow};
pub use token::{FoundRow, JudgedRow, Named, RevokedRow, TokenCommand};
pub use upstream::UpstreamRow;

/// The version of the language.
pub const VERSION: u32 = 1;

/// Longest request, bytes: all of them are small, and long lists come in parts.
pub const MAX_REQUEST: usize = 64 * 1024;

/// A line from the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What to do.
    pub command: Command,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// How the daemon is.
    Status,
    /// Ban a prefix.
    BanAdd {
        /// Whom.
        prefix: Prefix,
        /// How long; absent: as configured, unless `forever`.
        #[serde(default)]
        seconds: Option<u64>,
        /// Until lifted.
        #[serde(default)]
        forever: bool,
        /// Why.
        #[serde(default)]
        reason: String,
        /// However wide, whoever is inside.
        #[serde(default)]
        force: bool,
        /// Where the operator's own session comes from.
        #[serde(default)]
        own_address: Option<IpAddr>,
    },
    /// Lift the ban of exactly this prefix.
    BanDel {
        /// Whose.
        prefix: Prefix,
    },
    /// Ban many: one part of an import, each of which is carried out for itself.
    BanAddMany {
        /// Whom.
        prefixes: Vec<Prefix>,
        /// As for one.
        #[serde(default)]
        seconds: Option<u64>,
        /// As for one.
        #[serde(default)]
        forever: bool,
        /// As for one.
        #[serde(default)]
        reason: String,
        /// As for one.
        #[serde(default)]
        force: bool,
        /// As for one.
        #[serde(default)]
        own_address: Option<IpAddr>,
        /// Whether another part follows.
        #[serde(default)]
        more: bool,
    },
    /// Lift the bans of exactly these prefixes, likewise.
    BanDelMany {
        /// Whose.
        prefixes: Vec<Prefix>,
        /// Whether another part follows.
        #[serde(default)]
        more: bool,
    },
    /// Every ban.
    BanList,
    /// Allow a prefix.
    AllowAdd {
        /// Whom.
        prefix: Prefix,
        /// Why.
        #[serde(default)]
        reason: String,
        /// However wide.
        #[serde(default)]
        force: bool,
    },
    /// Take back an operator's allowance.
    AllowDel {
        /// Whose.
        prefix: Prefix,
    },
    /// Every allowance.
    AllowList,
    /// Whose budgets a prefix has.
    Tier(TierCommand),
    /// What is revoked.
    Token(TokenCommand),
    /// Which devices have enrolled.
    Device(DeviceCommand),
    /// Which certificate is served to apps that pin.
    Pins(PinsCommand),
    /// What would happen to a packet from an address, and why.
    Why {
        /// From where.
        address: IpAddr,
        /// To which port; absent: the first listener's.
        #[serde(default)]
        port: Option<u16>,
        /// By which protocol.
        #[serde(default)]
        protocol: Protocol,
    },
    /// Samples of refused packets from now on: an answer for each, until the caller closes the connection.
    Events {
        /// Only for this reason, by its label.
        #[serde(default)]
        reason: Option<String>,
        /// Only from here.
        #[serde(default)]
        source: Option<Prefix>,
        /// With the frames' bytes.
        #[serde(default)]
        frames: bool,
    },
    /// Read the configuration again.
    Reload,
    /// The metrics, as Prometheus reads them.
    Metrics,
}

/// A line from the daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`].
    pub version: u32,
    /// `answer` or `error`.
    #[serde(flatten)]
    pub body: Body,
}

/// What a response says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// It was done, or is told.
    Answer(Answer),
    /// It was not.
    Error(Failure),
}

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `status`.
    Status(Box<Status>),
    /// To `ban_add`, `ban_del`, `allow_add`, `allow_del`, `tier`, `token`, `device`, `pins`.
    Done(Done),
    /// To `ban_add_many`, `ban_del_many`.
    Many(Many),
    /// To `ban_list`.
    Bans(Vec<BanRow>),
    /// To `allow_list`.
    Allowances(Vec<AllowanceRow>),
    /// To `tier`, `list`.
    Tiers(Vec<TierRow>),
    /// To `token`, `revoked`.
    Revoked(RevokedRow),
    /// To `token`, `judge`.
    Judged(JudgedRow),
    /// To `device`, `list`.
    Devices(DevicesRow),
    /// To `pins`, `seen`.
    Seen(SeenRow),
    /// To `device`, `show`.
    Device(Box<DeviceRow>),
    /// To `why`.
    Why(Box<Why>),
    /// To `reload`.
    Reloaded(Reloaded),
    /// To `metrics`.
    Metrics(String),
    /// To `events`, first: from here on samples are shown.
    Watching(Watching),
    /// To `events`: a sample.
    Event(Box<EventRow>),
    /// To `events`: so many samples were not shown, because the caller did not read them in time.
    Lost(u64),
}

/// A change that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// What was done, in one sentence.
    pub message: String,
    /// What the operator should know about it.
    pub remarks: Vec<String>,
    /// The ban in question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ban: Option<BanRow>,
}

/// What a source has done lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreRow {
    /// Points now.
    pub points: u32,
    /// Points at which it is banned.
    pub threshold: u32,
    /// Offences since the score was last zero.
    pub offences: u32,
    /// Bans within the last day.
    pub bans: u8,
    /// Code of the last offence.
    pub last: String,
}

/// Packets counted for a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRow {
    /// The reason's label.
    pub reason: String,
    /// The interface; empty where all are meant.
    #[serde(default)]
    pub interface: String,
    /// Packets since the start.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What came in by one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficRow {
    /// Its name, or `other`.
    pub interface: String,
    /// Packets that passed.
    pub passed: u64,
    /// Their bytes.
    pub passed_bytes: u64,
    /// Packets that were dropped.
    pub dropped: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Times that a packet would have been dropped but for a dry run; what became of it is counted besides.
    pub would_drop: u64,
    /// Its bytes.
    pub would_drop_bytes: u64,
}

/// What whoever watches should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// `kernel.events`, in words.
    pub budget: String,
}

/// A packet that was refused or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// When it was judged, RFC 3339 in UTC.
    pub time: String,
    /// The same in nanoseconds since 1970.
    pub time_ns: u64,
    /// The interface that it came in by.
    pub interface: String,
    /// The CPU that judged it.
    pub cpu: u32,
    /// `drop`, `would_drop`, or `pass` for one that was changed.
    pub verdict: String,
    /// The reason's label.
    pub reason: String,
    /// Who to whom, and the ClientHello in it.
    #[serde(flatten)]
    pub sight: Sight,
    /// Length of the frame in bytes.
    pub length: usize,
    /// How many of these the sample holds.
    pub captured: usize,
    /// These bytes in base64, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
}

/// What would happen to a packet, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Why {
    /// From where.
    pub address: IpAddr,
    /// To which port.
    pub port: u16,
    /// By which protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// All of it in one sentence.
    pub sentence: String,
    /// What the program would decide now.
    pub explanation: Explanation,
    /// The ban that holds for the address.
    pub ban: Option<BanRow>,
    /// The allowance that holds for it.
    pub allowance: Option<AllowanceRow>,
    /// Its score.
    pub score: Option<ScoreRow>,
    /// How often the verdict's reason was counted, for all sources.
    pub counter: Option<CounterRow>,
}

/// How the daemon is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// `running` or `draining`.
    pub state: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// The configured `kernel.mode`.
    pub kernel_mode: String,
    /// What becomes of the program without the daemon.
    #[serde(default)]
    pub persistence: PersistenceRow,
    /// Where the program is attached, and how.
    pub interfaces: Vec<Attachment>,
    /// What of the configuration is in force there.
    #[serde(default)]
    pub practice: Practice,
    /// Entries that the kernel's lists should hold.
    pub list_entries: usize,
    /// Changes that have not reached them yet.
    pub pending_writes: usize,
    /// Addresses that are listened on.
    pub listeners: Vec<String>,
    /// Where metrics and health checks are served.
    pub metrics: Option<String>,
    /// Client connections that can be open at once: as configured, or fewer if file descriptors do not suffice.
    #[serde(default)]
    pub max_connections: u32,
    /// Issuers of tokens.
    pub tokens: Vec<TokenRow>,
    /// What is revoked.
    #[serde(default)]
    pub revocations: RevokedRow,
    /// Servers behind.
    #[serde(default)]
    pub upstreams: Vec<UpstreamRow>,
    /// Sets of pins.
    #[serde(default)]
    pub pins: Vec<PinsRow>,
    /// Bans in force.
    pub bans: Vec<CountRow>,
    /// Whether bans are only reported.
    pub dry_run: bool,
    /// Features of the data plane that are only rehearsed, as `kernel.dry_run` names them.
    #[serde(default)]
    pub rehearsed: Vec<String>,
    /// Packets by interface.
    #[serde(default)]
    pub traffic: Vec<TrafficRow>,
    /// Dropped packets, by reason and interface; zeros are left out.
    pub drops: Vec<CounterRow>,
    /// Packets that would have been dropped but for a dry run, likewise.
    #[serde(default)]
    pub would_drops: Vec<CounterRow>,
    /// Refused connections and requests, by code; zeros are left out.
    pub denials: Vec<CountRow>,
    /// How far the program and the TLS stack agree.
    #[serde(default)]
    pub hellos: HelloRow,
    /// Entries of each list of `[kernel.hellos]` that has any, by its key.
    #[serde(default)]
    pub listed: Vec<CountRow>,
    /// The last reload.
    pub last_reload: Option<ReloadRow>,
    /// The last change of a certificate, key or list since then.
    #[serde(default)]
    pub files: Option<FilesRow>,
}

/// What becomes of the program without the daemon, and what the daemon began with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistenceRow {
    /// The directory of pins; absent: the program goes with the daemon.
    pub pinned: Option<String>,
    /// The file that bans and operators' allowances are kept in; absent: none.
    #[serde(default)]
    pub store: Option<String>,
    /// How long the program judges without the daemon; absent: for ever.
    pub lease_seconds: Option<u64>,
    /// What the start found of an earlier daemon: `fresh`, `taken_over`, `migrated` or `replaced`.
    pub beginning: String,
}

/// Refused hellos that were compared with what the TLS stack says of them, and disagreements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloRow {
    /// Refused ones that were compared.
    pub compared: u64,
    /// Those of them that TLS would have taken.
    pub false_drops: u64,
    /// Old ones that got as far as TLS.
    pub missed: u64,
}

/// An issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Name in the configuration.
    pub name: String,
    /// `iss`.
    pub issuer: String,
    /// Keys that can verify.
    pub keys: usize,
    /// Seconds since they were fetched; absent for a file, and before the first success.
    #[serde(default)]
    pub age_seconds: Option<u64>,
    /// Why the last attempt to fetch them failed.
    #[serde(default)]
    pub error: Option<String>,
}

/// A number with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountRow {
    /// What is counted.
    pub name: String,
    /// How many.
    pub count: u64,
}
