//! Sets of numbers that mostly follow each other: segments of WAL, entries of a ledger. Kept as ranges, so a set of
//! millions is a few pairs, in memory and in a ledger entry.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Ranges of numbers, first and last included, ascending, none touching another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds `first..=last`; nothing where that is empty.
    pub fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // The ranges that touch the new one, which swallows them.
        let from = self.0.partition_point(|r| r.1 < first && r.1 + 1 < first);
        let to = self.0.partition_point(|r| r.0 <= last.saturating_add(1));
        let swallowed = &self.0[from..to.max(from)];
        let first = swallowed.first().map_or(first, |r| r.0.min(first));
        let last = swallowed.last().map_or(last, |r| r.1.max(last));
        self.0.splice(from..to.max(from), [(first, last)]);
    }

    /// Takes `first..=last` out.
    pub fn remove(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for &(from, to) in &self.0 {
            if to < first || from > last {
                left.push((from, to));
                continue;
            }
            if from < first {
                left.push((from, first - 1));
            }
            if to > last {
                left.push((last + 1, to));
            }
        }
        self.0 = left;
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|(first, last)| self.insert(first, last));
    }

    /// Takes all of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        other.iter().for_each(|(first, last)| self.remove(first, last));
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: u64) -> bool {
        self.end_of(number).is_some()
    }

    /// The last number of the range that holds `number`.
    pub fn end_of(&self, number: u64) -> Option<u64> {
        let at = self.0.partition_point(|r| r.1 < number);
        self.0.get(at).filter(|r| r.0 <= number).map(|r| r.1)
    }

    /// Whether any number of `first..=last` is in it.
    pub fn meets(&self, first: u64, last: u64) -> bool {
        let at = self.0.partition_point(|r| r.1 < first);
        self.0.get(at).is_some_and(|r| r.0 <= last)
    }

    /// The ranges, ascending: first and last.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| (last - first).saturating_add(1)).fold(0, u64::saturating_add)
    }
}

impl FromIterator<u64> for Ranges {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut ranges = Self::default();
        numbers.into_iter().for_each(|number| ranges.insert(number, number));
        ranges
    }
}

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut ranges = Self::default();
        Vec::<(u64, u64)>::deserialize(d)?.into_iter().for_each(|(first, last)| ranges.insert(first, last));
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_sets_of_numbers(steps in prop::collection::vec((any::<bool>(), 0_u64..40, 0_u64..6), 0..30)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (adds, first, more) in steps {
                if adds {
                    ranges.insert(first, first + more);
                    set.extend(first..=first + more);
                } else {
                    ranges.remove(first, first + more);
                    set.retain(|n| !(first..=first + more).contains(n));
                }
                let held: BTreeSet<u64> = ranges.iter().flat_map(|(first, last)| first..=last).collect();
                prop_assert_eq!(&held, &set);
                prop_assert!(ranges.0.windows(2).all(|w| w[0].1 + 1 < w[1].0), "ranges touch: {:?}", ranges);
                prop_assert!((0..50).all(|n| ranges.contains(n) == set.contains(&n)));
                prop_assert!((0..45).all(|n| ranges.meets(n, n + 3) == (n..=n + 3).any(|m| set.contains(&m))));
                prop_assert_eq!(ranges.count(), set.len() as u64);
                let text = serde_json::to_string(&ranges).expect("plain data");
                prop_assert_eq!(serde_json::from_str::<Ranges>(&text).expect("read back"), ranges.clone());
            }
        }
    }

    #[test]
    fn the_largest_numbers_have_their_place() {
        let mut ranges = Ranges::default();
        ranges.insert(5, u64::MAX);
        ranges.insert(0, 3);
        assert_eq!((ranges.contains(4), ranges.contains(u64::MAX)), (false, true));
        ranges.insert(4, 4);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, u64::MAX)]);
    }
}
