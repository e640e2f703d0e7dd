//! Objects that are gone: what this node learns of them, and shares with the other runs of its speaker.

use std::{net::IpAddr, time::Duration};

use super::Engine;
use crate::{claim::Birth, io::Deletion};

impl Engine {
    /// Takes in that an object of this birth is gone. `seen_here`: by this node's own view, otherwise by a peer's.
    pub(super) fn note_deleted(&mut self, now: Duration, address: IpAddr, birth: Birth, seen_here: bool) {
        let shown = self.objects.get(address).map(|vip| Box::from(&*vip.uid));
        if self.enter_deletion(now, Deletion { address, birth, shown, learned: now, seen_here }) {
            self.share_deletion(address);
        }
    }

    /// Takes in the deletions that other runs of this speaker know of. Either run may follow the other on this segment.
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
            // The view that was saved with it may be older.
            self.enter_deletion(now, Deletion { learned: now, seen_here: false, ..deletion });
        }
    }

    fn enter_deletion(&mut self, now: Duration, deletion: Deletion) -> bool {
        // The other runs of this speaker keep what this one keeps: an object that lies here is not shown to them.
        for kept in self.objects.forget_old_deletions(now) {
            self.share_deletion(kept);
        }
        let is_news = self.objects.note_deletion(now, deletion);
        if is_news {
            self.outbox.note_saved_state_changed();
        }
        is_news
    }

    fn share_deletion(&mut self, address: IpAddr) {
        if !self.siblings.is_empty() {
            self.objects.share_deletion(address);
        }
    }

    /// Returns the objects that are known to be gone.
    pub fn deletions(&self) -> impl Iterator<Item = &Deletion> {
        self.objects.deletions()
    }

    /// Returns the deletions that this run has learned of since the last call, for [`Input::Deletions`] of the other
    /// runs of this speaker; none, if there is no other run.
    ///
    /// [`Input::Deletions`]: crate::Input::Deletions
    pub fn take_deletions(&mut self) -> Vec<Deletion> {
        self.objects.take_unshared()
    }

    /// Decides about addresses whose object is gone while the view shows another: the view has made progress, so that
    /// this one may be known to be younger.
    pub(super) fn evaluate_recreated(&mut self, now: Duration) {
        for address in self.objects.shown_though_deleted() {
            self.evaluate(now, address);
        }
    }
}
