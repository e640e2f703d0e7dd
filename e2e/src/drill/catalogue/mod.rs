//! The drills, grouped by the component that fails.

mod api;
mod endpoints;
mod flood;
mod moves;
mod mtu;
mod power;
mod speaker;
mod unheard;
mod updates;
mod upgrade;
mod wire;
mod witness;

use anyhow::Result;

use super::{Bounds, Drill, DrillRun, Owner, Phase, Promise, Traffic};

/// The component that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A speaker, while its node lives.
    Speaker,
    /// A node's power.
    Power,
    /// The network.
    Wire,
    /// The API server, and another component at the same time.
    Api,
    /// An endpoint of a Service.
    Endpoints,
    /// No component: the pods behind the Services are replaced.
    Updates,
    /// No component: a planned move.
    Moves,
    /// No component: a planned move while no speaker hears another.
    Unheard,
    /// A node's power, while a switch answers for it.
    Witness,
    /// A speaker or a node's power, while a host floods the wire.
    Flood,
    /// The MTU of the nodes' link.
    Mtu,
    /// No component: Herald is upgraded and rolled back.
    Upgrade,
}

impl Subject {
    /// All subjects.
    pub const ALL: [Self; 12] = [
        Self::Speaker,
        Self::Power,
        Self::Wire,
        Self::Api,
        Self::Endpoints,
        Self::Updates,
        Self::Moves,
        Self::Unheard,
        Self::Witness,
        Self::Flood,
        Self::Mtu,
        Self::Upgrade,
    ];

    /// Returns its drills, the most important one first.
    #[must_use]
    pub fn drills(self) -> &'static [Drill] {
        match self {
            Self::Speaker => speaker::DRILLS,
            Self::Power => power::DRILLS,
            Self::Wire => wire::DRILLS,
            Self::Api => api::DRILLS,
            Self::Endpoints => endpoints::DRILLS,
            Self::Updates => updates::DRILLS,
            Self::Moves => moves::DRILLS,
            Self::Unheard => unheard::DRILLS,
            Self::Witness => witness::DRILLS,
            Self::Flood => flood::DRILLS,
            Self::Mtu => mtu::DRILLS,
            Self::Upgrade => upgrade::DRILLS,
        }
    }
}

/// Returns all drills.
pub fn drills() -> impl Iterator<Item = &'static Drill> {
    Subject::ALL.into_iter().flat_map(Subject::drills)
}

/// The preparation of a drill that needs none.
fn nothing(_: &DrillRun<'_>) -> Result<()> {
    Ok(())
}

/// A phase that promises the same for both policies. Where an owner fails, its bounds are those of a take-over; where one
/// owner in the end is all that is promised, those of a network that is joined again.
const fn phase(name: &'static str, promise: Promise, act: fn(&mut super::ActivePhase<'_>) -> Result<()>) -> Phase {
    let bounds = match (promise.owner, promise.traffic) {
        (Owner::Moves, Traffic::Resumes) => Bounds::TAKE_OVER,
        (Owner::OneInTheEnd, _) => Bounds::REJOINED,
        _ => Bounds::CONTEST,
    };
    Phase { name, act, cluster: promise, local: promise, bounds, metallb: None }
}

impl Phase {
    const fn metallb(self, did: &'static str) -> Self {
        Self { metallb: Some(did), ..self }
    }

    const fn within(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    const fn local(self, promise: Promise) -> Self {
        Self { local: promise, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let drill_names: Vec<_> = drills().map(|drill| drill.name).collect();
        let phases: Vec<_> = drills().flat_map(|drill| drill.phases).map(|phase| phase.name).collect();
        for names in [drill_names, phases] {
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        }
    }

    #[test]
    fn every_drill_has_places_and_phases() {
        for drill in drills() {
            assert!(!drill.places.is_empty() && !drill.phases.is_empty(), "{}", drill.name);
        }
    }
}
