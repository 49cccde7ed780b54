//! The class of a learning rule.

crate::choices! {
    /// What kind of rule a block learns by. Figures of different classes should not be
    /// compared without naming them.
    pub enum Rule {
        /// Positive views against negative views, as in Forward-Forward. A gradient is
        /// used within a block.
        Contrast = "contrast",
        /// As contrast, with gradients that reach two neighbouring blocks, as in
        /// Trifecta: semi-local.
        ContrastOfPairs = "contrast of pairs",
        /// Each block has its own classifier, and learns from its loss: close to deep
        /// supervision. A gradient is used within a block; there are no negatives.
        LocalClassifier = "local classifier",
        /// Weights are solved for: no gradient.
        ClosedForm = "closed form",
        /// From the difference of two forward passes, the second with the error of the
        /// first in its input: no gradient.
        SecondPass = "second pass",
        /// Any other rule without a gradient, such as Hebbian learning. A layer may change
        /// its weights in every pass, so networks whose time steps share weights refuse it.
        NoGradient = "no gradient",
        /// The blocks do not learn.
        Frozen = "frozen",
        /// A gradient through the whole network: a baseline, not forward-only.
        Backpropagation = "backpropagation",
    }
}

impl Rule {
    /// Whether blocks learn to reject negative views.
    pub fn has_negatives(self) -> bool {
        matches!(self, Self::Contrast | Self::ContrastOfPairs)
    }

    /// How far a gradient reaches.
    pub fn gradient(self) -> &'static str {
        match self {
            Self::Contrast | Self::LocalClassifier => "within a block",
            Self::ContrastOfPairs => "within two blocks",
            Self::ClosedForm | Self::SecondPass | Self::NoGradient | Self::Frozen => "none",
            Self::Backpropagation => "through the network",
        }
    }
}
