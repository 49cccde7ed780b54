//! Sampler `plain`: the examples as they are, for rules that need no negatives.

use onward_core::{Batch, Input, NegativeSampler, Prediction, Result, Role, Step, Values, Views};

onward_core::settings! {
    /// One positive view, the example itself, without a label in the input and without
    /// negatives. Windows of tokens become one-hot slots.
    ///
    /// # Reference
    /// The input of rules with a goodness for each class, such as Mono-Forward
    /// (<https://arxiv.org/abs/2501.09238>), and of backpropagation.
    pub struct Plain {}
}

struct Sampler {
    /// The size of the vocabulary, for text.
    tokens: Option<usize>,
}

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        Views::new(self.neutral(batch)?, vec![Role::Positive])
    }

    fn uses_labels(&self) -> bool {
        false
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        let Some(tokens) = self.tokens else {
            return Input::of(batch.examples().clone());
        };
        let index = batch.rows().clone();
        let width = index.dim(1)? * tokens;
        let slots = Values::OneHot {
            index,
            classes: tokens,
            strength: 1.,
        };
        Input::new([slots], batch.size(), 1, &[width])
    }
}

onward_core::register! {
    dyn NegativeSampler, "plain",
    "the examples as they are, no negatives (as in Mono-Forward 2025, arXiv 2501.09238)",
    |_settings: Plain, context| {
        let tokens = context.tokenizer.as_ref().map(|_| context.classes);
        Ok(Box::new(Sampler { tokens }))
    }
}
