//! Sampler `plain`: the examples as they are, for rules that need no negatives.

use onward_core::candle_core::Tensor;
use onward_core::{Batch, Input, NegativeSampler, Result, Role, Step, Values, Views};

onward_core::settings! {
    /// One positive view, the example itself, with its class beside it for losses that need it; no label is in the
    /// input, and there are no negatives. Windows of tokens become one-hot slots.
    ///
    /// # Reference
    /// What rules with a goodness for each class are given, as Mono-Forward's
    /// (<https://arxiv.org/abs/2501.09238>), and backpropagation.
    pub struct Plain {}
}

struct Sampler {
    /// Of text, the size of the vocabulary.
    tokens: Option<usize>,
}

impl NegativeSampler for Sampler {
    fn views(
        &mut self,
        batch: &Batch,
        _predict: &mut dyn FnMut() -> Result<Tensor>,
        _step: &Step,
    ) -> Result<Views> {
        Views::new(
            self.neutral(batch)?,
            vec![Role::Positive],
            batch.labels().ok().map(<[u32]>::to_vec),
        )
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
        Input::new(vec![slots], batch.size(), 1, &[width])
    }
}

onward_core::register! {
    dyn NegativeSampler, "plain", "the examples as they are, no negatives (as for Mono-Forward 2025, arXiv 2501.09238)",
    |_settings: Plain, context| Ok(Box::new(Sampler { tokens: context.tokenizer.as_ref().map(|_| context.classes) }))
}
