//! What a node knows of the objects of the API: those that its view shows, and those that are gone.
//!
//! Of two objects of an address the one with the later birth is younger, as a rule: claims are ordered by that. But
//! births are read from creationTimestamp, whole seconds of the clock of the API server that created the object. The
//! clocks of two servers differ, and a clock may be stepped back; so a younger object may have the same birth or an
//! earlier one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use crate::{
    api_view::Vip,
    claim::{Birth, Claim, Epoch},
    io::Deletion,
    timer_queue::TimerQueue,
    timers::VIEW_FRESH,
};

/// A view of the API that lags behind by more than this cannot resurrect an object: the deletion is reported again.
const DELETED_FOR: Duration = Duration::from_secs(600);

/// An object that the view shows, and since when the API names the announcer that it names.
#[derive(Clone, Debug)]
pub(super) struct Viewed {
    vip: Arc<Vip>,
    named: Duration,
}

impl Viewed {
    /// Returns since when the API names the announcer that it names.
    pub(super) fn named(&self) -> Duration {
        self.named
    }
}

impl Deref for Viewed {
    type Target = Vip;

    fn deref(&self) -> &Vip {
        &self.vip
    }
}

/// The API's view, and the history of each address as far as a claim depends on it.
#[derive(Debug, Default)]
pub(super) struct ApiObjects {
    viewed: BTreeMap<IpAddr, Viewed>,
    /// Every watch had made progress by then; absent while the API has not been reached.
    fresh_at: Option<Duration>,
    /// Objects that are known to be gone, until each is forgotten.
    deleted: TimerQueue<Deletion>,
    /// Those of them that the other runs of this speaker have yet to hear of.
    unshared: BTreeSet<IpAddr>,
    /// The highest birth and epoch seen of each address.
    floors: BTreeMap<IpAddr, (Birth, Epoch)>,
}

impl ApiObjects {
    /// Starts with the floors that an earlier run saved.
    pub(super) fn with_floors(floors: Vec<(IpAddr, Birth, Epoch)>) -> Self {
        let floors = floors.into_iter().map(|(address, birth, epoch)| (address, (birth, epoch))).collect();
        Self { floors, ..Self::default() }
    }

    pub(super) fn get(&self, address: IpAddr) -> Option<&Viewed> {
        self.viewed.get(&address)
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.viewed.contains_key(&address)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &Viewed)> {
        self.viewed.iter().map(|(address, viewed)| (*address, viewed))
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.viewed.keys().copied()
    }

    /// Takes in an object that the view shows. Returns what it showed before.
    pub(super) fn show(&mut self, now: Duration, address: IpAddr, vip: Arc<Vip>) -> Option<Viewed> {
        if self.deleted_birth(address).is_some_and(|birth| birth < vip.birth) {
            self.deleted.remove(address);
        }
        let before = self.viewed.get(&address).filter(|before| before.announced_by == vip.announced_by);
        let named = before.map_or(now, Viewed::named);
        self.viewed.insert(address, Viewed { vip, named })
    }

    /// Takes in that the view shows no object of the address any longer. Returns the birth of the object, as it was
    /// claimed.
    pub(super) fn hide(&mut self, address: IpAddr) -> Option<Birth> {
        let birth = self.get(address).map(|vip| self.birth_of(address, vip));
        self.viewed.remove(&address);
        birth
    }

    /// Takes in that the view is as of this moment.
    pub(super) fn refreshed(&mut self, at: Duration) {
        self.fresh_at = self.fresh_at.max(Some(at));
    }

