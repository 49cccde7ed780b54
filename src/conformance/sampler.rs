//! Trials of a sampler alone.

use candle_core::{Device, Tensor};

use super::toys::{bits, step, Toy};
use super::{ensure, milliseconds, Checked, Complaint, Examiner};
use crate::contract::negatives::every_class;
use crate::contract::prediction::Prediction;
use crate::contract::sampler::NegativeSampler;
use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::step::Step;
use crate::flow::views::Views;
use crate::plugin;
use crate::settings::Pick;

pub(super) fn trials(name: &str, examiner: &mut Examiner<'_>) {
    let subject = match subject(name) {
        Ok(subject) => subject,
        Err(complaint) => return examiner.check("shapes", || Err(complaint)),
    };
    examiner.check("shapes", || subject.shapes());
    examiner.check("rows", || subject.rows());
    examiner.check("labels", || subject.labels());
    examiner.check("seed", || subject.seed());
    examiner.note(subject.speed());
}

/// A sampler, the kind of examples that it accepts, and its smallest batch.
struct Subject<'a> {
    name: &'a str,
    toy: Toy,
    least: usize,
}

/// The first kind of trial examples that the sampler accepts.
fn subject(name: &str) -> Result<Subject<'_>, Complaint> {
    let mut why = String::new();
    for toy in Toy::ALL {
        let mut subject = Subject {
            name,
            toy,
            least: 1,
        };
        match subject.build(toy) {
            Ok(sampler) => {
                subject.least = sampler.smallest_batch();
                return Ok(subject);
            }
            Err(error) if error.is_unfit() => why = format!("{why} {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Complaint::Skip(format!(
        "it accepts none of the trial examples:{why}"
    )))
}

impl Subject<'_> {
    fn build(&self, toy: Toy) -> Result<Box<dyn NegativeSampler>> {
        plugin::build(&Pick::new(self.name), &toy.context(1, 6)?.scope("sampler"))
    }

    fn batch(&self, size: usize) -> Result<Batch> {
        let size = size.max(self.least);
        let labels = (0..size as u32).map(|index| index % 4).collect();
        Batch::new(self.toy.rows(size)?, labels)
    }

    fn shapes(&self) -> Checked {
        let sampler = self.build(self.toy)?;
        for size in [self.least, self.least + 2] {
            let batch = self.batch(size)?;
            let neutral = sampler.neutral(&batch.hidden())?;
            let expected = neutral.shape();
            let views = views(&*sampler, &batch, &step(1, 0))?;
            let found = views.input.shape();
            ensure!(
                found == expected,
                "views of shape {found:?}, but neutral views of shape {expected:?}"
            );
            let candidates = every_class(4, &batch)?;
            if let Some(hypotheses) = sampler.hypotheses(&batch.hidden(), &candidates)? {
                let (views, shape) = (hypotheses.views(), hypotheses.shape());
                ensure!(
                    (views, shape) == (4, expected),
                    "{views} hypotheses of shape {shape:?}, expected 4 of {expected:?}"
                );
            }
        }
        Ok(())
    }

    fn rows(&self) -> Checked {
        let sampler = self.build(self.toy)?;
        let (rows, least) = (self.toy.rows(self.least + 2)?, self.least.max(1));
        let neutral = |first: usize, count: usize| -> Result<Tensor> {
            let rows = rows.narrow(0, first, count)?.contiguous()?;
            sampler.neutral(&Batch::unlabelled(rows)?)?.join()
        };
        let among_all = neutral(0, least + 2)?.narrow(0, 2, least)?;
        ensure!(
            bits(&among_all.contiguous()?)? == bits(&neutral(2, least)?)?,
            "the neutral view of an example changes with the other examples of its batch"
        );
        Ok(())
    }

    fn labels(&self) -> Checked {
        let sampler = self.build(self.toy)?;
        let (shown, hidden) = (self.batch(3)?, self.batch(3)?.hidden());
        let candidates = every_class(4, &shown)?;
        let neutral = || bits(&sampler.neutral(&shown)?.join()?);
        let hypotheses = || -> Result<Option<Vec<u32>>> {
            let input = sampler.hypotheses(&shown, &candidates)?;
            input.map(|input| bits(&input.join()?)).transpose()
        };
        let before = (neutral()?, hypotheses()?);
        views(&*sampler, &shown, &step(1, 0))?; // a chance to remember labels
        ensure!(
            neutral()? == before.0,
            "the neutral view depends on the labels"
        );
        ensure!(hypotheses()? == before.1, "hypotheses depend on the labels");
        // Without labels a sampler either works or reports that it needs them.
        match views(&*sampler, &hidden, &step(1, 0)) {
            Ok(blind) => {
                ensure!(
                    !blind.targets.has_labels(),
                    "it returns labels that were hidden"
                );
            }
            Err(error) if sampler.uses_labels() => ensure!(
                error.is_unfit(),
                "without labels it fails with: {error}; expected Error::Unfit, as from \
                 `Batch::labels`"
            ),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn seed(&self) -> Checked {
        let seen = |step: &Step| -> Result<Vec<u32>> {
            let sampler = self.build(self.toy)?;
            bits(&views(&*sampler, &self.batch(8)?, step)?.input.join()?)
        };
        let first = seen(&step(1, 0))?;
        ensure!(
            first == seen(&step(1, 0))?,
            "the same seed and step give different views; draw from `Step::stream`"
        );
        let sampler = self.build(self.toy)?;
        let again = || -> Result<Vec<u32>> {
            bits(
                &views(&*sampler, &self.batch(8)?, &step(1, 0))?
                    .input
                    .join()?,
            )
        };
        ensure!(
            again()? == again()?,
            "two calls at the same step give different views; draw from `Step::stream`"
        );
        let differs = |steps: Vec<Step>| -> Result<bool> {
            let others = steps.iter().map(seen).collect::<Result<Vec<_>>>()?;
            Ok(others.iter().any(|views| *views != first))
        };
        let varies = differs((1..4).map(|index| step(1, index)).collect())?;
        let seeded = differs((2..6).map(|seed| step(seed, 0)).collect())?;
        ensure!(
            !varies || seeded,
            "views change from step to step, but not with the seed; draw from \
             `Step::stream`"
        );
        Ok(())
    }

    fn speed(&self) -> Result<String> {
        let toy = if self.toy == Toy::Text {
            Toy::Text
        } else {
            Toy::Images(28)
        };
        let sampler = self.build(toy)?;
        let labels = (0..100).map(|index| index % 4).collect();
        let batch = Batch::new(toy.rows(100)?, labels)?;
        let time = milliseconds(|| views(&*sampler, &batch, &step(1, 0)).map(|_| ()))?;
        Ok(format!(
            "{time:.2} ms for views of 100 examples of {:?}",
            batch.shape()
        ))
    }
}

/// The views of a batch, with equal predictions for all classes.
fn views(sampler: &dyn NegativeSampler, batch: &Batch, step: &Step) -> Result<Views> {
    let size = batch.size();
    let prediction = Tensor::full(-1.4f32, (size, 4), &Device::Cpu)?;
    sampler.views(batch, &Prediction::of(prediction), step)
}
