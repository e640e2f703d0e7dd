//! The readiness of a speaker: a speaker is ready when it speaks on the wire, so that a roll-out may go on to the next
//! node. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time after which a segment on which nothing is heard stops holding up a roll-out: its node may be cut off, and the
/// other nodes should get their new version. The join barrier itself lasts 1 s, or ten Hello intervals of at most 10 s.
const LONGEST_JOIN: Duration = Duration::from_secs(120);

/// The facts that decide readiness.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Whether the speaker has a key to sign with.
    pub has_key: bool,
    /// The error of the Secret of the key, if there is one.
    pub key_error: Option<String>,
    /// Whether the kernel has listed the interfaces.
    pub interfaces_listed: bool,
    /// The kinds that the API server has not listed yet, and no earlier run knew.
    pub unlisted: Vec<String>,
    /// Number of segments in use.
    pub segments: usize,
    /// The segments in use that still listen before they take part.
    pub joining: Vec<Joining>,
}

/// A segment that still listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Joining {
    /// The name of the segment's interface.
    pub interface: String,
    /// Time for which the segment has listened, in milliseconds.
    pub waited_ms: u64,
}

impl Health {
    /// Returns a sentence about why the speaker is ready.
    ///
    /// # Errors
    /// If the speaker is not ready; the error is the reason, in a sentence.
    pub fn readiness(&self) -> Result<String, String> {
        if !self.has_key {
            let error = self.key_error.as_deref().unwrap_or("the Secret has not been read yet");
            return Err(format!("there is no key to sign with: {error}"));
        }
        if !self.unlisted.is_empty() {
            let kinds = self.unlisted.join(", ");
            return Err(format!(
                "the API server has not listed {kinds} yet, so nothing is announced: see the log for its answer; if \
                 that is 404, apply Herald's CustomResourceDefinitions"
            ));
        }
        if !self.interfaces_listed {
            return Err("the kernel has not listed the interfaces".to_owned());
        }
        let within = |joining: &&Joining| Duration::from_millis(joining.waited_ms) < LONGEST_JOIN;
        if let Some(joining) = self.joining.iter().find(within) {
            return Err(format!("{} still listens, for {} ms so far", joining.interface, joining.waited_ms));
        }
        Ok(match (self.segments, self.joining.as_slice()) {
            (0, _) => {
                "ready: no interface of this node is one to announce on, so there is nothing to wait for".to_owned()
            }
            (_, []) => format!("ready: it takes part on {} segments", self.segments),
            (_, [first, ..]) => format!("ready, but nothing is heard on {}", first.interface),
        })
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn joining(waited_ms: u64) -> Joining {
        Joining { interface: "eth0".to_owned(), waited_ms }
    }

    fn takes_part() -> Health {
        Health {
            has_key: true,
            key_error: None,
            interfaces_listed: true,
            unlisted: vec![],
            segments: 1,
            joining: vec![],
        }
    }

    #[test_case(|_| {}, Ok("takes part on 1 segments"))]
    #[test_case(|health| health.has_key = false, Err("has not been read yet"); "no key")]
    #[test_case(|health| { health.has_key = false; health.key_error = Some("Secret x is missing".to_owned()) },
        Err("Secret x is missing"); "no key, and why")]
    #[test_case(|health| health.key_error = Some("Secret x is missing".to_owned()), Ok("takes part");
        "the Secret is gone and the key is kept")]
    #[test_case(|health| health.interfaces_listed = false, Err("interfaces"); "no interfaces yet")]
    #[test_case(|health| health.unlisted = vec!["SpeakerStatus".to_owned()], Err("has not listed SpeakerStatus"); "no view yet")]
    #[test_case(|health| health.joining = vec![joining(900)], Err("eth0 still listens"); "in its barrier")]
    #[test_case(|health| health.joining = vec![joining(120_000)], Ok("nothing is heard on eth0"); "cut off")]
    #[test_case(|health| health.segments = 0, Ok("no interface"); "a node without a segment")]
    fn facts_decide_readiness(change: fn(&mut Health), expected: Result<&str, &str>) {
        let mut health = takes_part();
        change(&mut health);
        match (health.readiness(), expected) {
            (Ok(said), Ok(part)) | (Err(said), Err(part)) => assert!(said.contains(part), "{said}"),
            (said, _) => panic!("{said:?}"),
        }
    }
}