    /// Returns whether the API has been reached since the start.
    pub(super) fn reached(&self) -> bool {
        self.fresh_at.is_some()
    }

    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        self.fresh_at.is_some_and(|at| now.saturating_sub(at) <= VIEW_FRESH)
    }

    /// Returns the highest birth and epoch that was seen of the address.
    pub(super) fn floor(&self, address: IpAddr) -> Option<(Birth, Epoch)> {
        self.floors.get(&address).copied()
    }

    pub(super) fn floors(&self) -> impl Iterator<Item = (IpAddr, Birth, Epoch)> {
        self.floors.iter().map(|(address, (birth, epoch))| (*address, *birth, *epoch))
    }

    /// Raises the floor of the claim's address to the claim's birth and epoch.
    pub(super) fn note_floor(&mut self, claim: &Claim) {
        let floor = self.floors.entry(claim.address).or_insert((claim.birth, claim.epoch));
        *floor = (*floor).max((claim.birth, claim.epoch));
    }

    /// Forgets the floor of an address that nobody claims and whose object is gone: any later object is younger. (An
    /// object that this node's view does not show yet is not known to be gone.)
    pub(super) fn forget_floor_of_the_gone(&mut self, address: IpAddr) {
        if !self.contains(address) && self.deleted_birth(address).is_some() {
            self.floors.remove(&address);
        }
    }

    /// Returns the objects that are known to be gone.
    pub(super) fn deletions(&self) -> impl Iterator<Item = &Deletion> {
        self.deleted.iter().map(|(_, deletion)| deletion)
    }

    /// Returns the latest birth of an address whose object is gone.
    pub(super) fn deleted_birth(&self, address: IpAddr) -> Option<Birth> {
        self.deleted.get(address).map(|(_, deleted)| deleted.birth)
    }

    /// Remembers that an object is gone. Returns whether that adds anything to what is known.
    pub(super) fn note_deletion(&mut self, now: Duration, deletion: Deletion) -> bool {
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
        self.deleted.set(now + DELETED_FOR, address, merged);
        is_news
    }

    /// Forgets deletions that are old enough. Returns the addresses of those that are kept, because this node's view
    /// still shows the object.
    pub(super) fn forget_old_deletions(&mut self, now: Duration) -> Vec<IpAddr> {
        let mut kept = Vec::new();
        while let Some((_, address, deleted)) = self.deleted.pop_due(now) {
            if self.get(address).is_some_and(|vip| vip.birth <= deleted.birth) {
                self.deleted.set(now + DELETED_FOR, address, deleted);
                kept.push(address);
            }
        }
        kept
    }

    /// Keeps a deletion for the other runs of this speaker until [`ApiObjects::take_unshared`].
    pub(super) fn share_deletion(&mut self, address: IpAddr) {
        self.unshared.insert(address);
    }

    /// Returns the deletions that the other runs of this speaker have yet to hear of, once.
    pub(super) fn take_unshared(&mut self) -> Vec<Deletion> {
        let unshared = std::mem::take(&mut self.unshared);
        unshared.into_iter().filter_map(|address| Some(self.deleted.get(address)?.1.clone())).collect()
    }

    /// Returns the addresses whose object is known to be gone while the view shows one.
    pub(super) fn shown_though_deleted(&self) -> Vec<IpAddr> {
        self.deleted.iter().map(|(address, _)| address).filter(|address| self.contains(*address)).collect()
    }

    /// Returns the birth of the object that this node's view shows, as it is claimed: later than that of any object
    /// known to be gone, if the object is known to be younger than that.
    pub(super) fn birth_of(&self, address: IpAddr, vip: &Vip) -> Birth {
        match self.deleted.get(address) {
            Some((_, deleted)) if vip.birth <= deleted.birth && self.is_younger(vip, deleted) => deleted.birth.next(),
            _ => vip.birth,
        }
    }

    /// Returns whether the object is younger than the one that is gone, whatever their births say. It is if this node's
    /// own view showed the other to be gone before, or has made progress since a peer reported that. An object that was
    /// shown then as well may be the one that is gone: an API server may call its view current that is some seconds
    /// behind.
    fn is_younger(&self, vip: &Vip, deleted: &Deletion) -> bool {
        let doubt = if deleted.shown.as_deref() == Some(&*vip.uid) { VIEW_FRESH } else { Duration::ZERO };
        deleted.seen_here || self.fresh_at.is_some_and(|fresh| fresh > deleted.learned + doubt)
    }
}
