//! The answers of one segment, for a responder that does not wait for the coordinator. Pure.
//!
//! The coordinator decides who answers for what. It states that in an [`AnswerTable`] after each of its calls, with the
//! time until which the statement holds: the time after which the coordinator itself, called then, would notice that it
//! was not run in time, and answer nothing. So a speaker whose coordinator hangs falls silent.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use herald_packet_socket::PacketType;
use herald_protocol::{api_view::Packet, mac::MacAddr};

use crate::packet::{self, Family, Heard};

/// A question that repeats another one within this time is not handed to the coordinator: half of the shortest Hello
/// interval, so that a flood costs the coordinator little and no count of intervals misses a host.
const REPEATED_WITHIN: Duration = Duration::from_millis(25);
/// Number of questions that are remembered, to recognize repetitions. A flood of more different ones is handed on.
const REMEMBERED: usize = 256;

/// What the coordinator states of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The interface's link-layer address.
    pub own: MacAddr,
    /// The link-layer addresses of the node's other interfaces on the segment: they get no answer.
    pub siblings: BTreeSet<MacAddr>,
    /// The time until which the answers hold (since the speaker started); `None`: nothing is answered.
    pub until: Option<Duration>,
    /// Whether the segment is another than before: no earlier answer is left.
    pub afresh: bool,
    /// The answers that have changed: the address, with the link-layer address that it is at; `None`: no answer.
    pub changes: Vec<(IpAddr, Option<MacAddr>)>,
}

/// The answers of one segment.
#[derive(Debug, Default)]
pub struct AnswerTable {
    own: MacAddr,
    siblings: BTreeSet<MacAddr>,
    answers: HashMap<IpAddr, MacAddr>,
    until: Option<Duration>,
    /// The questions that were handed on lately, with the times.
    handed_on: HashMap<Packet, Duration>,
}

/// What is done with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The answer to send, with the address that was asked for.
    pub answer: Option<(IpAddr, Vec<u8>)>,
    /// Whether the coordinator takes the frame in.
    pub hand_on: bool,
}

impl AnswerTable {
    /// Takes in a statement of the coordinator.
    pub fn take_in(&mut self, statement: Statement) {
        let Statement { own, siblings, until, afresh, changes } = statement;
        (self.own, self.siblings, self.until) = (own, siblings, until);
        if afresh {
            self.answers.clear();
        }
        for (address, answer) in changes {
            match answer {
                Some(mac) => self.answers.insert(address, mac),
                None => self.answers.remove(&address),
            };
        }
    }

    /// Answers nothing until the next statement.
    pub fn silence(&mut self) {
        self.until = None;
    }

    /// Judges a frame of ARP or IPv6 that the kernel let through.
    pub fn respond(&mut self, now: Duration, kind: PacketType, family: Family, frame: &[u8]) -> Response {
        let heard = match family {
            Family::Ipv4 => packet::read_arp(frame, kind, self.own),
            Family::Ipv6 => packet::read_ipv6(frame, kind, self.own),
        };
        match heard {
            None => Response { answer: None, hand_on: false },
            Some(Heard::Pong { .. } | Heard::Evidence) => Response { answer: None, hand_on: true },
            Some(Heard::Packet { packet, asker }) => {
                let answer = asker.zip(self.answer(now, &packet));
                Response {
                    answer: answer.map(|(asker, (address, at))| (address, asker.answer(self.own, at))),
                    hand_on: self.is_news(now, packet),
                }
            }
        }
    }

    /// Returns the address that a packet asks for, and where it is, if that is answered now.
    fn answer(&self, now: Duration, packet: &Packet) -> Option<(IpAddr, MacAddr)> {
        let holds = self.until.is_some_and(|until| now <= until);
        let address = packet.question().filter(|_| holds && !self.siblings.contains(&packet.source))?;
        Some((address, *self.answers.get(&address)?))
    }

    /// Returns whether a packet is anything but the repetition of a question, and remembers questions.
    fn is_news(&mut self, now: Duration, packet: Packet) -> bool {
        if packet.question().is_none() {
            return true;
        }
        if self.handed_on.get(&packet).is_some_and(|at| now < *at + REPEATED_WITHIN) {
            return false;
        }
        if self.handed_on.len() == REMEMBERED {
            self.handed_on.clear();
        }
        self.handed_on.insert(packet, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use test_case::test_case;

    use super::*;
    use crate::packet::Origin;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const COVERED: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const SIBLING: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
    const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 1, 9]);
    const SECOND: Duration = Duration::from_secs(1);

