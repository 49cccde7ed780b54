//! The wrapper around samplers.

use std::sync::OnceLock;

use candle_core::Tensor;

use super::{has_shape, is_tame, is_tame_input, Checkable, Checked};
use crate::contract::build_context::BuildContext;
use crate::contract::prediction::Prediction;
use crate::contract::sampler::NegativeSampler;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{Augment, Examples, Passages};
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::flow::views::Views;

struct Facts {
    uses_labels: bool,
    smallest_batch: usize,
    /// The shape of its inputs, known after the first one.
    shape: OnceLock<Vec<usize>>,
}

impl Checkable for dyn NegativeSampler {
    fn checked(built: Box<Self>, called: String, context: &BuildContext) -> Result<Box<Self>> {
        let facts = |sampler: &Self| {
            Ok(Facts {
                uses_labels: sampler.uses_labels(),
                smallest_batch: sampler.smallest_batch(),
                shape: OnceLock::new(),
            })
        };
        Ok(Box::new(Checked::new(built, called, context, facts)?))
    }
}

impl Checked<dyn NegativeSampler, Facts> {
    /// Refuses an input with another number of examples or views than expected, or with
    /// another shape than the first input.
    fn check(&self, input: Input, batch: &Batch, views: usize) -> Result<Input> {
        let (found, expected) = ((input.batch(), input.views()), (batch.size(), views));
        if found != expected {
            let problem = format!(
                "returned {} views of {} examples, expected {views} of {}",
                found.1, found.0, expected.0
            );
            return Err(self.fault(problem));
        }
        let shape = self.facts.shape.get_or_init(|| input.shape().to_vec());
        has_shape(&self.called, "an input", input.shape(), shape)?;
        Ok(input)
    }

    /// The batch for the sampler: without labels, unless it uses them.
    fn shown(&self, batch: &Batch) -> Batch {
        match self.facts.uses_labels {
            true => batch.clone(),
            false => batch.hidden(),
        }
    }
}

impl NegativeSampler for Checked<dyn NegativeSampler, Facts> {
    fn views(&self, batch: &Batch, prediction: &Prediction<'_>, step: &Step) -> Result<Views> {
        let (size, least) = (batch.size(), self.facts.smallest_batch);
        if size < least {
            let problem =
                format!("expected at least {least} examples, found {size}; set a larger `batch`");
            return Err(Error::unfit(&self.called, problem));
        }
        let shown = self.shown(batch);
        let views = self.attempt(|sampler| sampler.views(&shown, prediction, step))?;
        let count = views.targets.roles().len();
        let input = self.check(views.input, batch, count)?;
        if !is_tame_input(&input) && is_tame(batch.examples()) {
            let problem = "returned views that are not finite, for finite examples";
            return Err(self.fault(problem.into()));
        }
        let targets = match views.targets.has_labels() {
            true => views.targets,
            // Blocks that use labels get them from the batch.
            false => views
                .targets
                .with_labels(batch.labels().ok().map(<[u32]>::to_vec)),
        };
        if let (Ok(found), Ok(expected)) = (targets.labels(), batch.labels()) {
            if found.len() != expected.len() {
                let (found, expected) = (found.len(), expected.len());
                return Err(self.fault(format!("returned {found} labels, expected {expected}")));
            }
        }
        Ok(Views { input, targets })
    }

    fn uses_labels(&self) -> bool {
        self.facts.uses_labels
    }

    fn smallest_batch(&self) -> usize {
        self.facts.smallest_batch
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        self.check(
            self.attempt(|sampler| sampler.neutral(&batch.hidden()))?,
            batch,
            1,
        )
    }

    fn hypotheses(&self, batch: &Batch, candidates: &Tensor) -> Result<Option<Input>> {
        let batch = batch.hidden();
        let input = self.attempt(|sampler| sampler.hypotheses(&batch, candidates))?;
        let views = candidates.dim(0)?;
        input
            .map(|input| self.check(input, &batch, views))
            .transpose()
    }

    fn refresh(
        &self,
        train: &dyn Examples,
        predict: &dyn Fn(&Batch) -> Result<Tensor>,
        step: &Step,
    ) -> Result<()> {
        let hidden = Hidden(train);
        let train = match self.facts.uses_labels {
            true => train,
            false => &hidden,
        };
        self.attempt(|sampler| sampler.refresh(train, predict, step))
    }
}

/// Examples without their labels.
struct Hidden<'a>(&'a dyn Examples);

impl Examples for Hidden<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch> {
        Ok(self.0.batch(indices, augment)?.hidden())
    }

    fn passages(&self) -> Option<Passages<'_>> {
        self.0.passages()
    }
}
