//! Warnings about a node, in sentences a person can act on. Pure.

use std::collections::BTreeMap;

use herald_crds::speaker_status::{LinkStatus, LinkUse, SpeakerWarning, WarningKind};

use crate::interfaces::{LocalSegment, Survey, ambiguities};

/// Settings of the kernel that bear on announcing, as read from /proc/sys/net/ipv4/conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelSettings {
    /// Whether kube-ipvs0 exists. kube-proxy's IPVS mode binds every Service address to it.
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
    /// Returns the settings in force on an interface: the higher of its own and of "all", for both settings
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

/// Number of links that a warning names at most, with why each is left alone.
const MAX_NAMED_LINKS: usize = 4;

/// Returns why a node has no segment, with the reasons why the links that people may have meant are left alone.
fn no_usable_interface(survey: &Survey) -> String {
    let skipped = survey.links.iter().filter(|link| link.link_use == LinkUse::Skipped);
    let reason = |link: &LinkStatus| format!("{}: {}", link.interface, link.message.as_deref().unwrap_or_default());
    let reasons: Vec<_> = skipped.take(MAX_NAMED_LINKS).map(reason).collect();
    if reasons.is_empty() {
        return "no interface can announce addresses: none is an Ethernet link that is up and has an on-link prefix; give \
                one an address with its subnet's prefix length"
            .to_owned();
    }
    format!("no interface can announce addresses: {}", reasons.join("; "))
}

/// Returns the warnings of a node, most important first.
pub fn warnings(survey: &Survey, kernel: &KernelSettings) -> Vec<SpeakerWarning> {
    let segments = &survey.segments;
    let mut warnings = Vec::new();
    let mut warn = |kind, message| warnings.push(SpeakerWarning { kind, message });
    if segments.is_empty() {
        warn(WarningKind::NoUsableInterface, no_usable_interface(survey));
    }
    for LocalSegment { segment, carrier, .. } in segments {
        if !carrier {
            warn(
                WarningKind::NoCarrier,
                format!(
                    "{0}: no carrier, so nothing is announced there and other nodes take over: check cable, switch port \
                     and 802.1X",
                    segment.interface.name
                ),
            );
        }
        let (name, settings) = (&segment.interface.name, kernel.in_force(&segment.interface.name));
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
        if settings.rp_filter == 1 && !segment.interface.default_route {
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
    for (interface, bond) in &survey.rewritten_arp {
        warn(
            WarningKind::BondMode,
            format!(
                "{interface}: the bond {bond} is in mode 6 (balance-alb), which replaces the sender's link-layer address in \
                 ARP, so hosts learn several for one address and peers see a conflict: use mode 1 (active-backup) or 4 \
                 (802.3ad)"
            ),
        );
    }
    warnings
}

/// Returns a warning for each prefix that two of the interfaces that take part have on link.
pub fn ambiguous(segments: &[LocalSegment]) -> Vec<SpeakerWarning> {
    let warning = |(first, second, prefix)| SpeakerWarning {
        kind: WarningKind::AmbiguousInterface,
        message: format!(
            "{first} and {second} both have addresses of {prefix} on link: an address there is announced on the one with \
             the longer prefix, else on {first}; choose with spec.interfaces of an L2Advertisement"
        ),
    };
    ambiguities(segments).into_iter().map(warning).collect()
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::{interfaces::tests::local, rank::tests::segment};

    fn eth0(default_route: bool) -> LocalSegment {
        let mut segment = segment("eth0", 1, "192.0.2.0/24");
        segment.interface.default_route = default_route;
        local(2, segment)
    }

    fn on(segments: &[LocalSegment]) -> Survey {
        Survey { segments: segments.to_vec(), ..Survey::default() }
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
    #[test_case(true, (1, 0), (0, 0), false => Vec::<WarningKind>::new(); "arp_ignore of all is 1")]
    #[test_case(true, (0, 0), (1, 0), false => Vec::<WarningKind>::new(); "arp_ignore of the interface is 1")]
    #[test_case(false, (0, 1), (0, 0), false => vec![WarningKind::RpFilter])]
    #[test_case(false, (0, 0), (0, 1), false => vec![WarningKind::RpFilter])]
    #[test_case(false, (0, 1), (0, 2), false => Vec::<WarningKind>::new(); "loose filtering wins")]
    #[test_case(false, (0, 1), (0, 1), true => Vec::<WarningKind>::new(); "replies leave here")]
    fn settings_give_warnings(ipvs: bool, all: (u8, u8), own: (u8, u8), default_route: bool) -> Vec<WarningKind> {
        warnings(&on(&[eth0(default_route)]), &kernel(ipvs, all, own)).into_iter().map(|w| w.kind).collect()
    }

    #[test]
    fn missing_interfaces_give_warnings() {
        assert_eq!(warnings(&on(&[]), &KernelSettings::default())[0].kind, WarningKind::NoUsableInterface);
        let eth1 = local(3, segment("eth1", 2, "192.0.2.0/25"));
        assert_eq!(warnings(&on(&[eth0(true), eth1.clone()]), &KernelSettings::default()), []);
        let found = ambiguous(&[eth0(true), eth1]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, WarningKind::AmbiguousInterface);
        assert!(found[0].message.contains("eth0 and eth1 both have addresses of 192.0.2.0/25"), "{}", found[0].message);
    }

    #[test]
    fn node_without_a_segment_names_the_links_that_are_left_alone() {
        let link = |interface: &str, link_use, message: &str| LinkStatus {
            interface: interface.to_owned(),
            kind: None,
            addresses: vec![],
            addresses_left_out: 0,
            link_use,
            message: Some(message.to_owned()),
        };
        let links = vec![
            link("eth1", LinkUse::Skipped, "it is down: ip link set eth1 up"),
            link("docker0", LinkUse::Containers, "Docker's"),
        ];
        let found = warnings(&Survey { links, ..Survey::default() }, &KernelSettings::default());
        let expected = "no interface can announce addresses: eth1: it is down: ip link set eth1 up";
        assert_eq!((found[0].kind, found[0].message.as_str()), (WarningKind::NoUsableInterface, expected));
    }

    #[test]
    fn bond_that_rewrites_arp_is_named_with_the_segment_on_it() {
        let rewritten_arp = vec![("bond0.100".to_owned(), "bond0".to_owned())];
        let found = warnings(&Survey { rewritten_arp, ..on(&[eth0(true)]) }, &KernelSettings::default());
        assert_eq!(found.iter().map(|w| w.kind).collect::<Vec<_>>(), [WarningKind::BondMode]);
        assert!(found[0].message.starts_with("bond0.100: the bond bond0 is in mode 6"), "{}", found[0].message);
    }

    #[test]
    fn missing_carrier_gives_a_warning() {
        let found = warnings(&on(&[LocalSegment { carrier: false, ..eth0(true) }]), &KernelSettings::default());
        assert_eq!(found.iter().map(|w| w.kind).collect::<Vec<_>>(), [WarningKind::NoCarrier]);
        assert!(found[0].message.starts_with("eth0: no carrier"), "{}", found[0].message);
    }
}
