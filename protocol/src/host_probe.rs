//! Liveness of a silent node's kernel: the results of probes, and the reports of others.
//!
//! A kernel is asked two questions. Every kernel answers whether it has its own address (ARP, Neighbour Discovery), but
//! a switch may answer for it, dead or alive, with the right link-layer address as Ethernet source: Linux bridges with
//! `neigh_suppress` do (`br_do_proxy_suppress_arp`, net/bridge/br_arp_nd_proxy.c). No switch answers a ping (an ICMP or
//! ICMPv6 echo request) for another host, but many firewalls drop it.

use std::{net::IpAddr, time::Duration};

use crate::{
    mac::MacAddr,
    ping::PingHabit,
    timers::{KERNEL_IS_ALIVE, PING_CONTROLS, PING_PROBES, PING_SILENCE, PROBE_CALM, PROBE_EVERY, PROBES},
    wire::{Kernel, Question},
};

/// Questions of one kind, sent one after the other.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// When the next question goes out; `None`: none does.
    next: Option<Duration>,
    /// When the last question went out, if it has not been answered.
    asked: Option<Duration>,
    /// When the first of the questions went out that were not answered in a row.
    first_unanswered: Option<Duration>,
    unanswered: u32,
}

impl Row {
    /// Returns a row whose first question is due now.
    fn begin(now: Duration) -> Self {
        Self { next: Some(now), ..Self::default() }
    }

    /// Returns whether a question is due; counts the previous one as unanswered if it was not answered.
    fn due(&mut self, now: Duration) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        if let Some(asked) = self.asked {
            self.first_unanswered.get_or_insert(asked);
            self.unanswered = self.unanswered.saturating_add(1);
        }
        self.asked = Some(now);
        self.next = Some(now + PROBE_EVERY);
        true
    }

    /// The last question was answered.
    fn answered(&mut self, now: Duration) {
        *self = Self { next: self.next.map(|_| now + PROBE_CALM), ..Self::default() };
    }

    /// Returns since when the kernel is silent, if at least `at_least` questions were not answered in a row. `report`:
    /// when others last had an answer. An answer from after the first of these questions outweighs them, for as long as
    /// `weighs`.
    fn silent_since(
        &self,
        now: Duration,
        at_least: u32,
        report: Option<Duration>,
        weighs: Duration,
    ) -> Option<Duration> {
        let first = self.first_unanswered.filter(|_| self.unanswered >= at_least)?;
        match report {
            Some(answered) if answered >= first => (now >= answered + weighs).then_some(answered),
            _ => Some(first),
        }
    }
}

/// A kernel counts as silent, for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
    /// The question that the kernel does not answer.
    pub(crate) question: Question,
    /// Since when. A node that takes the kernel for dead must have heard, and been heard, after that.
    pub(crate) since: Duration,
    /// Whether this node found out by itself.
    pub(crate) first_hand: bool,
}

/// Asks a node's kernel for signs of life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostProbe {
    /// Questions for its address.
    address: Row,
    /// Pings, if the kernel is known to answer them.
    ping: Row,
    /// Since when others are pinged as well, to see whether pings are answered at all.
    controls_since: Option<Duration>,
    /// When the kernel last answered any question.
    answered: Option<Duration>,
    habit: PingHabit,
    /// The node was found dead by pings that were not answered, and has not been asked since.
    missed_pings: bool,
}

impl HostProbe {
    /// Begins to ask, unless it does so already. An answer to a ping before `lately` does not show whether the kernel
    /// answers pings now.
    pub(crate) fn watch(&mut self, now: Duration, target: (IpAddr, MacAddr), lately: Duration) {
        self.habit.aim(target);
        if self.address.next.is_none() {
            self.habit.expire(lately);
            *self = Self { address: Row::begin(now), answered: self.answered, habit: self.habit, ..Self::default() };
        }
        if !self.answers_pings() {
            (self.ping, self.controls_since) = (Row::default(), None);
        } else if self.ping.next.is_none() {
            self.ping = Row::begin(now);
        }
    }

