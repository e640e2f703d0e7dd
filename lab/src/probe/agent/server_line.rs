//! The description that the echo server sends of itself, in its first line or in a datagram.

use serde::Deserialize;

use crate::probe::sample::{Answerer, Reason};

#[derive(Deserialize)]
struct Said {
    pod: String,
    node: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    client: String,
    #[serde(default)]
    seq: Option<usize>,
}

/// The answering pod, and the sequence number of a datagram.
pub(super) struct Answer {
    pub(super) by: Answerer,
    pub(super) seq: Option<usize>,
}

/// Parses an answer of the echo server.
pub(super) fn read(bytes: &[u8]) -> Result<Answer, Reason> {
    match serde_json::from_slice::<Said>(bytes) {
        Ok(Said { pod, node, pod_ip, client, seq }) => {
            let pod = [pod, pod_ip].into_iter().find(|name| !name.is_empty());
            let pod = pod.unwrap_or_else(|| "(no pod)".to_owned());
            Ok(Answer { by: Answerer { pod, node, client }, seq })
        }
        Err(_) => Err(garbled(bytes)),
    }
}

/// Length in bytes of the kept beginning of an unexpected answer: enough to recognise another server.
const KEPT: usize = 80;

pub(super) fn garbled(bytes: &[u8]) -> Reason {
    Reason::Garbled(String::from_utf8_lossy(&bytes[..bytes.len().min(KEPT)]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_of_the_echo_server_is_parsed() {
        let answer = read(br#"{"pod":"web-1","namespace":"shop","node":"node2","podIP":"10.1.2.3","client":"192.0.2.7","clientPort":1,"proto":"udp","seq":42}"#).unwrap();
        let by = Answerer { pod: "web-1".into(), node: "node2".into(), client: "192.0.2.7".into() };
        assert_eq!((answer.by, answer.seq), (by, Some(42)));
    }

    #[test]
    fn beginning_of_an_unexpected_answer_is_kept() {
        let Err(Reason::Garbled(text)) = read(&[b'x'; 200]) else { unreachable!("not JSON") };
        assert_eq!(text.len(), KEPT);
    }
}
