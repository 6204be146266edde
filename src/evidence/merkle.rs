//! Merkle trees as RFC 6962, section 2.1, defines them: roots, inclusion and consistency proofs.
//!
//! Leaves and inner nodes are hashed in different domains (0x00, 0x01), so no inner node can pass
//! for a leaf. The proof checks are RFC 9162's (sections 2.1.3.2 and 2.1.4.2), which work from the
//! proof alone: an auditor needs a root and a proof, not the log.

use sha2::{Digest, Sha256};

/// SHA-256 of a leaf, a node or a tree.
pub type Hash = [u8; 32];

/// The hash of a leaf with this content.
pub fn leaf_hash(content: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(content).finalize().into()
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The largest power of two below `size`, which must be at least 2.
fn split(size: usize) -> usize {
    1 << (size - 1).ilog2()
}

/// The root of the tree over these leaf hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [one] => *one,
        many => {
            let (left, right) = many.split_at(split(many.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// The root over leaves with these contents, in hexadecimal.
pub fn root_of(contents: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let leaves: Vec<Hash> = contents.into_iter().map(|content| leaf_hash(content.as_ref())).collect();
    hex::encode(root(&leaves))
}

/// The audit path of leaf `index`, from the leaf up; `None` if there is no such leaf.
pub fn inclusion_proof(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, sibling) = match index.checked_sub(left.len()) {
        None => (inclusion_proof(left, index)?, root(right)),
        Some(index) => (inclusion_proof(right, index)?, root(left)),
    };
    path.push(sibling);
    Some(path)
}

/// Whether `proof` shows that the leaf with hash `leaf` is number `index` of the `size` leaves under `root`.
pub fn verify_inclusion(index: u64, size: u64, leaf: &Hash, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node.is_multiple_of(2) && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Proof that the first `old` leaves are a prefix of all; `None` unless `1 <= old <= leaves.len()`.
pub fn consistency_proof(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    fn subproof(leaves: &[Hash], old: usize, whole: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if whole { Vec::new() } else { vec![root(leaves)] };
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        let (mut path, sibling) = if old <= left.len() {
            (subproof(left, old, whole), root(right))
        } else {
            (subproof(right, old - left.len(), false), root(left))
        };
        path.push(sibling);
        path
    }
    (1..=leaves.len()).contains(&old).then(|| subproof(leaves, old, true))
}

/// Whether `proof` shows that the tree of `old` leaves under `old_root` is a prefix of the one of
/// `new` leaves under `new_root`.
pub fn verify_consistency(old: u64, new: u64, old_root: &Hash, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == 0 || old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    let (mut node, mut last) = (old - 1, new - 1);
    while node % 2 == 1 {
        (node, last) = (node >> 1, last >> 1);
    }
    let mut proof = proof.iter();
    // A whole power of two is itself the first node of the path.
    let first = if old.is_power_of_two() { Some(old_root) } else { proof.next() };
    let Some(first) = first else { return false };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node.is_multiple_of(2) && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The inputs and roots that every RFC 6962 implementation is tested with (certificate-transparency).
    const INPUTS: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn vectors() -> Vec<Hash> {
        INPUTS.iter().map(|i| leaf_hash(&hex::decode(i).expect("hex"))).collect()
    }

    #[test]
    fn known_roots() {
        for (size, expected) in (1..).zip(ROOTS) {
            assert_eq!(hex::encode(root(&vectors()[..size])), expected, "{size} leaves");
        }
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(root_of(Vec::<Vec<u8>>::new()), empty);
    }

    #[test]
    fn known_proofs() {
        let shown = |proof: Option<Vec<Hash>>| -> Vec<String> {
            proof.expect("in range").iter().map(|h| hex::encode(&h[..4])).collect()
        };
        assert_eq!(shown(inclusion_proof(&vectors(), 5)), ["bc1a0643", "ca854ea1", "d37ee418"]);
        assert_eq!(shown(consistency_proof(&vectors(), 6)), ["0ebc5d34", "ca854ea1", "d37ee418"]);
        assert_eq!(inclusion_proof(&vectors(), 8), None);
        assert_eq!(consistency_proof(&vectors(), 0), None);
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    proptest! {
        #[test]
        fn inclusion_is_proven_for_the_right_leaf_place_and_root_only(
            size in 1usize..200, at in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()
        ) {
            let (leaves, index) = (leaves(size), at.index(size));
            let proof = inclusion_proof(&leaves, index).expect("in range");
            let root = root(&leaves);
            let holds = |i: usize, s: usize, leaf: &Hash, p: &[Hash]| verify_inclusion(i as u64, s as u64, leaf, p, &root);
            prop_assert!(holds(index, size, &leaves[index], &proof));
            prop_assert!(!holds(index, size, &leaf_hash(b"another"), &proof));
            for other in (0..size).filter(|o| *o != index) {
                prop_assert!(!holds(other, size, &leaves[index], &proof));
            }
            prop_assert!(!holds(size, size, &leaves[index], &proof));
            if !proof.is_empty() {
                prop_assert!(!holds(index, size, &leaves[index], &proof[1..]));
                let mut changed = proof.clone();
                let bit = bit.index(changed.len() * 256);
                changed[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
                prop_assert!(!holds(index, size, &leaves[index], &changed));
            }
        }

        #[test]
        fn consistency_is_proven_for_prefixes_only(
            new in 1usize..200, at in any::<prop::sample::Index>(), changed in any::<prop::sample::Index>()
        ) {
            let (leaves, old) = (leaves(new), at.index(new) + 1);
            let proof = consistency_proof(&leaves, old).expect("in range");
            let (old_root, new_root) = (root(&leaves[..old]), root(&leaves));
            let holds = |o: &Hash, n: &Hash, p: &[Hash]| verify_consistency(old as u64, new as u64, o, n, p);
            prop_assert!(holds(&old_root, &new_root, &proof));
            let mut rewritten = leaves[..old].to_vec();
            rewritten[changed.index(old)] = leaf_hash(b"rewritten history");
            prop_assert!(!holds(&root(&rewritten), &new_root, &proof));
            prop_assert!(!holds(&old_root, &leaf_hash(b"another"), &proof));
            if !proof.is_empty() {
                prop_assert!(!holds(&old_root, &new_root, &proof[1..]));
                let mut other = proof.clone();
                let place = changed.index(other.len());
                other[place][0] ^= 1;
                prop_assert!(!holds(&old_root, &new_root, &other));
            }
        }
    }
}
