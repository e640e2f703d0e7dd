//! The TCP and the UDP echo.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::answer::{Answer, Pod, Proto};

/// The largest UDP payload that fits an IPv4 packet.
const DATAGRAM: usize = 65_507;

/// Pause after a failed accept: the usual cause, a lack of descriptors, does not disappear at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Serves connections: sends one line of JSON, then echoes every byte until the client closes.
pub(crate) async fn tcp(listener: TcpListener, pod: Arc<Pod>) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let pod = Arc::clone(&pod);
                // A client that resets its connection ends only its own task.
                tokio::spawn(async move { converse(stream, client, &pod).await });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse(mut stream: TcpStream, client: SocketAddr, pod: &Pod) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut line = serde_json::to_vec(&Answer::new(pod, client, Proto::Tcp))?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.shutdown().await,
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}

/// Answers each datagram with the answering pod and the sequence number of the datagram.
pub(crate) async fn udp(socket: UdpSocket, pod: &Pod) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // An ICMP error of an earlier answer is reported by the next call and does not concern it.
        let Ok((read, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let answer = Answer::new(pod, client, Proto::Udp).with_sequence(&buffer[..read]);
        let answer = serde_json::to_vec(&answer)?;
        // The client counts an answer that cannot be delivered as lost.
        if socket.send_to(&answer, client).await.is_err() {
            continue;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen;
    use tokio::io::{AsyncBufReadExt, BufReader};

    fn pod() -> Pod {
        Pod { name: "web-1".into(), ..Pod::default() }
    }

    #[tokio::test]
    async fn tcp_introduces_the_pod_and_echoes() {
        let listener = listen::tcp("::".parse().unwrap(), 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(tcp(listener, Arc::new(pod())));
        for (address, seen) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
            let mut stream = BufReader::new(TcpStream::connect((address, port)).await.unwrap());
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(answer["pod"], "web-1");
            assert_eq!(answer["proto"], "tcp");
            assert_eq!(answer["client"], seen);
            stream.get_mut().write_all(b"17\n").await.unwrap();
            let mut echoed = String::new();
            stream.read_line(&mut echoed).await.unwrap();
            assert_eq!(echoed, "17\n");
        }
    }

    #[tokio::test]
    async fn udp_answers_with_the_sequence() {
        let server = listen::udp("::".parse().unwrap(), 0).unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move { udp(server, &pod()).await });
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"99 x", ("127.0.0.1", port)).await.unwrap();
        let mut buffer = [0; 2048];
        let read = client.recv(&mut buffer).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&buffer[..read]).unwrap();
        assert_eq!(answer["seq"], 99);
        assert_eq!(answer["proto"], "udp");
        assert_eq!(answer["clientPort"], client.local_addr().unwrap().port());
    }
}
