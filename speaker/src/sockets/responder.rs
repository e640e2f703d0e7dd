//! The thread that answers ARP and Neighbour Discovery, whatever the event loop does meanwhile.
//!
//! It knows what to answer by the [`Statement`]s of the coordinator, and hands on to the event loop what it hears. A
//! frame that it leaves unanswered may still be answered by the event loop, which knows more.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use herald_packet_socket::{AsyncPacketSocket, MAX_FRAME, PacketSocket, Received};
use tokio::{
    runtime::{Builder, Handle},
    sync::{mpsc, oneshot},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Arrival, Body};
use crate::{
    answer_table::{AnswerTable, Response, Statement},
    metrics::Answered,
    packet::Family,
};

/// The thread, while it runs.
#[derive(Debug)]
pub struct Responder {
    /// The runtime on the thread.
    thread: Handle,
    /// The start of the time by which statements hold.
    start: Instant,
    answered: Answered,
    /// The thread ends when this is dropped.
    _runs: oneshot::Sender<()>,
}

/// The answers of one segment, as the event loop has stated them last.
///
/// An answer is looked up and sent under the lock: once a statement is taken in, no answer leaves that it denies.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Arc<Mutex<AnswerTable>>);

impl Answers {
    /// Takes in a statement of the coordinator.
    pub(super) fn state(&self, statement: Statement) {
        self.lock().take_in(statement);
    }

    /// Answers nothing until the next statement.
    pub(super) fn silence(&self) {
        self.lock().silence();
    }

    fn lock(&self) -> MutexGuard<'_, AnswerTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One socket of a segment, as the responder reads it.
struct Reader {
    segment: u32,
    family: Family,
    socket: Arc<AsyncPacketSocket>,
    answers: Answers,
    arrivals: mpsc::Sender<Arrival>,
    start: Instant,
    answered: Answered,
}

impl Responder {
    /// Starts the thread. `start`: the start of the time by which statements hold.
    ///
    /// # Errors
    /// If the system refuses a thread or an epoll instance.
    pub fn start(start: Instant, answered: Answered) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let handle = runtime.handle().clone();
        let (runs, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("responder".to_owned()).spawn(move || {
            // The sender is dropped without a message.
            runtime.block_on(ended).unwrap_or_default();
        })?;
        Ok(Self { thread: handle, start, answered, _runs: runs })
    }

