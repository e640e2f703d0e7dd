//! Ways to break the protocol on purpose: each takes one rule away, and the simulator must catch it.

/// A rule to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Claims are compared without their epoch.
    IgnoreEpoch,
    /// Claims are made at once after a start.
    SkipBarrier,
    /// A silent node is dead without asking its kernel.
    TakeOverWithoutProbing,
    /// A node that hears nothing claims as well.
    TakeOverWhileDeaf,
    /// Claims of the state file are live, whatever has happened since.
    TrustRememberedClaims,
    /// The API's rank decides between claims.
    BreakTiesByRank,
    /// A node deposed for its class takes the address back at once.
    RetakeWithoutHoldDown,
    /// A silent node is not covered.
    NoCover,
    /// An owner that hears a better claim goes on answering.
    KeepAnsweringAfterLoss,
    /// A node answers at once after a stall.
    AnswerAfterStall,
    /// Frames of a run that has not echoed this node count.
    SkipTwoWayCheck,
    /// A deaf owner is left alone.
    IgnoreDeafOwner,
    /// A move for a class is made with an old view of the API.
    MoveWithStaleView,
    /// The withdrawal of a deleted address is forgotten at once.
    ForgetDeletions,
    /// An unheard node counts as absent.
    IgnoreUnheardPeers,
    /// Digests are not compared.
    IgnoreDigests,
    /// A run does not notice that another one of its node is on the same segment.
    SpeakOnBoth,
}
