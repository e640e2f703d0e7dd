//! `herald-speaker inspect`: what the running speaker of this node knows, for a person to read.
//!
//! The running speaker listens on a Unix socket in its state directory. Whoever connects writes a line, `table` or
//! `json`, and is sent the report; [`table`] makes it readable, [`socket`] has both ends.

pub mod socket;
pub mod table;

use std::{path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use herald_segment::snapshot::Snapshot;
use serde::Serialize;

/// Where the running speaker keeps its state and its socket.
pub const DEFAULT_STATE_DIR: &str = "/run/herald";

/// Shows what the running speaker of this node knows: peers, addresses, who owns them, who is next.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// The state directory of the running speaker.
    #[arg(long, env = "HERALD_STATE_DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,

    /// How to write it.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for a person.
    Table,
    /// JSON, for a program.
    Json,
}

impl Format {
    /// How it is asked for.
    pub fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
        }
    }
}

/// A word that asks for no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no format: write table or json")]
pub struct ParseFormatError(String);

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => Err(ParseFormatError(word.to_owned())),
        }
    }
}

/// All that a speaker knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Herald's version.
    pub version: String,
    /// This node.
    pub node: String,
    /// Since the speaker started, in milliseconds.
    pub uptime_ms: u64,
    /// Its segments.
    pub segments: Vec<SegmentReport>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentReport {
    /// Interface name.
    pub interface: String,
    /// What is known there.
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

impl Report {
    /// The report as text.
    ///
    /// # Errors
    /// Writing plain values into memory never fails; the serializer's type says that it may.
    pub fn render(&self, format: Format) -> serde_json::Result<String> {
        match format {
            Format::Table => Ok(table::render(self)),
            Format::Json => serde_json::to_string_pretty(self).map(|text| text + "\n"),
        }
    }
}