    /// Lets the thread read a socket of ARP or IPv6 until the returned task is dropped.
    ///
    /// # Errors
    /// If epoll refuses the descriptor.
    pub(super) fn read(
        &self,
        (segment, family): (u32, Family),
        socket: PacketSocket,
        answers: Answers,
        arrivals: mpsc::Sender<Arrival>,
    ) -> io::Result<(Arc<AsyncPacketSocket>, AbortOnDropHandle<()>)> {
        let socket = {
            let _inside = self.thread.enter();
            Arc::new(AsyncPacketSocket::new(socket)?)
        };
        let (start, answered) = (self.start, self.answered.clone());
        let reader = Reader { segment, family, socket: Arc::clone(&socket), answers, arrivals, start, answered };
        Ok((socket, AbortOnDropHandle::new(self.thread.spawn(reader.run()))))
    }
}

impl Reader {
    async fn run(self) {
        let mut buffer = vec![0; MAX_FRAME];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(received) => self.take_in(received, &buffer[..received.len]),
                // The kernel reports the error once when the interface goes down; the socket goes on receiving when the
                // interface is up again. Netlink reports the rest.
                Err(error) => tracing::debug!(segment = self.segment, %error, "receiving"),
            }
        }
    }

    fn take_in(&self, Received { packet_type: kind, .. }: Received, frame: &[u8]) {
        let (hand_on, answered) = self.respond(kind, frame);
        if !hand_on {
            return;
        }
        let body = Body::Packet { family: self.family, frame: frame.to_vec(), answered };
        // Where the event loop is slow, it misses a frame of a host that says the same again, or of a flood.
        if self.arrivals.try_send(Arrival { segment: self.segment, kind, body }).is_err() {
            tracing::trace!(segment = self.segment, "the event loop does not keep up with ARP and IPv6");
        }
    }

    /// Answers a frame if it is to be answered. Returns whether it is handed on, and whether it was answered.
    fn respond(&self, kind: herald_packet_socket::PacketType, frame: &[u8]) -> (bool, bool) {
        let mut answers = self.answers.lock();
        let Response { answer, hand_on } = answers.respond(self.start.elapsed(), kind, self.family, frame);
        let Some((address, answer)) = answer else { return (hand_on, false) };
        // A refusal to send is reported by the event loop, which tries the same.
        let answered = self.socket.get_ref().send(&answer).is_ok();
        if answered {
            self.answered.count(address);
        }
        (hand_on, answered)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        net::{IpAddr, Ipv4Addr},
        time::Duration,
    };

    use herald_packet_socket::PacketType;
    use herald_protocol::mac::MacAddr;

    use super::*;
    use crate::{
        metrics::Metrics,
        network_namespace::{in_a_network_namespace, ip},
        packet::{self, Heard, Origin},
        sockets::{ETHERTYPE_ARP, Segments},
    };

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 1, 9]);
    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    /// Upper bound of the time in which a frame crosses a veth pair and is answered on a busy machine.
    const ANSWERED: Duration = Duration::from_secs(5);
    /// Time for which nothing must come.
    const SILENT: Duration = Duration::from_millis(200);

    fn statement(until: Option<Duration>) -> Statement {
        let changes = vec![(VIP, Some(OWN))];
        Statement { own: OWN, siblings: BTreeSet::new(), until, afresh: false, changes }
    }

    /// Asks for the address at the other end of the wire. Returns the link-layer address in the answer that comes within
    /// the time.
    async fn ask(client: &AsyncPacketSocket, within: Duration) -> Option<MacAddr> {
        let origin = Origin { mac: CLIENT, addresses: vec!["192.0.2.9/24".parse().unwrap()], link_local: None };
        client.get_ref().send(&packet::probe(VIP, MacAddr::BROADCAST, &origin).unwrap()).unwrap();
        let mut buffer = [0; 128];
        let answer = async {
            loop {
                let received = client.recv(&mut buffer).await.unwrap();
                let heard = packet::read_arp(&buffer[..received.len], received.packet_type, CLIENT);
                if let Some(Heard::Packet { packet, .. }) = heard {
                    return packet.binding.filter(|(address, _)| *address == VIP).map(|(_, mac)| mac);
                }
            }
        };
        tokio::time::timeout(within, answer).await.ok().flatten()
    }

    /// The event loop is not run at all after its statement, as where it hangs.
    #[test]
    fn answers_go_on_without_the_event_loop_until_its_statement_has_expired() {
        let test = async {
            assert!(ip("link add eth0 index 77 address 02:00:00:00:00:01 type veth peer name wire index 78"));
            assert!(ip("link set wire address 02:00:00:00:01:09") && ip("link set eth0 up") && ip("link set wire up"));
            let client = AsyncPacketSocket::new(PacketSocket::open(78, ETHERTYPE_ARP, None).unwrap()).unwrap();
            let (start, metrics) = (Instant::now(), Metrics::new("1"));
            let (arrivals, mut heard) = mpsc::channel(16);
            let responder = Responder::start(start, metrics.answered()).unwrap();
            let mut segments = Segments::new(arrivals, responder, false);
            // The statement may come before the sockets are open.
            let until = start.elapsed() + Duration::from_secs(60);
            segments.state_answers([(77, statement(Some(until)))]);
            segments.open(77).unwrap();
            segments.listen(77, &BTreeSet::from([VIP])).unwrap();

            assert_eq!(ask(&client, ANSWERED).await, Some(OWN));
            let Some(Arrival { segment: 77, kind: PacketType::Broadcast, body }) = heard.recv().await else {
                panic!("the frame is handed on")
            };
            assert!(matches!(body, Body::Packet { family: Family::Ipv4, answered: true, .. }), "{body:?}");

            segments.state_answers([(77, statement(Some(start.elapsed())))]);
            assert_eq!(ask(&client, SILENT).await, None, "the statement has expired");
            segments.state_answers([(77, statement(Some(until)))]);
            assert_eq!(ask(&client, ANSWERED).await, Some(OWN));
            segments.state_answers([(77, Statement { changes: vec![(VIP, None)], ..statement(Some(until)) })]);
            assert_eq!(ask(&client, SILENT).await, None, "the address is given up");
        };
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        in_a_network_namespace(|| runtime().block_on(test));
    }
}
