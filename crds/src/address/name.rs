//! The object name of an address. By this name the API server refuses a double assignment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns the name of the VirtualIP object of an address: an IPv4 address as it is, an IPv6 address in the text form
/// of RFC 5952 with dashes for colons. A dash at either end gets a `0` next to it, since an object name must begin and
/// end with a letter or a digit (RFC 1123).
///
/// ```
/// use herald_crds::address::name_of_address;
/// assert_eq!(name_of_address("192.0.2.10".parse().unwrap()), "192.0.2.10");
/// assert_eq!(name_of_address("2001:db8::7".parse().unwrap()), "2001-db8--7");
/// assert_eq!(name_of_address("::1".parse().unwrap()), "0--1");
/// ```
pub fn name_of_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(a) => a.to_string(),
        IpAddr::V6(a) => {
            // The text is written by segments: Display shows an IPv4-mapped address with dots, which would give one
            // address two spellings.
            let text = match a.to_ipv4_mapped() {
                Some(v4) => {
                    let [hi, lo] = [v4.to_bits() >> 16, v4.to_bits() & 0xffff];
                    format!("::ffff:{hi:x}:{lo:x}")
                }
                None => a.to_string(),
            };
            let mut name = text.replace([':', '.'], "-");
            if name.starts_with('-') {
                name.insert(0, '0');
            }
            if name.ends_with('-') {
                name.push('0');
            }
            name
        }
    }
}

/// Returns the address that an object name stands for; `None` if [`name_of_address`] does not return this name for any
/// address.
pub fn address_of_name(name: &str) -> Option<IpAddr> {
    let address = match name.parse::<Ipv4Addr>() {
        Ok(v4) => IpAddr::V4(v4),
        Err(_) => IpAddr::V6(name.replace('-', ":").parse::<Ipv6Addr>().ok()?),
    };
    (name_of_address(address) == name).then_some(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_case::test_case;

    use super::*;

    #[test_case("192.0.2.10", "192.0.2.10")]
    #[test_case("2001:db8::7", "2001-db8--7")]
    #[test_case("::", "0--0")]
    #[test_case("fd00::", "fd00--0")]
    #[test_case("::ffff:192.0.2.1", "0--ffff-c000-201")]
    fn name_is_made_and_read_back(address: &str, name: &str) {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(name_of_address(address), name);
        assert_eq!(address_of_name(name), Some(address));
    }

    #[test_case("2001-0db8--7" ; "not canonical")]
    #[test_case("web" ; "not an address")]
    #[test_case("" ; "empty")]
    fn foreign_name_has_no_address(name: &str) {
        assert_eq!(address_of_name(name), None);
    }

    proptest! {
        #[test]
        fn every_address_has_one_valid_name(bits in any::<u128>(), v4 in any::<u32>()) {
            for address in [IpAddr::V6(Ipv6Addr::from_bits(bits)), IpAddr::V4(Ipv4Addr::from_bits(v4))] {
                let name = name_of_address(address);
                prop_assert_eq!(address_of_name(&name), Some(address));
                prop_assert!(name.len() <= 63);
                prop_assert!(name.chars().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase() || c == '-' || c == '.'));
                for end in [name.chars().next(), name.chars().last()] {
                    prop_assert!(end.is_some_and(|c| c.is_ascii_alphanumeric()));
                }
            }
        }
    }
}
