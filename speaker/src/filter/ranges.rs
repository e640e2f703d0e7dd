//! Sets of numbers as few closed ranges.

/// Sorted, disjoint closed ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// Returns the ranges that the numbers form, in any order. If there are more than `max` (at least 1), the smallest
    /// gaps are closed: the ranges then hold all the numbers, and a few others.
    pub(super) fn of(numbers: impl IntoIterator<Item = u32>, max: usize) -> Self {
        let mut numbers: Vec<u32> = numbers.into_iter().collect();
        numbers.sort_unstable();
        numbers.dedup();
        // A gap as wide as the max-th widest is closed (`max` ranges have one gap less), and every narrower one.
        let mut gaps: Vec<u32> = numbers.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 1).collect();
        gaps.sort_unstable_by(|a, b| b.cmp(a));
        let widest_closed = gaps.get(max.saturating_sub(1)).copied().unwrap_or(1);
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, last)) if number - *last <= widest_closed => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        Self(ranges)
    }

    /// Returns the first and the last number of each range, sorted.
    pub(super) fn as_slice(&self) -> &[(u32, u32)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_set, prelude::*};
    use test_case::test_case;

    use super::*;

    #[test_case(&[], 2, &[]; "none")]
    #[test_case(&[3, 1, 2, 2], 2, &[(1, 3)]; "a run")]
    #[test_case(&[1, 2, 5, 6], 2, &[(1, 2), (5, 6)]; "two runs")]
    #[test_case(&[1, 4, 9], 2, &[(1, 4), (9, 9)]; "the smallest gap is closed")]
    #[test_case(&[1, 4, 7], 2, &[(1, 7)]; "equal gaps are closed alike")]
    #[test_case(&[0, u32::MAX], 2, &[(0, 0), (u32::MAX, u32::MAX)]; "the ends")]
    fn numbers_form_as_few_ranges_as_allowed(numbers: &[u32], max: usize, expected: &[(u32, u32)]) {
        assert_eq!(Ranges::of(numbers.iter().copied(), max).as_slice(), expected);
    }

    proptest! {
        #[test]
        fn all_numbers_are_in_at_most_max_ranges(numbers in btree_set(any::<u32>(), 0..300), max in 1usize..100) {
            let ranges = Ranges::of(numbers.iter().copied(), max);
            prop_assert!(ranges.as_slice().len() <= max);
            prop_assert!(ranges.as_slice().windows(2).all(|pair| pair[0].1 < pair[1].0));
            for number in numbers {
                prop_assert!(ranges.as_slice().iter().any(|(first, last)| (*first..=*last).contains(&number)));
            }
        }

        #[test]
        fn enough_ranges_hold_no_other_number(numbers in btree_set(0u32..500, 0..100), probe in 0u32..500) {
            let ranges = Ranges::of(numbers.iter().copied(), 100);
            let within = ranges.as_slice().iter().any(|(first, last)| (*first..=*last).contains(&probe));
            prop_assert_eq!(within, numbers.contains(&probe));
        }
    }
}
