//! Objects that are known to be gone, and how one that is younger is told from one that is shown by an old view.
//!
//! Of two objects of an address the one with the later birth is younger, as a rule: that is what claims are ordered by.
//! But births are read from creationTimestamp, whole seconds of the clock of whichever API server created the object. Two
//! servers' clocks differ, and a clock may be stepped back; so a younger object may have the same birth or an earlier one.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::Engine;
use crate::{api_view::Vip, claim::Birth, timers::VIEW_FRESH};

/// Those whose view of the API lags behind it by more than this resurrect nothing: they are told again.
const DELETED_FOR: Duration = Duration::from_secs(600);

/// An object of an address is gone.
#[derive(Clone, Debug)]
pub(super) struct Deleted {
    /// Its birth, by its claims: of those that are gone the latest.
    pub(super) birth: Birth,
    /// When this node learned of it.
    at: Duration,
    /// Did this node's own view show it to be gone? What that shows later is younger.
    seen_here: bool,
    /// The UID of the object that this node's view showed then.
    shown: Option<Arc<str>>,
}

impl Engine {
    /// An object of this birth is gone. `seen_here`: by this node's own view; else by a peer's.
    pub(super) fn note_deleted(&mut self, now: Duration, address: IpAddr, birth: Birth, seen_here: bool) {
        while let Some((_, old, deleted)) = self.deleted.pop_due(now) {
            // As long as this node's view still shows it, it must not be forgotten.
            if self.vips.get(&old).is_some_and(|vip| vip.birth <= deleted.birth) {
                self.deleted.set(now + DELETED_FOR, old, deleted);
            }
        }
        let known = self.deleted.get(address).map(|(_, known)| known.clone());
        let deleted = match known {
            Some(known) if known.birth >= birth => Deleted { seen_here: known.seen_here || seen_here, ..known },
            _ => {
                let shown = self.vips.get(&address).map(|vip| Arc::clone(&vip.uid));
                Deleted { birth, at: now, seen_here, shown }
            }
        };
        self.deleted.set(now + DELETED_FOR, address, deleted);
    }

    /// The latest birth of an address whose object is gone.
    pub(super) fn deleted_birth(&self, address: IpAddr) -> Option<Birth> {
        self.deleted.get(address).map(|(_, deleted)| deleted.birth)
    }

    /// Forgets the highest claim ever seen of an address whose object is gone and that nobody claims: any later object is
    /// younger. (An object that this node's view does not show yet is not known to be gone.)
    pub(super) fn forget_floor_of_the_gone(&mut self, address: IpAddr) {
        let gone = !self.vips.contains_key(&address) && self.deleted_birth(address).is_some();
        if gone && self.best_claim(address).is_none() {
            self.floors.remove(&address);
        }
    }

    /// The birth of the object that this node's view shows, as it is claimed: later than that of any object known to be
    /// gone, if the object is known to be younger than that.
    pub(super) fn birth_of(&self, address: IpAddr, vip: &Vip) -> Birth {
        match self.deleted.get(address) {
            Some((_, deleted)) if vip.birth <= deleted.birth && self.is_younger(vip, deleted) => deleted.birth.next(),
            _ => vip.birth,
        }
    }

    /// Is the object younger than the one that is gone, whatever their births say? It is if this node's own view showed
    /// the other to be gone before, or has made progress since a peer said so. An object that was shown then as well may
    /// be the one that is gone: an API server may call its view current that is some seconds behind.
    fn is_younger(&self, vip: &Vip, deleted: &Deleted) -> bool {
        let doubt = if deleted.shown.as_ref() == Some(&vip.uid) { VIEW_FRESH } else { Duration::ZERO };
        deleted.seen_here || self.view_fresh_at.is_some_and(|fresh| fresh > deleted.at + doubt)
    }

    /// The view has made progress: what it shows may be known to be younger than what is gone.
    pub(super) fn evaluate_recreated(&mut self, now: Duration) {
        let shown: Vec<IpAddr> =
            self.deleted.iter().map(|(address, _)| address).filter(|address| self.vips.contains_key(address)).collect();
        for address in shown {
            self.evaluate(now, address);
        }
    }
}
