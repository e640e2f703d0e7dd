//! The view of the API that the nodes of a bus have.

use std::{net::IpAddr, sync::Arc};

use herald_protocol::{
    Input,
    api_view::{Candidate, Class, GivenUp, Vip},
    claim::Birth,
};

use super::{Bus, name};

impl Bus {
    /// Shows the candidates of an address with their classes, first in rank first, in the view of every node whose
    /// watches are not late.
    pub fn publish(&mut self, address: IpAddr, birth: u64, candidates: &[(usize, u8)]) {
        self.publish_announced(address, birth, candidates, None);
    }

    /// Shows the same as [`Bus::publish`], with the node that announces the address by VirtualIP.status.
    pub fn publish_announced(&mut self, address: IpAddr, birth: u64, candidates: &[(usize, u8)], by: Option<usize>) {
        let candidates =
            candidates.iter().map(|(node, class)| Candidate { node: name(*node).id(), class: Class(*class) }).collect();
        let uid: Arc<str> = format!("uid-{birth}").into();
        let announced_by = by.map(|node| name(node).id());
        let seen = self.views.get(&address).is_some_and(|vip| vip.uid == uid);
        let ever_announced = seen || by.is_some();
        let vip = Vip {
            birth: Birth(birth),
            uid,
            candidates,
            announced_by,
            given_up: None,
            held_here: false,
            ever_announced,
            cover: true,
        };
        self.show(address, vip);
    }

    /// Shows the same as [`Bus::publish`], with the UID of the object, which was never announced.
    pub fn publish_object(&mut self, address: IpAddr, birth: u64, uid: &str, candidates: &[(usize, u8)]) {
        self.publish(address, birth, candidates);
        let vip = Vip { uid: uid.into(), ever_announced: false, ..self.views[&address].as_ref().clone() };
        self.show(address, vip);
    }

    /// Shows the same as before in the view of every node and, by VirtualIP.status, that a node has given the address
    /// up.
    pub fn publish_given_up(&mut self, address: IpAddr, given_up: GivenUp) {
        let before = self.views[&address].as_ref().clone();
        self.show(address, Vip { announced_by: None, given_up: Some(given_up), ..before });
    }

    fn show(&mut self, address: IpAddr, vip: Vip) {
        let vip = Arc::new(vip);
        self.views.insert(address, Arc::clone(&vip));
        for node in self.speakers.keys().filter(|node| !self.late_views.contains(node)).copied().collect::<Vec<_>>() {
            self.tell(node, Input::Vip(address, Some(Arc::clone(&vip))));
        }
    }

    /// Removes the object of an address from the API, and from the view of every node whose speaker runs and whose
    /// watches are not late.
    pub fn unpublish(&mut self, address: IpAddr) {
        self.views.remove(&address);
        for node in self.speakers.keys().filter(|node| !self.late_views.contains(node)).copied().collect::<Vec<_>>() {
            self.tell(node, Input::Vip(address, None));
        }
    }

    /// Makes every view fresh, those of late watches included.
    pub fn refresh(&mut self) {
        for node in self.speakers.keys().copied().collect::<Vec<_>>() {
            self.tell(node, Input::Fresh(self.now));
        }
    }
}
