//! `herald-speaker check live|ready`: the kubelet's probes, which the kubelet runs in the container (`exec`).
//!
//! The probes ask the running speaker over the socket of [`inspect`](crate::inspect), so that no port has to be free.
//! *Live*: the speaker's loop answers. *Ready*: the speaker speaks on the wire, so that a roll-out may go on to the
//! next node.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use tokio::time::timeout;

use crate::{
    inspect::{
        DEFAULT_STATE_DIR, Question,
        socket::{self, InspectError},
    },
    readiness::Health,
};

/// Timeout of one probe. The loop answers within a millisecond, on a starved node within some hundred.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the running speaker of this node whether it is live or ready; ends with 1 if it is not.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The question.
    #[arg(value_enum)]
    pub what: What,

    /// The state directory of the running speaker.
    #[arg(long, env = "HERALD_STATE_DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
}

/// The question of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Whether the speaker's loop answers.
    Live,
    /// Whether the speaker speaks on the wire.
    Ready,
}

/// The reason why a check fails.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The speaker could not be asked.
    #[error(transparent)]
    Unasked(#[from] InspectError),
    /// The speaker answers too slowly.
    #[error("the speaker has not answered within {PATIENCE:?}: its loop is stuck")]
    Stuck,
    /// The speaker answers something else.
    #[error("the speaker's answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The speaker does not speak on the wire.
    #[error("not ready: {0}")]
    NotReady(String),
}

impl CheckArgs {
    /// Asks, and returns what to print.
    ///
    /// # Errors
    /// If the speaker is not live, or not ready.
    pub async fn run(&self) -> Result<String, CheckError> {
        let asked = timeout(PATIENCE, socket::ask(&self.state_dir, Question::Health)).await;
        let health: Health = serde_json::from_str(&asked.map_err(|_| CheckError::Stuck)??)?;
        match self.what {
            What::Live => Ok("live".to_owned()),
            What::Ready => health.readiness().map_err(CheckError::NotReady),
        }
    }
}
