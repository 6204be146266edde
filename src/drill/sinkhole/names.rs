//! An address for each name that is asked for, out of 198.18.0.0/15 (reserved for tests, RFC 2544).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// Addresses that are given out; names beyond share the last one.
const MOST: u32 = (1 << 17) - 2;

/// Names and the addresses that stand for them.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_name: HashMap<String, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, String>,
}

impl Names {
    /// The address that stands for `name`, always the same.
    pub(super) fn address(&mut self, name: &str) -> Ipv4Addr {
        let name = name.to_ascii_lowercase();
        if let Some(address) = self.by_name.get(&name) {
            return *address;
        }
        let number = u32::try_from(self.by_name.len()).unwrap_or(MOST).min(MOST - 1);
        let address = Ipv4Addr::from(FIRST + number);
        if number < MOST - 1 {
            self.by_name.insert(name.clone(), address);
            self.by_address.insert(address, name);
        }
        address
    }

    /// The name that an address was given out for.
    pub(super) fn name(&self, address: IpAddr) -> Option<String> {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.by_address.get(&v4).cloned(),
            IpAddr::V6(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_own_address_and_keeps_it() {
        let mut names = Names::default();
        let hooks = names.address("Hooks.example.com");
        let mail = names.address("mail.example.com");
        assert_ne!(hooks, mail);
        assert_eq!(names.address("hooks.EXAMPLE.com"), hooks);
        assert_eq!(names.name(IpAddr::V4(hooks)).as_deref(), Some("hooks.example.com"));
        assert_eq!(names.name("192.0.2.1".parse().expect("an address")), None);
        assert!(hooks.octets()[..2] == [198, 18]);
    }
}
