//! What a database refers to against what is there: a merge of two sorted sequences.
//!
//! Pure and streaming: memory does not grow with the filestore. Inputs must ascend strictly; one
//! that does not is an error, because a merge would then report present files as missing.

use std::iter::Peekable;

use super::name::FileName;
use crate::error::{self, Result};

/// What became of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match<R, H> {
    /// Referred to and there.
    Both(FileName, R, H),
    /// Referred to and not there.
    Missing(FileName, R),
    /// There and not referred to.
    Extra(FileName, H),
}

/// Matches `referenced` with `have`; both carry what the caller wants to know about each name.
pub fn reconcile<R, H>(
    referenced: impl IntoIterator<Item = (FileName, R)>,
    have: impl IntoIterator<Item = (FileName, H)>,
) -> impl Iterator<Item = Result<Match<R, H>>> {
    let mut referenced = referenced.into_iter().peekable();
    let mut have = have.into_iter().peekable();
    let mut broken = false;
    std::iter::from_fn(move || {
        if broken {
            return None;
        }
        let order = match (referenced.peek(), have.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((r, _)), Some((h, _))) => r.cmp(h),
        };
        let next = match order {
            std::cmp::Ordering::Less => take(&mut referenced).map(|(name, r)| Match::Missing(name, r)),
            std::cmp::Ordering::Greater => take(&mut have).map(|(name, h)| Match::Extra(name, h)),
            std::cmp::Ordering::Equal => {
                take(&mut referenced).and_then(|(name, r)| take(&mut have).map(|(_, h)| Match::Both(name, r, h)))
            }
        };
        broken = next.is_err();
        Some(next)
    })
}

/// The next item, when the one behind it is greater.
fn take<T>(items: &mut Peekable<impl Iterator<Item = (FileName, T)>>) -> Result<(FileName, T)> {
    let item = items.next().expect("the caller has peeked at it");
    match items.peek() {
        Some((next, _)) if *next <= item.0 => {
            let pair = format!("{} is followed by {next}", item.0);
            Err(error::internal(format!("names of filestore files are out of order: {pair}"))
                .meaning("nothing can be said about missing files"))
        }
        _ => Ok(item),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    /// Few distinct names, so that both sides share some.
    fn side() -> impl Strategy<Value = BTreeMap<FileName, u32>> {
        btree_map((0_u8..40).prop_map(|n| FileName::new([n; 20])), any::<u32>(), 0..30)
    }

    proptest! {
        #[test]
        fn every_name_is_told_once_and_rightly(referenced in side(), have in side()) {
            let found: Result<Vec<_>> = reconcile(referenced.clone(), have.clone()).collect();
            let found = found.expect("sorted");
            let mut names = Vec::new();
            for item in &found {
                match item {
                    Match::Both(n, r, h) => {
                        prop_assert_eq!((referenced.get(n), have.get(n)), (Some(r), Some(h)));
                        names.push(*n);
                    }
                    Match::Missing(n, r) => {
                        prop_assert_eq!((referenced.get(n), have.get(n)), (Some(r), None));
                        names.push(*n);
                    }
                    Match::Extra(n, h) => {
                        prop_assert_eq!((referenced.get(n), have.get(n)), (None, Some(h)));
                        names.push(*n);
                    }
                }
            }
            let mut all: Vec<FileName> = referenced.keys().chain(have.keys()).copied().collect();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(names, all);
        }

        #[test]
        fn disorder_is_never_taken_for_missing_files(names in proptest::collection::vec(0_u8..20, 2..12)) {
            let list: Vec<_> = names.iter().map(|n| (FileName::new([*n; 20]), ())).collect();
            let ascending = names.windows(2).all(|w| w[0] < w[1]);
            let complete = reconcile(list.clone(), std::iter::empty::<(FileName, ())>()).all(|m| m.is_ok());
            prop_assert_eq!(complete, ascending);
            let complete = reconcile(std::iter::empty::<(FileName, ())>(), list).all(|m| m.is_ok());
            prop_assert_eq!(complete, ascending);
        }
    }
}
