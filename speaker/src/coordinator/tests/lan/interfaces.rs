//! Changes of the interfaces of the nodes.

use super::*;

impl Lan {
    /// Gives the kernel of a node an address, or takes it away.
    pub(in super::super) fn hold(&mut self, name: &'static str, address: &str, holds: bool) {
        let address: IpAddr = address.parse().unwrap();
        if holds {
            self.held.insert((name, address));
        } else {
            self.held.remove(&(name, address));
        }
        self.tell(name, Input::Interfaces(self.interfaces(name)));
    }

    pub(super) fn interfaces(&self, name: &str) -> Interfaces {
        let held: Vec<IpAddr> =
            self.held.iter().filter(|(holder, _)| *holder == name).map(|(_, address)| *address).collect();
        ports::interfaces(name, &self.hosts[name].ports, &held)
    }

    /// Plugs the second interface of a node into the same wire, or pulls it out.
    pub(in super::super) fn set_second(&mut self, name: &'static str, plugged: bool) {
        self.set_port(name, ETH1, plugged.then_some(Port::on(WIRE)));
    }

    /// Adds, changes or removes an interface of a node.
    pub(in super::super) fn set_port(&mut self, name: &'static str, index: u32, port: Option<Port>) {
        let ports = &mut self.hosts.get_mut(name).unwrap().ports;
        let before: Vec<u32> = ports.keys().copied().collect();
        ports.remove(&index);
        ports.extend(port.map(|port| (index, port)));
        let is_other = !ports.keys().eq(&before);
        self.tell(name, Input::Interfaces(self.interfaces(name)));
        if is_other {
            self.tell_neighbours(name);
        }
    }

    /// Changes an interface of a node.
    pub(in super::super) fn change_port(&mut self, name: &'static str, index: u32, change: impl Fn(&mut Port)) {
        let mut port = self.hosts[name].ports[&index];
        change(&mut port);
        self.set_port(name, index, Some(port));
    }

    /// Sets the interface of a node up or down.
    pub(in super::super) fn set_link(&mut self, name: &'static str, up: bool) {
        let interfaces = if up { self.interfaces(name) } else { Interfaces::default() };
        self.tell(name, Input::Interfaces(interfaces));
        if up {
            self.tell_neighbours(name);
        }
    }

    /// Gives the interface of a node another name.
    pub(in super::super) fn rename(&mut self, name: &'static str, to: &str) {
        let mut interfaces = self.interfaces(name);
        interfaces.segments[0].segment.interface.name = to.to_owned();
        self.tell(name, Input::Interfaces(interfaces));
    }

    /// Plugs in or pulls the cable of a node.
    pub(in super::super) fn set_carrier(&mut self, name: &'static str, carrier: bool) {
        self.change_port(name, ETH0, |port| port.carrier = carrier);
    }
}
