//! The solicited-node groups (RFC 4291 section 2.7.1) of a segment's addresses.
//!
//! The groups are joined through ordinary UDP sockets, which never receive anything: they are bound to no port. The
//! kernel therefore reports the groups by MLD, without which switches that snoop do not bring solicitations here, opens
//! the network card's filter for them, and reports them again when the carrier returns (`addrconf_notify`,
//! net/ipv6/addrconf.c). Joining needs no capability; closing a socket leaves its groups.

use std::{collections::BTreeSet, io, net::Ipv6Addr};

use socket2::{Domain, Socket, Type};

use crate::packet::solicited_node;

/// Number of groups per socket. Each group charges 56 bytes (`struct ipv6_mc_socklist`) to the socket's option memory,
/// which is 20 KiB before Linux 6.7 (net.core.optmem_max): 365 groups.
const PER_SOCKET: usize = 200;

/// Returns the groups on which addresses are asked for. Several addresses may share one group.
pub(super) fn of(addresses: impl IntoIterator<Item = Ipv6Addr>) -> BTreeSet<Ipv6Addr> {
    addresses.into_iter().map(|address| solicited_node(address).0).collect()
}

/// The groups joined on one interface.
#[derive(Debug)]
pub(super) struct Groups {
    segment: u32,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    socket: Socket,
    joined: BTreeSet<Ipv6Addr>,
}

impl Groups {
    /// Returns a set without groups.
    pub(super) fn new(segment: u32) -> Self {
        Self { segment, members: Vec::new() }
    }

    /// Joins the groups that are wanted, and leaves the rest.
    ///
    /// # Errors
    /// If a group could not be joined or left; the error is that of the first one, and the others are joined or left.
    pub(super) fn set(&mut self, wanted: &BTreeSet<Ipv6Addr>) -> io::Result<()> {
        // Joins go before leaves: clients wait for joins.
        let joined: BTreeSet<_> = self.members.iter().flat_map(|member| &member.joined).copied().collect();
        let mut outcome = Ok(());
        for group in wanted.difference(&joined) {
            outcome = outcome.and(self.join(*group));
        }
        for member in &mut self.members {
            for group in member.joined.extract_if(.., |group| !wanted.contains(group)) {
                outcome = outcome.and(member.socket.leave_multicast_v6(&group, self.segment));
            }
        }
        self.members.retain(|member| !member.joined.is_empty());
        outcome
    }

    fn join(&mut self, group: Ipv6Addr) -> io::Result<()> {
        let member = match self.members.iter_mut().find(|member| member.joined.len() < PER_SOCKET) {
            Some(member) => member,
            None => {
                let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
                self.members.push_mut(Member { socket, joined: BTreeSet::new() })
            }
        };
        member.socket.join_multicast_v6(&group, self.segment)?;
        member.joined.insert(group);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_the_same_last_24_bits_share_a_group() {
        let addresses = ["2001:db8::1:2", "2001:db8:1::1:2", "2001:db8::3"].map(|a| a.parse().unwrap());
        let groups = ["ff02::1:ff01:2", "ff02::1:ff00:3"].map(|a| a.parse().unwrap());
        assert_eq!(of(addresses), BTreeSet::from(groups));
    }
}
