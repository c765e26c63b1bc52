//! `[access_log]`: which requests are written down, where, and how much of them.

use std::path::PathBuf;

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// `destination`, default `"off"`.
    pub destination: Destination,
    /// `format`, default `"json"`.
    pub format: AccessFormat,
    /// `sample`: one request of so many, default 1.
    pub sample: u32,
    /// `refusals`: default `"all"`.
    pub refusals: Refusals,
    /// `query`, default `"drop"`.
    pub query: Query,
    /// `subject`, default `"hash"`.
    pub subject: SubjectAs,
    /// `queue`: lines that wait for the disk at most, default 8,192.
    pub queue: u32,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

/// What lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessFormat {
    /// An object per line.
    Json,
    /// The Combined Log Format of Apache httpd.
    Combined,
}

/// Which refused requests are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusals {
    /// Every one.
    All,
    /// As many as of the others.
    Sampled,
}

/// What becomes of a request's query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// It is left out.
    Drop,
    /// Its names stay, its values do not.
    Redact,
}

/// How the subject of a token is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubjectAs {
    /// The first half of its SHA-256, in hexadecimal.
    Hash,
    /// As it is.
    Plain,
    /// Not at all.
    Off,
}
