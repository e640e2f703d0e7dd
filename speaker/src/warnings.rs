//! What is wrong on a node, in sentences a person can act on. Pure.

use std::collections::BTreeMap;

use herald_crds::speaker_status::{SpeakerWarning, WarningKind};

use crate::interfaces::{LocalSegment, ambiguities};

/// Settings of the kernel that bear on announcing, as read from /proc/sys/net/ipv4/conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelSettings {
    /// Does kube-ipvs0 exist? kube-proxy's IPVS mode binds every Service address to it.
    pub kube_ipvs0: bool,
    /// `arp_ignore` and `rp_filter` by interface, and of "all".
    pub interfaces: BTreeMap<String, InterfaceSettings>,
}

/// Settings of one interface, or of "all".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// 0: answer ARP for any address of the host, on whatever interface.
    pub arp_ignore: u8,
    /// 1: strict reverse-path filtering.
    pub rp_filter: u8,
}

impl KernelSettings {
    /// What is in force on an interface: the higher of its own and of "all", for both settings
    /// (Documentation/networking/ip-sysctl.rst).
    fn in_force(&self, interface: &str) -> InterfaceSettings {
        let of = |name: &str| self.interfaces.get(name).copied().unwrap_or_default();
        let (all, own) = (of("all"), of(interface));
        InterfaceSettings {
            arp_ignore: all.arp_ignore.max(own.arp_ignore),
            rp_filter: all.rp_filter.max(own.rp_filter),
        }
    }
}

/// The warnings of a node, most important first.
pub fn warnings(segments: &[LocalSegment], kernel: &KernelSettings) -> Vec<SpeakerWarning> {
    let mut warnings = Vec::new();
    let mut warn = |kind, message| warnings.push(SpeakerWarning { kind, message });
    if segments.is_empty() {
        warn(
            WarningKind::NoUsableInterface,
            "no interface can announce addresses: none is an Ethernet link that is up, not enslaved to another \
             and has an on-link prefix; give one an address with its subnet's prefix length"
                .to_owned(),
        );
    }
    for LocalSegment { segment, carrier, .. } in segments {
        if !carrier {
            warn(
                WarningKind::NoCarrier,
                format!(
                    "{0}: no carrier, so nothing is announced there and other nodes take over: check cable, switch port \
                     and 802.1X",
                    segment.interface
                ),
            );
        }
        let (name, settings) = (&segment.interface, kernel.in_force(&segment.interface));
        if kernel.kube_ipvs0 && settings.arp_ignore == 0 {
            warn(
                WarningKind::ArpIgnore,
                format!(
                    "{name}: kube-ipvs0 exists and arp_ignore is 0, so this node's kernel answers ARP for every \
                     Service address, announced here or not: set ipvs.strictARP: true in kube-proxy's configuration"
                ),
            );
        }
        // Strict filtering drops a packet whose reply would leave by another interface: with the default route on this
        // one, the replies to all unknown clients leave here.
        if settings.rp_filter == 1 && !segment.default_route {
            warn(
                WarningKind::RpFilter,
                format!(
                    "{name}: reverse-path filtering is strict (rp_filter = 1) and the default route leaves elsewhere, \
                     so clients beyond this subnet cannot reach addresses announced here: set \
                     net.ipv4.conf.{name}.rp_filter and net.ipv4.conf.all.rp_filter to 2 or 0"
                ),
            );
        }
    }
    for (first, second, prefix) in ambiguities(segments) {
        warn(
            WarningKind::AmbiguousInterface,
            format!(
                "{first} and {second} both have addresses of {prefix} on link: an address there is announced on the \
                 one with the longer prefix, else on {first}; choose with spec.interfaces of an L2Advertisement"
            ),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::{interfaces::tests::local, rank::tests::segment};

    fn eth0(default_route: bool) -> LocalSegment {
        let mut segment = segment("eth0", 1, "192.0.2.0/24");
        segment.default_route = default_route;
        local(2, segment)
    }

    fn kernel(kube_ipvs0: bool, all: (u8, u8), own: (u8, u8)) -> KernelSettings {
        let settings = |(arp_ignore, rp_filter)| InterfaceSettings { arp_ignore, rp_filter };
        KernelSettings {
            kube_ipvs0,
            interfaces: [("all".to_owned(), settings(all)), ("eth0".to_owned(), settings(own))].into(),
        }
    }

    #[test_case(false, (0, 0), (0, 0), false => Vec::<WarningKind>::new())]
    #[test_case(true, (0, 0), (0, 0), false => vec![WarningKind::ArpIgnore])]
    #[test_case(true, (1, 0), (0, 0), false => Vec::<WarningKind>::new(); "all is strict")]
    #[test_case(true, (0, 0), (1, 0), false => Vec::<WarningKind>::new(); "the interface is strict")]
    #[test_case(false, (0, 1), (0, 0), false => vec![WarningKind::RpFilter])]
    #[test_case(false, (0, 0), (0, 1), false => vec![WarningKind::RpFilter])]
    #[test_case(false, (0, 1), (0, 2), false => Vec::<WarningKind>::new(); "loose wins")]
    #[test_case(false, (0, 1), (0, 1), true => Vec::<WarningKind>::new(); "replies leave here")]
    fn of_the_kernel(ipvs: bool, all: (u8, u8), own: (u8, u8), default_route: bool) -> Vec<WarningKind> {
        warnings(&[eth0(default_route)], &kernel(ipvs, all, own)).into_iter().map(|w| w.kind).collect()
    }

    #[test]
    fn of_the_interfaces() {
        assert_eq!(warnings(&[], &KernelSettings::default())[0].kind, WarningKind::NoUsableInterface);
        let eth1 = local(3, segment("eth1", 2, "192.0.2.0/25"));
        let found = warnings(&[eth0(true), eth1], &KernelSettings::default());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, WarningKind::AmbiguousInterface);
        assert!(found[0].message.contains("eth0 and eth1 both have addresses of 192.0.2.0/25"), "{}", found[0].message);
    }

    #[test]
    fn of_the_carrier() {
        let found = warnings(&[LocalSegment { carrier: false, ..eth0(true) }], &KernelSettings::default());
        assert_eq!(found.iter().map(|w| w.kind).collect::<Vec<_>>(), [WarningKind::NoCarrier]);
        assert!(found[0].message.starts_with("eth0: no carrier"), "{}", found[0].message);
    }
}
