//! A [`BlockMap`] in bytes: numbers in 7-bit groups, blocks as distances. Whoever stores it adds a
//! checksum; reading it back is safe for any bytes all the same.

use super::blocks::{BlockMap, Fork, ForkBlocks, RelationFork};

/// Writes `number` in groups of 7 bits, lowest first; all but the last have the high bit set.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn get(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7F) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn get_u32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(get(bytes)?).ok()
}

impl BlockMap {
    /// Appends the map to `bytes`; equal maps give equal bytes.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        let doubt = self.doubt.as_deref().unwrap_or_default();
        put(bytes, doubt.len() as u64);
        bytes.extend(doubt.as_bytes());
        put(bytes, self.databases.len() as u64);
        for (tablespace, database) in &self.databases {
            put(bytes, u64::from(*tablespace));
            put(bytes, u64::from(*database));
        }
        let mut forks: Vec<(&RelationFork, &ForkBlocks)> = self.forks.iter().collect();
        forks.sort_unstable_by_key(|(fork, _)| **fork);
        put(bytes, forks.len() as u64);
        for (fork, changed) in forks {
            let RelationFork { tablespace, database, relation, fork } = *fork;
            [tablespace, database, relation].iter().for_each(|n| put(bytes, u64::from(*n)));
            bytes.push(fork.number());
            put(bytes, changed.limit.map_or(0, |limit| u64::from(limit) + 1));
            put(bytes, changed.blocks.iter().count() as u64);
            let mut next = 0;
            for block in changed.blocks.iter() {
                put(bytes, u64::from(block) - next);
                next = u64::from(block) + 1;
            }
        }
    }

    /// What [`BlockMap::encode`] wrote, and nothing behind it.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let mut map = Self::default();
        let length = usize::try_from(get(bytes)?).ok()?;
        let (doubt, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        if !doubt.is_empty() {
            map.distrust(std::str::from_utf8(doubt).ok()?);
        }
        for _ in 0..get(bytes)? {
            map.replace_database(get_u32(bytes)?, get_u32(bytes)?);
        }
        for _ in 0..get(bytes)? {
            let (tablespace, database, relation) = (get_u32(bytes)?, get_u32(bytes)?, get_u32(bytes)?);
            let (number, rest) = bytes.split_first()?;
            *bytes = rest;
            let fork = RelationFork { tablespace, database, relation, fork: Fork::from_number(*number)? };
            let changed = map.forks.entry(fork).or_default();
            if let Some(limit) = get(bytes)?.checked_sub(1) {
                changed.limit = Some(u32::try_from(limit).ok()?);
            }
            let mut next = 0_u64;
            for _ in 0..get(bytes)? {
                let block = next.checked_add(get(bytes)?)?;
                changed.blocks.insert(u32::try_from(block).ok()?);
                next = block + 1;
            }
        }
        bytes.is_empty().then_some(map)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn maps()(
            forks in prop::collection::vec(
                (any::<u32>(), any::<bool>(), prop::option::of(any::<u32>()), prop::collection::vec(any::<u32>(), 0..50)),
                0..20,
            ),
            databases in prop::collection::vec(any::<(u32, u32)>(), 0..3),
            doubt in prop::option::of("[a-zä]{1,20}"),
        ) -> BlockMap {
            let mut map = BlockMap::default();
            for (relation, init, limit, blocks) in forks {
                let fork = if init { Fork::Init } else { Fork::Main };
                let fork = RelationFork { tablespace: 1663, database: 5, relation, fork };
                limit.into_iter().for_each(|limit| map.cut(fork, limit));
                blocks.into_iter().for_each(|block| map.mark(fork, block));
            }
            databases.into_iter().for_each(|(t, d)| map.replace_database(t, d));
            doubt.into_iter().for_each(|why| map.distrust(why));
            map
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(map in maps()) {
            let mut bytes = Vec::new();
            map.encode(&mut bytes);
            prop_assert_eq!(BlockMap::decode(&bytes), Some(map));
            prop_assert_eq!(BlockMap::decode(&bytes[..bytes.len() - 1]), None);
            bytes.push(0);
            prop_assert_eq!(BlockMap::decode(&bytes), None);
        }

        #[test]
        fn no_bytes_are_fatal(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = BlockMap::decode(&bytes);
        }
    }
}