    /// Stops asking.
    pub(crate) fn stop(&mut self) {
        if self.missed_pings {
            // The node is back, and did not answer: it may have ceased to answer pings.
            self.habit.forget();
        }
        *self = Self { habit: self.habit, ..Self::default() };
    }

    /// Stops asking: the node is dead. Returns whether pings have shown that.
    pub(crate) fn conclude(&mut self, silence: Option<Silence>) -> bool {
        let missed_pings = silence.is_some_and(|silence| silence.first_hand && silence.question == Question::Ping);
        *self = Self { habit: self.habit, missed_pings, ..Self::default() };
        missed_pings
    }

    /// Returns whether this node has found the other dead by pings that were not answered.
    pub(crate) fn has_missed_pings(&self) -> bool {
        self.missed_pings
    }

    /// Begins to count again: questions that were not answered while this node could not hear prove nothing.
    pub(crate) fn recount(&mut self, now: Duration) {
        if self.is_watched() {
            let ping = self.ping.next.map(|_| Row::begin(now)).unwrap_or_default();
            let (answered, habit) = (self.answered, self.habit);
            *self = Self { address: Row::begin(now), ping, answered, habit, ..Self::default() };
        }
    }

    /// Returns whether the kernel is asked.
    pub(crate) fn is_watched(&self) -> bool {
        self.address.next.is_some()
    }

    /// Returns when the next question goes out.
    pub(crate) fn next(&self) -> Option<Duration> {
        [self.address.next, self.ping.next].into_iter().flatten().min()
    }

    /// Returns whether the question for its address is due. Counts the previous one as unanswered if it was not
    /// answered.
    pub(crate) fn address_due(&mut self, now: Duration) -> bool {
        self.address.due(now)
    }

    /// Returns whether a ping is due. Counts the previous one as unanswered if it was not answered.
    pub(crate) fn ping_due(&mut self, now: Duration) -> bool {
        let due = self.ping.due(now);
        if due && self.ping.unanswered + PING_CONTROLS >= PING_PROBES {
            self.controls_since.get_or_insert(now);
        }
        if due && self.ping.unanswered > PING_PROBES {
            // The pings may slow down now: either no host answers pings, or others report that this one does.
            self.ping.next = Some(now + PROBE_CALM);
        }
        due
    }

    /// Returns whether so many pings were not answered that another host has to show that pings are answered at all.
    pub(crate) fn wants_controls(&self) -> bool {
        self.controls_since.is_some()
    }

    /// The kernel has answered that it has its address.
    pub(crate) fn answered(&mut self, now: Duration) {
        self.address.answered(now);
        self.answered = Some(now);
    }

    /// The node has done something that only a living one does: its missing answers so far prove nothing.
    pub(crate) fn revive(&mut self, now: Duration) {
        if self.missed_pings {
            self.stop();
        }
        self.recount(now);
        self.answered(now);
    }

    /// The kernel has answered a ping, which no other host can.
    pub(crate) fn ponged(&mut self, now: Duration, target: (IpAddr, MacAddr)) {
        self.habit.aim(target);
        self.habit.answered(now);
        self.answered(now);
        self.ping.answered(now);
        self.controls_since = None;
        if self.is_watched() && self.ping.next.is_none() {
            self.ping.next = Some(now + PROBE_CALM);
        }
    }

    /// Returns whether the kernel is known to answer this node's pings.
    pub(crate) fn answers_pings(&self) -> bool {
        self.habit.last_answer().is_some()
    }

    /// Returns what is known of whether it answers pings.
    pub(crate) fn habit(&mut self) -> &mut PingHabit {
        &mut self.habit
    }

    /// Returns when it is to be asked whether it answers pings, and whether that is because it used to and did not;
    /// `None`: it is not asked.
    pub(crate) fn ask_habit(&self, speaks: bool) -> Option<(Duration, bool)> {
        // While it is watched and known to answer, it is asked all the time.
        (speaks || self.is_watched() && !self.answers_pings()).then(|| self.habit.next())
    }

