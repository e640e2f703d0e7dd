//! The rules that can be broken on purpose.

use herald_protocol::mutation::Mutation;

/// All mutations.
pub const ALL: [Mutation; 17] = [
    Mutation::IgnoreEpoch,
    Mutation::SkipBarrier,
    Mutation::TakeOverWithoutProbing,
    Mutation::TakeOverWhileDeaf,
    Mutation::TrustRememberedClaims,
    Mutation::BreakTiesByRank,
    Mutation::RetakeWithoutHoldDown,
    Mutation::NoCover,
    Mutation::KeepAnsweringAfterLoss,
    Mutation::AnswerAfterStall,
    Mutation::SkipTwoWayCheck,
    Mutation::IgnoreDeafOwner,
    Mutation::MoveWithStaleView,
    Mutation::ForgetDeletions,
    Mutation::IgnoreUnheardPeers,
    Mutation::IgnoreDigests,
    Mutation::SpeakOnBoth,
];
