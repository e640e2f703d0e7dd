//! Objects that are known to be gone, and how one that is younger is told from one that is shown by an old view.
//!
//! Of two objects of an address the one with the later birth is younger, as a rule: that is what claims are ordered by.
//! But births are read from creationTimestamp, whole seconds of the clock of whichever API server created the object. Two
//! servers' clocks differ, and a clock may be stepped back; so a younger object may have the same birth or an earlier one.

use std::{net::IpAddr, time::Duration};

use super::Engine;
use crate::{api_view::Vip, claim::Birth, io::Deletion, timers::VIEW_FRESH};

/// Those whose view of the API lags behind it by more than this resurrect nothing: they are told again.
const DELETED_FOR: Duration = Duration::from_secs(600);

impl Engine {
    /// An object of this birth is gone. `seen_here`: by this node's own view; else by a peer's.
    pub(super) fn note_deleted(&mut self, now: Duration, address: IpAddr, birth: Birth, seen_here: bool) {
        let shown = self.vips.get(&address).map(|vip| Box::from(&*vip.uid));
        if self.enter_deletion(now, Deletion { address, birth, shown, learned: now, seen_here }) {
            self.share_deletion(address);
        }
    }

    /// Takes in what other runs of this speaker know, which may follow this one or be followed by it.
    pub(super) fn deletions_told(&mut self, now: Duration, deletions: Vec<Deletion>) {
        for deletion in deletions {
            let address = deletion.address;
            if self.enter_deletion(now, deletion) {
                self.evaluate(now, address);
            }
        }
    }

    /// Takes in what an earlier run saved.
    pub(super) fn restore_deletions(&mut self, now: Duration, deletions: Vec<Deletion>) {
        for deletion in deletions {
            // The view that was saved beside it may be older.
            self.enter_deletion(now, Deletion { learned: now, seen_here: false, ..deletion });
        }
    }

    /// Remembers that an object is gone. Returns whether that adds anything to what is known.
    fn enter_deletion(&mut self, now: Duration, deletion: Deletion) -> bool {
        self.forget_old_deletions(now);
        let address = deletion.address;
        let known = self.deleted.get(address).map(|(_, known)| known.clone());
        let merged = match known.clone() {
            Some(known) if known.birth >= deletion.birth => Deletion {
                seen_here: known.seen_here || deletion.seen_here,
                // An address is shown to one of several runs at a time.
                shown: known.shown.or(deletion.shown),
                ..known
            },
            _ => deletion,
        };
        let is_news = known.as_ref() != Some(&merged);
        self.state_changed |= is_news;
        self.deleted.set(now + DELETED_FOR, address, merged);
        is_news
    }

    fn forget_old_deletions(&mut self, now: Duration) {
        while let Some((_, address, deleted)) = self.deleted.pop_due(now) {
            // As long as this node's view still shows the object, its end must not be forgotten, nor by the other runs of
            // this speaker, to which an object that lies here is not shown.
            if self.vips.get(&address).is_some_and(|vip| vip.birth <= deleted.birth) {
                self.deleted.set(now + DELETED_FOR, address, deleted);
                self.share_deletion(address);
            }
        }
    }

    fn share_deletion(&mut self, address: IpAddr) {
        if !self.siblings.is_empty() {
            self.unshared_deletions.insert(address);
        }
    }

    /// Returns the objects that are known to be gone.
    pub fn deletions(&self) -> impl Iterator<Item = &Deletion> {
        self.deleted.iter().map(|(_, deletion)| deletion)
    }

    /// Returns the deletions that this run has learned of since this was last asked, for [`Input::Deletions`] of the other runs
    /// of this speaker; none, if there is no other run.
    ///
    /// [`Input::Deletions`]: crate::Input::Deletions
    pub fn take_deletions(&mut self) -> Vec<Deletion> {
        let unshared = std::mem::take(&mut self.unshared_deletions);
        unshared.into_iter().filter_map(|address| Some(self.deleted.get(address)?.1.clone())).collect()
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
    fn is_younger(&self, vip: &Vip, deleted: &Deletion) -> bool {
        let doubt = if deleted.shown.as_deref() == Some(&*vip.uid) { VIEW_FRESH } else { Duration::ZERO };
        deleted.seen_here || self.view_fresh_at.is_some_and(|fresh| fresh > deleted.learned + doubt)
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
