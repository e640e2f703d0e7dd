//! Comparison of observations with promises. A duration is judged only where a phase bounds it; the benchmark reports
//! typical durations.

use super::{Observation, Owner, Phase, Traffic};
use herald_lab::probe::CONNECT_INTERVAL;

/// New connections to one address that may fail where kube-proxy sees a change before the speaker does: those of a
/// tenth of a second. Two programs that watch one API server may differ by this much on a machine with two cores for
/// three nodes; no timer of either contributes to it.
const RACED: usize = (100 / CONNECT_INTERVAL.as_millis()) as usize;

/// Returns the broken parts of a promise, in words; none if it was kept.
#[must_use]
pub fn violations(phase: &Phase, seen: &Observation) -> Vec<String> {
    let promise = phase.promise(seen.target.policy);
    let mut broken = Vec::new();
    let mut demand = |kept: bool, what: String| {
        if !kept {
            broken.push(format!("{}, {} ({}): {what}", phase.name, seen.target.address, seen.target.policy));
        }
    };
    demand(!seen.macs.is_empty(), "no node answered for it".to_owned());
    demand(!seen.unanswered_at_the_end, "it was unanswered at the end".to_owned());
    let both = seen.two_macs_ms;
    match promise.owner {
        Owner::Stays => demand(seen.macs.len() <= 1, format!("its owner should stay, but {:?} answered", seen.macs)),
        Owner::Moves => {
            demand(seen.moves == 1, format!("it should move once, and moved {} times: {:?}", seen.moves, seen.macs));
            demand(both <= phase.bounds.two_macs_ms, format!("two nodes answered for {both:.0} ms"));
        }
        Owner::OneInTheEnd => {
            demand(both <= phase.bounds.two_macs_ms, format!("two nodes answered for {both:.0} ms"));
        }
    }
    let took = [
        ("the next owner answered after", seen.moved_after_ms.unwrap_or_default(), phase.bounds.moved_ms),
        ("no node answered for", seen.answer_gap_ms, phase.bounds.unanswered_ms),
        ("traffic stood still for", seen.data_gap_ms, phase.bounds.traffic_ms),
    ];
    for (what, ms, most) in took {
        demand(ms <= most, format!("{what} {ms:.0} ms, more than {most:.0}"));
    }
    match promise.traffic {
        Traffic::Unbroken => {
            demand(seen.lost == 0, format!("{} datagrams or lines were lost", seen.lost));
            demand(seen.resets == 0, format!("{} connections were reset", seen.resets));
            demand(seen.failed_connections == 0, format!("{} new connections failed", seen.failed_connections));
        }
        Traffic::NoNewConnectionLost => {
            demand(seen.failed_connections == 0, format!("{} new connections failed", seen.failed_connections));
        }
        Traffic::Raced => {
            let failed = seen.failed_connections;
            demand(failed <= RACED, format!("{failed} new connections failed, more than {RACED}"));
        }
        Traffic::Resumes => {}
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::{Bounds, Policy, Promise, Target};
    use herald_lab::probe::Mac;
    use test_case::test_case;

    const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

    fn quiet() -> Observation {
        Observation {
            target: Target { address: [192, 0, 2, 10].into(), policy: Policy::Cluster },
            lost: 0,
            resets: 0,
            failed_connections: 0,
            moves: 0,
            two_macs_ms: 0.0,
            answer_gap_ms: 0.0,
            data_gap_ms: 0.0,
            macs: vec![A],
            moved_after_ms: None,
            unanswered_at_the_end: false,
        }
    }

    fn moved() -> Observation {
        Observation {
            moves: 1,
            macs: vec![A, B],
            lost: 3,
            resets: 1,
            answer_gap_ms: 300.0,
            moved_after_ms: Some(320.0),
            ..quiet()
        }
    }

    fn phase(cluster: Promise) -> Phase {
        // The Local Service has the weakest promise, so that a mix-up of the two policies is detected.
        Phase {
            name: "a fault",
            act: |_| Ok(()),
            cluster,
            local: Promise::ONE_IN_THE_END,
            bounds: Bounds::CONTEST,
            metallb: None,
        }
    }

    #[test_case(Promise::NOTHING, quiet(), 0; "nothing happened")]
    #[test_case(Promise::NOTHING, Observation { answer_gap_ms: 900.0, ..quiet() }, 0; "a long time alone")]
    #[test_case(Promise::NOTHING, Observation { lost: 1, ..quiet() }, 1; "a lost datagram")]
    #[test_case(Promise::NOTHING, Observation { resets: 1, failed_connections: 1, ..quiet() }, 2; "a reset of a new connection")]
    #[test_case(Promise::NOTHING, Observation { macs: vec![A, B], moves: 1, ..quiet() }, 1; "another owner")]
    #[test_case(Promise::NOTHING, Observation { macs: Vec::new(), ..quiet() }, 1; "no owner")]
    #[test_case(Promise::NOTHING, Observation { unanswered_at_the_end: true, ..quiet() }, 1; "unanswered at the end")]
    #[test_case(Promise::SUCCEEDED, moved(), 0; "succession")]
    #[test_case(Promise::SUCCEEDED, quiet(), 1; "no successor")]
    #[test_case(Promise::SUCCEEDED, Observation { moves: 3, ..moved() }, 1; "three moves")]
    #[test_case(Promise::SUCCEEDED, Observation { two_macs_ms: 201.0, ..moved() }, 1; "both answered")]
    #[test_case(Promise::HANDED_OVER, Observation { two_macs_ms: 200.0, ..moved() }, 0; "make before break")]
    #[test_case(Promise::HANDED_OVER, Observation { two_macs_ms: 201.0, ..moved() }, 1; "both answered for too long")]
    #[test_case(Promise::HANDED_OVER, Observation { failed_connections: 1, ..moved() }, 1; "a new connection failed")]
    #[test_case(Promise::RACED, Observation { failed_connections: 5, ..moved() }, 0; "failures within the race")]
    #[test_case(Promise::RACED, Observation { failed_connections: 6, ..moved() }, 1; "failures beyond the race")]
    #[test_case(Promise::ONE_IN_THE_END, Observation { moves: 3, failed_connections: 9, ..moved() }, 0; "only the end matters")]
    fn broken_promises_are_counted(promise: Promise, seen: Observation, broken: usize) {
        let found = violations(&phase(promise), &seen);
        assert_eq!(found.len(), broken, "{found:#?}");
    }

    #[test_case(moved(), 0; "all within")]
    #[test_case(quiet(), 1; "owner did not move")]
    #[test_case(Observation { moved_after_ms: Some(501.0), ..moved() }, 1; "moved late")]
    #[test_case(Observation { answer_gap_ms: 401.0, ..moved() }, 1; "unanswered for too long")]
    #[test_case(Observation { data_gap_ms: 451.0, ..moved() }, 1; "no traffic for too long")]
    #[test_case(Observation { two_macs_ms: 1.0, ..moved() }, 1; "two at once")]
    fn exceeded_bounds_are_counted(seen: Observation, broken: usize) {
        let bounds = Bounds { moved_ms: 500.0, unanswered_ms: 400.0, traffic_ms: 450.0, two_macs_ms: 0.0 };
        let found = violations(&Phase { bounds, ..phase(Promise::SUCCEEDED) }, &seen);
        assert_eq!(found.len(), broken, "{found:#?}");
    }

    #[test]
    fn policy_selects_the_promise() {
        let seen = Observation { target: Target { policy: Policy::Local, ..quiet().target }, ..moved() };
        assert_eq!(violations(&phase(Promise::NOTHING), &seen), Vec::<String>::new());
    }

    #[test]
    fn violation_names_phase_address_and_policy() {
        let found = violations(&phase(Promise::NOTHING), &Observation { resets: 2, ..quiet() });
        assert_eq!(found, ["a fault, 192.0.2.10 (Cluster): 2 connections were reset"]);
    }
}