    fn vip(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    /// Returns a table that answers for .1 itself and for .2 in the name of another node, until one second has passed.
    fn table() -> AnswerTable {
        let mut table = AnswerTable::default();
        table.take_in(statement(vec![(vip(1), Some(OWN)), (vip(2), Some(COVERED))]));
        table
    }

    fn statement(changes: Vec<(IpAddr, Option<MacAddr>)>) -> Statement {
        Statement { own: OWN, siblings: BTreeSet::from([SIBLING]), until: Some(SECOND), afresh: false, changes }
    }

    /// Returns a question of a host for an address.
    fn question(by: MacAddr, address: IpAddr) -> Vec<u8> {
        let origin = Origin { mac: by, addresses: vec!["192.0.2.99/24".parse().unwrap()], link_local: None };
        packet::probe(address, MacAddr::BROADCAST, &origin).unwrap()
    }

    fn ask(table: &mut AnswerTable, now: Duration, by: MacAddr, address: IpAddr) -> Response {
        table.respond(now, PacketType::Broadcast, Family::Ipv4, &question(by, address))
    }

    /// Returns the link-layer address in the answer, if there is one.
    fn told(response: &Response) -> Option<MacAddr> {
        let (_, frame) = response.answer.as_ref()?;
        match packet::read_arp(frame, PacketType::Host, CLIENT) {
            Some(Heard::Packet { packet, .. }) => packet.binding.map(|(_, mac)| mac),
            other => panic!("{other:?}"),
        }
    }

    #[test_case(CLIENT, 1, Duration::ZERO => Some(OWN))]
    #[test_case(CLIENT, 2, Duration::ZERO => Some(COVERED); "in the name of the node that is covered")]
    #[test_case(CLIENT, 3, Duration::ZERO => None; "an address of another node")]
    #[test_case(SIBLING, 1, Duration::ZERO => None; "asked by another interface of the node")]
    #[test_case(CLIENT, 1, SECOND => Some(OWN); "at the last moment")]
    #[test_case(CLIENT, 1, SECOND + Duration::from_nanos(1) => None; "later than the coordinator has said")]
    fn question_is_answered_as_stated(by: MacAddr, address: u8, now: Duration) -> Option<MacAddr> {
        let response = ask(&mut table(), now, by, vip(address));
        assert!(response.hand_on);
        told(&response)
    }

    #[test]
    fn later_statement_counts() {
        let mut table = table();
        table.take_in(statement(vec![(vip(1), None), (vip(2), Some(OWN))]));
        let now = [vip(1), vip(2)].map(|address| told(&ask(&mut table, SECOND, CLIENT, address)));
        assert_eq!(now, [None, Some(OWN)]);
        table.take_in(Statement { until: None, ..statement(vec![]) });
        assert_eq!(told(&ask(&mut table, SECOND, CLIENT, vip(2))), None, "the coordinator answers nothing at present");
    }

    #[test]
    fn segment_that_begins_afresh_answers_nothing_of_before() {
        let mut table = table();
        table.take_in(Statement { afresh: true, ..statement(vec![(vip(2), Some(OWN))]) });
        assert_eq!(told(&ask(&mut table, SECOND, CLIENT, vip(1))), None);
        assert_eq!(told(&ask(&mut table, SECOND, CLIENT, vip(2))), Some(OWN));
    }

    #[test]
    fn silenced_segment_answers_nothing() {
        let mut table = table();
        table.silence();
        assert_eq!(told(&ask(&mut table, Duration::ZERO, CLIENT, vip(1))), None);
    }

    /// A flood costs the coordinator little, and each question of it is answered.
    #[test]
    fn repeated_question_is_answered_and_handed_on_once_in_25_ms() {
        let mut table = table();
        let asked: Vec<Response> =
            (0..100).map(|ms| ask(&mut table, Duration::from_millis(ms), CLIENT, vip(1))).collect();
        assert!(asked.iter().all(|response| told(response) == Some(OWN)));
        assert_eq!(asked.iter().filter(|response| response.hand_on).count(), 4);
        assert!(ask(&mut table, SECOND / 10, SIBLING, vip(1)).hand_on, "another host asks");
        assert!(ask(&mut table, SECOND / 10, CLIENT, vip(2)).hand_on, "another address");
    }

    #[test]
    fn memory_for_questions_is_bounded() {
        let mut table = table();
        for host in 0..10_000_u16 {
            let [a, b] = host.to_be_bytes();
            ask(&mut table, Duration::ZERO, MacAddr([2, 0, 0, 9, a, b]), vip(1));
        }
        assert!(table.handed_on.len() <= REMEMBERED);
    }

    /// Answers are counted one by one: they show that a kernel lives.
    #[test]
    fn repeated_answer_is_handed_on_each_time() {
        let mut table = table();
        let reply = packet::reply_unasked(Ipv4Addr::new(192, 0, 2, 1), CLIENT, CLIENT);
        for _ in 0..2 {
            let response = table.respond(Duration::ZERO, PacketType::Broadcast, Family::Ipv4, &reply);
            assert_eq!(response, Response { answer: None, hand_on: true });
        }
    }

    #[test]
    fn frame_that_cannot_be_read_goes_no_further() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let response = table().respond(Duration::ZERO, PacketType::Broadcast, family, &[0xff; 60]);
            assert_eq!(response, Response { answer: None, hand_on: false });
        }
    }
}
