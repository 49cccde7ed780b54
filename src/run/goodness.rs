//! The goodness of the layers: under a label, and of the views that a run learns from.

use candle_core::{DType, Tensor};

use super::Run;
use crate::contract::prediction::Prediction;
use crate::contract::sampler::NegativeSampler;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{spread, Split};
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::flow::views::{Role, Views};

/// The goodness of a layer for views of some examples.
#[derive(Clone, Debug, Default)]
pub(crate) struct ViewGoodness {
    pub block: String,
    pub positive: Vec<f32>,
    pub negative: Vec<f32>,
}

/// The number of examples in a batch.
const BATCH: usize = 100;

impl Run {
    /// The goodness of every layer for each of `examples`, `(B, …)`: the name of the
    /// block, and a tensor `(B,)`, or with a column per class `(B, C)`. `labels` are in
    /// the input; without them it has no label.
    ///
    /// # Errors
    /// As [`Run::activities`]; [`Error::Unfit`] if the sampler puts no label in the
    /// input, if the activities do not depend on it, as in a recurrent network, which
    /// shows those of its pass without a label, or if the labels are not one class for
    /// each example.
    pub fn goodness(
        &self,
        examples: Tensor,
        labels: Option<&[u32]>,
    ) -> Result<Vec<(String, Tensor)>> {
        let (batch, _pass) = (self.without_labels(examples)?, self.pass()?);
        let activities = match labels {
            None => self.activities_of(&batch)?,
            Some(labels) => {
                let (classes, size) = (self.data.spec.classes.len() as u32, batch.size());
                if labels.len() != size || labels.iter().any(|&label| label >= classes) {
                    let problem =
                        format!("expected {size} labels, one for each example, below {classes}");
                    return Err(Error::unfit("goodness", problem));
                }
                let with = |labels: &[u32]| -> Result<Vec<(String, Tensor)>> {
                    let candidates = Tensor::new(labels, batch.device())?.unsqueeze(0)?;
                    let input = self.sampler.hypotheses(&batch.hidden(), &candidates)?;
                    let input = input.ok_or_else(|| {
                        let problem =
                            "the sampler puts no label in the input; leave the labels out";
                        Error::unfit("goodness", problem)
                    })?;
                    self.activities_of_input(&batch, input)
                };
                let found = with(labels)?;
                let others: Vec<u32> = labels.iter().map(|label| (label + 1) % classes).collect();
                if same(&found, &with(&others)?)? {
                    return Err(Error::unfit(&self.config.architecture, UNMOVED));
                }
                found
            }
        };
        let blocks = &self.architecture.net().blocks;
        let blocks = blocks.iter().zip(activities);
        blocks
            .map(|(block, (name, activity))| Ok((name, block.goodness(&activity)?)))
            .collect()
    }

    /// The activities of every layer for this input instead of the neutral view.
    fn activities_of_input(&self, batch: &Batch, input: Input) -> Result<Vec<(String, Tensor)>> {
        let shown = Shown {
            sampler: &*self.sampler,
            input,
        };
        self.activities_from(batch, &shown)
    }

    /// The views of a batch in the first step of the run. `prepared` is the batch as the
    /// network sees it, for the prediction that a sampler may need.
    ///
    /// # Errors
    /// Errors of the sampler, and of the prediction that it may need.
    pub(super) fn views(&self, batch: &Batch, prepared: &Batch) -> Result<Views> {
        let (seed, _pass) = (self.config.run.seed, self.pass()?);
        let step = Step {
            epochs: self.epochs(),
            train: true,
            ..Step::evaluation(seed)
        };
        let net = self.architecture.net();
        let readout = net
            .readouts
            .iter()
            .find(|readout| readout.cheap && readout.log_probabilities);
        let prediction = Prediction::new(|| {
            let readout = readout.ok_or_else(|| {
                let problem = "the sampler needs the network's prediction, but the network \
                               has no cheap readout with probabilities";
                Error::unfit("views", problem)
            })?;
            let hidden = prepared.hidden();
            self.architecture
                .scores(&hidden, &*self.sampler, readout, &Step::evaluation(seed))
        });
        self.sampler.views(batch, &prediction, &step)
    }

