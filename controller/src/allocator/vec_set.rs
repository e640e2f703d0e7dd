//! A set that mostly has one element.

use std::slice;

/// A set of a few elements, as a sorted vector. A node of a `BTreeSet` has room for eleven elements, however few there are:
/// 0.8 KiB for one Service, of which a cluster with thousands of Services has several sets each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VecSet<T>(Vec<T>);

impl<T> Default for VecSet<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> VecSet<T> {
    /// Returns whether the element is in the set.
    pub fn contains(&self, element: &T) -> bool {
        self.0.binary_search(element).is_ok()
    }

    /// Adds an element. Returns whether it is new.
    pub fn insert(&mut self, element: T) -> bool {
        let place = self.0.binary_search(&element);
        if let Err(place) = place {
            // A vector that grows by itself has room for four.
            self.0.reserve_exact(1);
            self.0.insert(place, element);
        }
        place.is_err()
    }

    /// Takes an element out, if it is there.
    pub fn take(&mut self, element: &T) -> Option<T> {
        let place = self.0.binary_search(element).ok()?;
        let taken = self.0.remove(place);
        self.0.shrink_to_fit();
        Some(taken)
    }

    /// Removes an element. Returns whether it was there.
    pub fn remove(&mut self, element: &T) -> bool {
        self.take(element).is_some()
    }

    /// Returns the smallest element.
    pub fn first(&self) -> Option<&T> {
        self.0.first()
    }

    /// Returns how many elements there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The elements, in order.
    pub fn iter(&self) -> slice::Iter<'_, T> {
        self.0.iter()
    }
}

impl<'a, T> IntoIterator for &'a VecSet<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Ord> FromIterator<T> for VecSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut all: Vec<T> = elements.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        all.shrink_to_fit();
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is added and taken, it is the set that a `BTreeSet` is.
        #[test]
        fn set_is_that_of_the_standard_library(steps in prop::collection::vec((any::<bool>(), 0u8..8), 0..40)) {
            let (mut ours, mut theirs) = (VecSet::default(), BTreeSet::new());
            for (adds, element) in steps {
                if adds {
                    prop_assert_eq!(ours.insert(element), theirs.insert(element));
                } else {
                    prop_assert_eq!(ours.take(&element), theirs.take(&element));
                }
                prop_assert!(ours.iter().eq(&theirs) && ours.first() == theirs.first());
                prop_assert_eq!((ours.len(), ours.is_empty()), (theirs.len(), theirs.is_empty()));
                prop_assert!((0..8).all(|e| ours.contains(&e) == theirs.contains(&e)));
                prop_assert_eq!(&ours, &theirs.iter().copied().collect());
            }
        }
    }

    #[test]
    fn set_takes_no_more_room_than_its_elements() {
        let mut set = VecSet::default();
        for element in [3, 1, 2] {
            set.insert(element);
        }
        assert_eq!(set.0.capacity(), 3);
        set.remove(&1);
        set.remove(&2);
        assert_eq!(set.0.capacity(), 1);
    }
}
