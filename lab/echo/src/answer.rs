//! The content of every protocol's answer: the pod that answers and the client it sees.

use std::net::SocketAddr;

use clap::Args;
use serde::Serialize;

/// The properties of the pod, from the downward API; empty where the server runs outside a pod.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Pod {
    /// Name of the pod.
    #[arg(long = "pod-name", env = "POD_NAME", default_value = "")]
    pub(crate) name: String,
    /// Namespace of the pod.
    #[arg(long = "pod-namespace", env = "POD_NAMESPACE", default_value = "")]
    pub(crate) namespace: String,
    /// Name of the node.
    #[arg(long = "node-name", env = "NODE_NAME", default_value = "")]
    pub(crate) node: String,
    /// Primary address of the pod.
    #[arg(long = "pod-ip", env = "POD_IP", default_value = "")]
    pub(crate) ip: String,
}

/// The transport of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proto {
    Http,
    Tcp,
    Udp,
}

/// One answer, the same for all transports.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer<'a> {
    pod: &'a str,
    namespace: &'a str,
    node: &'a str,
    #[serde(rename = "podIP")]
    pod_ip: &'a str,
    /// The client's address as the server sees it, IPv4 in its own notation.
    client: String,
    /// The client's port as the server sees it.
    client_port: u16,
    proto: Proto,
    /// The number at the beginning of a datagram.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

impl<'a> Answer<'a> {
    pub(crate) fn new(pod: &'a Pod, client: SocketAddr, proto: Proto) -> Self {
        Self {
            pod: &pod.name,
            namespace: &pod.namespace,
            node: &pod.node,
            pod_ip: &pod.ip,
            // A dual-stack socket shows an IPv4 client as ::ffff:a.b.c.d.
            client: client.ip().to_canonical().to_string(),
            client_port: client.port(),
            proto,
            seq: None,
        }
    }

    pub(crate) fn with_sequence(mut self, payload: &[u8]) -> Self {
        self.seq = sequence(payload);
        self
    }
}

/// Returns the decimal number at the beginning of a payload and ignores the rest.
fn sequence(payload: &[u8]) -> Option<u64> {
    let digits = payload.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&payload[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_is_the_leading_number() {
        let table: [(&[u8], Option<u64>); 6] = [
            (b"17", Some(17)),
            (b"17\n", Some(17)),
            (b"0 padding 9", Some(0)),
            (b"", None),
            (b"x17", None),
            (b"99999999999999999999999", None),
        ];
        for (payload, expected) in table {
            assert_eq!(sequence(payload), expected, "payload {payload:?}");
        }
    }

    #[test]
    fn answer_names_pod_and_client() {
        let pod = Pod { name: "web-1".into(), namespace: "shop".into(), node: "node2".into(), ip: "10.1.2.3".into() };
        let client = "[::ffff:192.0.2.7]:4444".parse().unwrap();
        let answer = Answer::new(&pod, client, Proto::Udp).with_sequence(b"42");
        assert_eq!(
            serde_json::to_value(&answer).unwrap(),
            serde_json::json!({
                "pod": "web-1", "namespace": "shop", "node": "node2", "podIP": "10.1.2.3",
                "client": "192.0.2.7", "clientPort": 4444, "proto": "udp", "seq": 42,
            })
        );
    }
}
