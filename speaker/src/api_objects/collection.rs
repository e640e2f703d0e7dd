//! The objects of one kind that a watch has reported. What is known survives the start of a new list.

use std::collections::{BTreeMap, BTreeSet};

/// An object that has a key in its [`Collection`].
pub trait Keyed {
    /// The type of the key.
    type Key: Ord + Clone;
    /// Returns the key of this object.
    fn key(&self) -> Self::Key;
}

/// One step of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T: Keyed> {
    /// A listing begins. Objects that it does not contain are gone, but only once it is complete.
    Listing,
    /// An object exists, in this version.
    Applied(T),
    /// An object is gone.
    Deleted(T::Key),
    /// The listing is complete.
    Listed,
    /// All objects received before are known to be current: the watch has made progress.
    Current,
}

/// The known objects of one kind.
#[derive(Clone, Debug)]
pub struct Collection<T: Keyed> {
    items: BTreeMap<T::Key, T>,
    /// The keys seen since the listing began, while one is under way.
    seen: Option<BTreeSet<T::Key>>,
    listed: bool,
}

impl<T: Keyed> Default for Collection<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), seen: None, listed: false }
    }
}

impl<T: Keyed + PartialEq> Collection<T> {
    /// Returns the collection that an earlier run knew; it counts as complete.
    pub fn restored(items: Vec<T>) -> Self {
        Self { items: items.into_iter().map(|item| (item.key(), item)).collect(), seen: None, listed: true }
    }

    /// Takes one step of a watch. Returns the key and the previous state of each object that changed.
    pub fn apply(&mut self, change: Change<T>) -> Vec<(T::Key, Option<T>)> {
        match change {
            Change::Listing => self.seen = Some(BTreeSet::new()),
            Change::Applied(item) => {
                let key = item.key();
                if let Some(seen) = &mut self.seen {
                    seen.insert(key.clone());
                }
                if self.items.get(&key) != Some(&item) {
                    let before = self.items.insert(key.clone(), item);
                    return vec![(key, before)];
                }
            }
            Change::Deleted(key) => {
                return self.items.remove(&key).map(|before| (key, Some(before))).into_iter().collect();
            }
            Change::Current => {}
            Change::Listed => {
                self.listed = true;
                if let Some(seen) = self.seen.take() {
                    let gone: Vec<_> = self.items.keys().filter(|key| !seen.contains(key)).cloned().collect();
                    return gone.into_iter().filter_map(|k| self.items.remove(&k).map(|v| (k, Some(v)))).collect();
                }
            }
        }
        Vec::new()
    }

    /// Returns whether a listing has been complete once; before that, absence means nothing.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Returns the object with this key.
    pub fn get(&self, key: &T::Key) -> Option<&T> {
        self.items.get(key)
    }

    /// Returns all objects, by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.items.values()
    }

    /// Returns the objects from a key on.
    pub fn from(&self, first: T::Key) -> impl Iterator<Item = &T> + use<'_, T> {
        self.items.range(first..).map(|(_, item)| item)
    }
}