    /// Returns why the kernel counts as silent, by this node's own findings. `controls`: when another host last
    /// answered a ping of this node.
    pub(crate) fn silence(&self, now: Duration, reports: &Reports, controls: Option<Duration>) -> Option<Silence> {
        let found = |question, since| Silence { question, since, first_hand: true };
        if let Some(since) = self.address.silent_since(now, PROBES, reports.answered, KERNEL_IS_ALIVE) {
            return Some(found(Question::Address, since));
        }
        self.ping.silent_since(now, PING_PROBES, reports.ponged, PING_SILENCE)?;
        let others_answer = self.controls_since.filter(|since| controls.is_some_and(|at| at > *since));
        others_answer.map(|since| found(Question::Ping, since))
    }

    /// Returns when the first of the probes for its address went out that were not answered, however few.
    pub(crate) fn unanswered_since(&self) -> Option<Duration> {
        self.address.first_unanswered
    }

    /// Returns whether it has answered within the last second.
    pub(crate) fn is_alive(&self, now: Duration) -> bool {
        self.answered.is_some_and(|answered| now.saturating_sub(answered) < KERNEL_IS_ALIVE)
    }

    /// Returns the report to others. `evidence`: when this node last heard anything; without it, silence proves
    /// nothing. `controls`: when another host last answered a ping.
    pub(crate) fn report(
        &self,
        now: Duration,
        evidence: Option<Duration>,
        controls: Option<Duration>,
    ) -> Option<Kernel> {
        if self.missed_pings {
            return Some(Kernel::Silent(Question::Ping));
        }
        if let Some(Silence { question, since, .. }) = self.silence(now, &Reports::default(), controls) {
            return evidence.filter(|evidence| *evidence > since).map(|_| Kernel::Silent(question));
        }
        // An answer for the address may come from a switch; of a node that is known to answer pings it proves nothing.
        let (question, answered) = match self.habit.last_answer() {
            Some(ponged) => (Question::Ping, Some(ponged)),
            None => (Question::Address, self.answered),
        };
        let answered = answered.filter(|_| self.is_watched())?;
        Some(Kernel::Answered(question, now.saturating_sub(answered)))
    }
}

/// The reports of others about a peer's kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reports {
    /// When its kernel last answered one of them, whatever the question.
    answered: Option<Duration>,
    /// When it last answered a ping of one of them.
    ponged: Option<Duration>,
    /// When one of them last reported that it does not answer for its address.
    silent: Option<Duration>,
    /// When one of them last reported that it has ceased to answer pings.
    missed_pings: Option<Duration>,
}

impl Reports {
    /// One of them reports.
    pub(crate) fn note(&mut self, now: Duration, kernel: Kernel) {
        match kernel {
            Kernel::Answered(question, age) => {
                let at = Some(now.saturating_sub(age));
                self.answered = self.answered.max(at);
                if question == Question::Ping {
                    self.ponged = self.ponged.max(at);
                }
            }
            Kernel::Silent(Question::Address) => self.silent = Some(now),
            Kernel::Silent(Question::Ping) => self.missed_pings = Some(now),
        }
    }

    /// The node has shown that it lives.
    pub(crate) fn revive(&mut self) {
        self.missed_pings = None;
    }

    /// Returns whether a peer has asked the kernel since then. A peer that asks gets an answer, or reports that it gets none.
    pub(crate) fn any_since(&self, since: Duration) -> bool {
        self.answered.max(self.silent).max(self.missed_pings).is_some_and(|last| last >= since)
    }

    /// Returns whether others found that it does not answer for its address, and none of them had an answer of any kind
    /// during their three probes.
    pub(crate) fn say_silent(&self) -> bool {
        let probed = PROBE_EVERY * PROBES;
        self.silent.is_some_and(|silent| self.answered.is_none_or(|answered| answered + probed < silent))
    }

