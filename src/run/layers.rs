//! The activities of the layers, and what a probe on each of them can read.

use candle_core::{Tensor, D};
use candle_nn::Init;

use super::{Run, Score};
use crate::contract::sampler::NegativeSampler;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{spread, Examples, Split};
use crate::flow::input::{Input, Normalise};
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::modules::cells::Cells;
use crate::modules::least_squares::LeastSquares;

/// The most training examples that a probe learns from.
const EXAMPLES: usize = 10_000;

/// The most numbers of a layer that a probe sees; maps are averaged over a grid.
const INPUTS: usize = 2048;

/// The ridge of a probe, relative to the mean of the diagonal.
const RIDGE: f64 = 0.001;

impl Run {
    /// The activity of every layer for each of `examples`, `(B, …)`, without a label in
    /// the input: the name of the block, and a tensor `(B, …)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the examples are not as those of the data; [`Error::Unfit`] if
    /// the architecture does not show its activities; errors of the plugins.
    pub fn activities(&self, examples: Tensor) -> Result<Vec<(String, Tensor)>> {
        let batch = self.without_labels(examples)?;
        self.activities_of(&batch)
    }

    pub(super) fn activities_of(&self, batch: &Batch) -> Result<Vec<(String, Tensor)>> {
        self.activities_from(batch, &*self.sampler)
    }

    pub(super) fn activities_from(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
    ) -> Result<Vec<(String, Tensor)>> {
        let step = Step::evaluation(self.config.run.seed);
        let batch = batch.hidden();
        let _pass = self.pass()?;
        let activities = self.architecture.activities(&batch, sampler, &step)?;
        if activities.is_empty() {
            let problem = "does not show the activities of its layers";
            return Err(Error::unfit(&self.config.architecture, problem));
        }
        Ok(self.blocks().into_iter().zip(activities).collect())
    }

    /// The score of a probe on each layer: ridge regression from its activity, scaled to
    /// mean square 1, to the one-hot label. The probe learns from at most 10,000 training
    /// examples, spread over it; maps are averaged over a grid that leaves at most 2048
    /// numbers.
    ///
    /// # Errors
    /// As [`Run::activities`]; [`Error::Unfit`] for data with a label for each position.
    pub fn probe_layers(&self, split: Split) -> Result<Vec<(String, Score)>> {
        if self.data.spec.positions > 1 {
            let problem = "the data have a label for each position, expected one for each example";
            return Err(Error::unfit("probe", problem));
        }
        let classes = self.data.spec.classes.len();
        let mut probes: Vec<(String, LeastSquares)> = Vec::new();
        self.for_batches(&*self.data.train, EXAMPLES, |rows, labels| {
            for (index, (name, rows)) in rows.into_iter().enumerate() {
                if probes.len() == index {
                    let vars = Vars::new(0, rows.dtype(), rows.device());
                    let sizes = [rows.dim(1)?, classes];
                    let probe = LeastSquares::new(&vars, sizes, RIDGE, Init::Const(0.))?;
                    probes.push((name, probe));
                }
                probes[index].1.add_labels(&rows, labels)?;
            }
            Ok(())
        })?;
        for (_, probe) in &mut probes {
            probe.solve()?;
        }
        let mut wrong = vec![0; probes.len()];
        let mut count = 0;
        self.for_batches(self.data.split(split), usize::MAX, |rows, labels| {
            for (index, (_, rows)) in rows.into_iter().enumerate() {
                let found = probes[index].1.forward(&rows)?.argmax(D::Minus1)?;
                let found = found.to_vec1::<u32>()?;
                wrong[index] += found.iter().zip(labels).filter(|(a, b)| a != b).count();
            }
            count += labels.len();
            Ok(())
        })?;
        let names = probes.into_iter().map(|(name, _)| name);
        let scores = wrong
            .into_iter()
            .map(|wrong| Score::new(wrong, count, None));
        Ok(names.zip(scores).collect())
    }

    /// Calls `f` with the rows of each layer and the labels of some examples at a time.
    fn for_batches(
        &self,
        examples: &dyn Examples,
        most: usize,
        mut f: impl FnMut(Vec<(String, Tensor)>, &[u32]) -> Result<()>,
    ) -> Result<()> {
        if examples.is_empty() {
            return Err(Error::usage("probe", "the part of the data is empty"));
        }
        for indices in spread(examples.len(), most).chunks(self.evaluation_batch()) {
            self.stop_if_asked()?;
            let batch = self.prepare(&examples.batch(indices, None)?)?;
            let activities = self.activities_of(&batch)?.into_iter();
            let rows = activities.map(|(name, activity)| Ok((name, rows(&activity)?)));
            f(rows.collect::<Result<_>>()?, batch.labels()?)?;
        }
        Ok(())
    }
}

/// An activity as rows for a probe.
fn rows(activity: &Tensor) -> Result<Tensor> {
    let cells = Cells::at_most(&activity.dims()[1..], INPUTS);
    let rows = Input::of(cells.means(activity)?)?.normalised(Normalise::MeanSquare)?;
    rows.join()
}
