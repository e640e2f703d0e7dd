//! The selection of this node's interfaces: by the flag, by the annotation of its Node, and by L2Advertisements; and
//! the use of each link.

use super::{Coordinator, Output};
use crate::{api_objects::Node, interfaces::Selection};

impl Coordinator {
    /// Returns the number of links beyond those that the report lists.
    pub fn links_left_out(&self) -> usize {
        self.interfaces.as_ref().map_or(0, |interfaces| interfaces.links_left_out)
    }

    /// Emits the selection of interfaces, where it has changed. While this node's Node is away, the Node's last
    /// settings count: otherwise an interface that they exclude would get sockets for a moment.
    pub(super) fn select_interfaces(&mut self) {
        let node = self.own_node();
        if node.is_none() && self.selection.is_some() {
            return;
        }
        let selection =
            Selection::new(&self.config.interfaces, node.map(Node::interface_settings), self.cluster.interface_rules());
        if self.selection.as_ref() != Some(&selection) {
            self.outputs.push_back(Output::Select(selection.clone()));
            self.selection = Some(selection);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use herald_crds::{advertisement::InterfacePattern, virtual_ip::AdvertisementRule};
    use herald_protocol::timers::Timers;
    use jiff::Timestamp;

    use super::*;
    use crate::{
        api_objects::{Change, Vip},
        coordinator::{Announcing, ApiFact, Config, Input, Now, Restored},
        rank::tests::{node, vip},
        saved_state::View,
    };

    fn machine(view: Option<View>) -> Coordinator {
        let config = Config {
            node: "a".to_owned(),
            interfaces: patterns(&["!eth9"]),
            version: "0".to_owned(),
            announcing: Announcing::default(),
            timers: Timers::default(),
            seed: 1,
        };
        Coordinator::new(config, Restored { view, ..Restored::default() })
    }

    fn patterns(patterns: &[&str]) -> Vec<InterfacePattern> {
        patterns.iter().map(|pattern| InterfacePattern((*pattern).to_owned())).collect()
    }

    fn annotated(interfaces: &str) -> Node {
        Node { interfaces: Some(interfaces.to_owned()), ..node("a") }
    }

    /// Hands in a fact, and returns the selection after it, if the fact has changed it.
    fn tell(machine: &mut Coordinator, fact: ApiFact) -> Option<Selection> {
        machine.handle(Now { monotonic: Duration::ZERO, wall: Timestamp::UNIX_EPOCH }, Input::Api(fact));
        selected(machine)
    }

    fn selected(machine: &mut Coordinator) -> Option<Selection> {
        let outputs = std::iter::from_fn(|| machine.poll_output());
        outputs.filter_map(|output| if let Output::Select(selection) = output { Some(selection) } else { None }).last()
    }

    fn listed(machine: &mut Coordinator, node: Node) -> Option<Selection> {
        let facts = [
            ApiFact::Vip(Change::Listing),
            ApiFact::Vip(Change::Listed),
            ApiFact::Speaker(Change::Listing),
            ApiFact::Speaker(Change::Listed),
            ApiFact::Node(Change::Listing),
            ApiFact::Node(Change::Applied(node)),
        ];
        for fact in facts {
            assert_eq!(tell(machine, fact), None, "no interface may be excluded before everything is listed");
        }
        tell(machine, ApiFact::Node(Change::Listed))
    }

    #[test]
    fn nothing_is_selected_before_the_api_is_listed_unless_an_earlier_run_knew_it() {
        let mut fresh = machine(None);
        assert_eq!(selected(&mut fresh), None);
        assert_eq!(listed(&mut fresh, node("a")).unwrap().setting.patterns, patterns(&["!eth9"]));
        let view = View { nodes: vec![annotated("eth1")], ..View::default() };
        assert_eq!(selected(&mut machine(Some(view))).unwrap().setting.patterns, patterns(&["eth1"]));
    }

    #[test]
    fn annotation_takes_effect_while_the_speaker_runs() {
        let mut machine = machine(None);
        listed(&mut machine, node("a")).unwrap();
        let changed = |node| ApiFact::Node(Change::Applied(node));
        let selection = tell(&mut machine, changed(annotated("eth0"))).unwrap();
        assert_eq!((selection.setting.patterns, selection.setting.node), (patterns(&["eth0"]), Some("a".to_owned())));
        assert_eq!(tell(&mut machine, changed(Node { cordoned: true, ..annotated("eth0") })), None);
        assert_eq!(tell(&mut machine, changed(Node { interfaces: Some("x".to_owned()), ..node("b") })), None);
        assert_eq!(tell(&mut machine, ApiFact::Node(Change::Deleted("a".to_owned()))), None, "the last report counts");
        assert_eq!(tell(&mut machine, changed(node("a"))).unwrap().setting.node, None);
    }

    #[test]
    fn interface_that_an_advertisement_names_is_selected_while_an_address_needs_it() {
        let mut machine = machine(None);
        listed(&mut machine, node("a")).unwrap();
        let rules = vec![AdvertisementRule { interfaces: patterns(&["br-lan"]), ..AdvertisementRule::everywhere() }];
        let vip = Vip { rules, ..vip("192.0.2.10") };
        let address = vip.address;
        let selection = tell(&mut machine, ApiFact::Vip(Change::Applied(vip))).unwrap();
        assert_eq!(selection.advertised, [patterns(&["br-lan"])]);
        let selection = tell(&mut machine, ApiFact::Vip(Change::Deleted(address))).unwrap();
        assert_eq!(selection.advertised, Vec::<Vec<_>>::new());
    }
}