    /// The goodness of every layer for the positive and the negative views of at most
    /// `most` examples of a part. Of a goodness with a column per class, the column of
    /// the label counts as positive, the others as negative.
    ///
    /// # Errors
    /// As [`Run::activities`](super::Run::activities); [`Error::Unfit`] if the activities
    /// of all views are the same.
    pub(crate) fn goodness_of_views(&self, split: Split, most: usize) -> Result<Vec<ViewGoodness>> {
        let examples = self.data.split(split);
        let mut layers: Vec<ViewGoodness> = Vec::new();
        for indices in spread(examples.len(), most).chunks(BATCH) {
            let _pass = self.pass()?;
            let batch = self.prepare(&examples.batch(indices, None)?)?;
            let views = self.views(&batch, &batch)?;
            for (view, role) in views.targets.roles().iter().enumerate() {
                let activities = self.activities_of_input(&batch, views.input.view(view)?)?;
                let blocks = self.architecture.net().blocks.iter().zip(activities);
                for (index, (block, (_, activity))) in blocks.enumerate() {
                    if layers.len() == index {
                        layers.push(ViewGoodness {
                            block: block.name().into(),
                            ..ViewGoodness::default()
                        });
                    }
                    let goodness = block.goodness(&activity)?;
                    layers[index].add(&goodness, *role, batch.labels().ok())?;
                }
            }
        }
        let bits = |values: &[f32]| {
            values
                .iter()
                .map(|value| value.to_bits())
                .collect::<Vec<_>>()
        };
        let is_alike = |layer: &ViewGoodness| bits(&layer.positive) == bits(&layer.negative);
        if !layers.is_empty() && layers.iter().all(is_alike) {
            return Err(Error::unfit(&self.config.architecture, UNMOVED));
        }
        Ok(layers)
    }
}

impl ViewGoodness {
    /// Adds the goodness of a view of a batch, `(B,)` or `(B, C)`.
    fn add(&mut self, goodness: &Tensor, role: Role, labels: Option<&[u32]>) -> Result<()> {
        let columns = match *goodness.dims() {
            [_] => 1,
            [_, columns] => columns,
            // A column per class at each position of a sequence.
            _ => return Ok(()),
        };
        let values = goodness
            .to_dtype(DType::F32)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        for (row, values) in values.chunks(columns.max(1)).enumerate() {
            let label = labels.and_then(|labels| labels.get(row));
            for (column, value) in values.iter().enumerate() {
                let is_positive = match columns {
                    1 => role == Role::Positive,
                    _ => label.is_some_and(|label| *label as usize == column),
                };
                match is_positive {
                    true => self.positive.push(*value),
                    false => self.negative.push(*value),
                }
            }
        }
        Ok(())
    }
}

/// What is wrong with activities that are the same with any label.
const UNMOVED: &str = "shows activities that do not depend on the label: those of a \
                                  pass without it, or of dead units";

/// Whether all activities are the same, bit by bit.
fn same(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> Result<bool> {
    for ((_, a), (_, b)) in a.iter().zip(b) {
        if a.dims() != b.dims() || a.ne(b)?.max_all()?.to_scalar::<u8>()? > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A sampler whose neutral view is this input.
struct Shown<'a> {
    sampler: &'a dyn NegativeSampler,
    input: Input,
}

impl NegativeSampler for Shown<'_> {
    fn views(&self, batch: &Batch, prediction: &Prediction<'_>, step: &Step) -> Result<Views> {
        self.sampler.views(batch, prediction, step)
    }

    fn neutral(&self, _: &Batch) -> Result<Input> {
        Ok(self.input.clone())
    }
}