    /// Returns why the kernel counts as silent, if others ping it without an answer and none had an answer to a ping
    /// meanwhile. An answer for its address does not count: a switch may have given it.
    pub(crate) fn silence(&self) -> Option<Silence> {
        let missed = self.missed_pings?;
        let since = missed.saturating_sub(PING_SILENCE);
        let contradicted = self.ponged.is_some_and(|ponged| ponged >= since);
        (!contradicted).then_some(Silence { question: Question::Ping, since, first_hand: false })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const TARGET: (IpAddr, MacAddr) = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), MacAddr([2, 0, 0, 0, 0, 1]));
    /// When the node falls silent.
    const SILENT: Duration = ms(100_000);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Returns a silent node that answered a ping a while ago, or never did.
    fn watched(answers_pings: bool) -> HostProbe {
        let mut kernel = HostProbe::default();
        if answers_pings {
            kernel.ponged(ms(60_000), TARGET);
        }
        kernel.watch(SILENT, TARGET, ms(0));
        kernel
    }

    /// Asks each question that is due until then, while the switch answers for the node's address. Returns how many
    /// pings went out.
    fn run(kernel: &mut HostProbe, until: Duration, suppressed: bool) -> u32 {
        let mut pings = 0;
        while let Some(now) = kernel.next().filter(|next| *next <= until) {
            pings += u32::from(kernel.ping_due(now));
            if kernel.address_due(now) && suppressed {
                kernel.answered(now);
            }
        }
        pings
    }

    fn silence(kernel: &HostProbe, now: Duration, reports: &Reports) -> Option<Question> {
        // Another host answers all pings.
        kernel.silence(now, reports, Some(now)).map(|silence| silence.question)
    }

    #[test]
    fn unanswered_pings_outweigh_answers_for_the_address() {
        let mut kernel = watched(true);
        let almost = SILENT + PING_SILENCE - ms(1);
        assert_eq!(run(&mut kernel, almost, true), PING_PROBES);
        assert_eq!(silence(&kernel, almost, &Reports::default()), None);
        run(&mut kernel, SILENT + PING_SILENCE, true);
        assert_eq!(silence(&kernel, SILENT + PING_SILENCE, &Reports::default()), Some(Question::Ping));
    }

    #[test]
    fn unanswered_pings_prove_nothing_unless_other_hosts_answer() {
        let mut kernel = watched(true);
        let end = SILENT + PING_SILENCE;
        run(&mut kernel, end, true);
        let controls_since = end - PROBE_EVERY * PING_CONTROLS;
        for (controls, expected) in
            [(None, None), (Some(controls_since), None), (Some(controls_since + ms(1)), Some(controls_since))]
        {
            let silence = kernel.silence(end, &Reports::default(), controls);
            assert_eq!(silence.map(|silence| silence.since), expected, "{controls:?}");
        }
    }

    #[test]
    fn any_pong_restarts_the_count() {
        let mut kernel = watched(true);
        run(&mut kernel, SILENT + PING_SILENCE - ms(1), true);
        kernel.ponged(SILENT + PING_SILENCE - ms(1), TARGET);
        let end = SILENT + PING_SILENCE * 2;
        run(&mut kernel, end, true);
        assert_eq!(silence(&kernel, end, &Reports::default()), None);
        run(&mut kernel, end + PROBE_CALM, true);
        assert_eq!(silence(&kernel, end + PROBE_CALM, &Reports::default()), Some(Question::Ping));
    }

    #[test]
    fn node_not_known_to_answer_pings_is_not_missed() {
        for lately in [None, Some(ms(60_001))] {
            let mut kernel = HostProbe::default();
            if lately.is_some() {
                kernel.ponged(ms(60_000), TARGET);
            }
            kernel.watch(SILENT, TARGET, lately.unwrap_or_default());
            let end = SILENT + PING_SILENCE * 10;
            assert_eq!(run(&mut kernel, end, true), 0);
            assert_eq!(silence(&kernel, end, &Reports::default()), None);
            assert!(kernel.ask_habit(false).is_some(), "it is asked whether it answers");
            kernel.ponged(end, TARGET);
            assert_eq!(run(&mut kernel, end + PROBE_CALM, true), 1);
        }
    }

    #[test]
    fn node_known_to_answer_pings_is_reported_by_pings_only() {
        let age = |kernel: &HostProbe, now| kernel.report(now, Some(now), Some(now));
        let mut kernel = watched(true);
        run(&mut kernel, SILENT + ms(200), true);
        assert_eq!(age(&kernel, SILENT + ms(200)), Some(Kernel::Answered(Question::Ping, ms(40_200))));
        run(&mut kernel, SILENT + PING_SILENCE, true);
        assert_eq!(age(&kernel, SILENT + PING_SILENCE), Some(Kernel::Silent(Question::Ping)));
        assert_eq!(
            kernel.report(SILENT + PING_SILENCE, Some(SILENT), None),
            Some(Kernel::Answered(Question::Ping, ms(41_600)))
        );

        let mut kernel = watched(false);
        run(&mut kernel, SILENT + ms(250), true);
        assert_eq!(age(&kernel, SILENT + ms(250)), Some(Kernel::Answered(Question::Address, ms(50))));
        let mut kernel = watched(false);
        run(&mut kernel, SILENT + ms(150), false);
        assert_eq!(age(&kernel, SILENT + ms(150)), Some(Kernel::Silent(Question::Address)));
        assert_eq!(kernel.report(SILENT + ms(150), Some(SILENT), None), None, "it hears nothing");
    }

    #[test]
    fn death_found_by_pings_is_reported_until_the_node_is_heard() {
        let mut kernel = watched(true);
        let end = SILENT + PING_SILENCE;
        run(&mut kernel, end, true);
        let found = kernel.silence(end, &Reports::default(), Some(end));
        assert!(kernel.conclude(found) && kernel.has_missed_pings());
        assert_eq!((kernel.next(), kernel.report(end, None, None)), (None, Some(Kernel::Silent(Question::Ping))));
        kernel.stop();
        assert_eq!((kernel.report(end, Some(end), Some(end)), kernel.answers_pings()), (None, false));

        let told = found.map(|silence| Silence { first_hand: false, ..silence });
        assert!(!watched(true).conclude(told), "a report of others is not passed on");
    }

    /// The answer that another node had just before the death may be from after the first unanswered probe of this one.
    #[test]
    fn reported_answer_outweighs_silence_for_a_while_only() {
        let mut kernel = watched(false);
        let end = SILENT + ms(150);
        run(&mut kernel, end, false);
        let answered_at = |at: Duration| {
            let mut reports = Reports::default();
            reports.note(at, Kernel::Answered(Question::Address, Duration::ZERO));
            reports
        };
        assert_eq!(silence(&kernel, end, &answered_at(SILENT - ms(1))), Some(Question::Address));
        assert_eq!(silence(&kernel, end, &answered_at(SILENT)), None);
        assert_eq!(silence(&kernel, SILENT + ms(999), &answered_at(SILENT)), None);
        assert_eq!(silence(&kernel, SILENT + ms(1000), &answered_at(SILENT)), Some(Question::Address));
    }

    #[test]
    fn answers_for_the_address_do_not_outweigh_unanswered_pings() {
        for (question, age, dead) in [
            (Question::Address, ms(0), true),
            (Question::Ping, ms(0), false),
            (Question::Ping, PING_SILENCE, false),
            (Question::Ping, PING_SILENCE + ms(1), true),
        ] {
            let mut reports = Reports::default();
            reports.note(SILENT, Kernel::Silent(Question::Ping));
            reports.note(SILENT, Kernel::Answered(question, age));
            assert_eq!(reports.silence().is_some(), dead, "{question:?} {age:?} ago");
            reports.revive();
            assert_eq!(reports.silence(), None);
        }
    }
}
