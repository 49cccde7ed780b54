//! Samplers `label_overlay` and `label_concat`: the label is part of the input, a wrong label makes a negative.

use onward_core::candle_core::{Device, Tensor};
use onward_core::contract::sampler::{predicted_wrong, uniform_wrong};
use onward_core::flow::random::below;
use onward_core::{
    Batch, BuildContext, Error, Input, NegativeSampler, Result, Role, Step, Values, Views,
};

onward_core::choices! {
    /// How the wrong label of a negative view is chosen.
    pub enum Negatives {
        /// In proportion to the network's own probability of each wrong class.
        Hard = "hard",
        /// All wrong classes alike.
        Uniform = "uniform",
        /// All classes alike, the true one among them: a fault of several programs, here to measure what it costs.
        Any = "any",
    }
}

onward_core::settings! {
    /// A label in the input: the true one makes the positive view, a wrong one the negative view, `strength / C` for
    /// each of the `C` classes the neutral one.
    ///
    /// `label_overlay` writes it over the first `C` pixels of an example of `D` numbers, so that an input is
    /// `[label (C) | pixels C..D]`, as wide as the example; `label_concat` puts it behind, `[pixels (D) | label (C)]`.
    ///
    /// The pixels are one part for all views and hypotheses, so a layer multiplies them once.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 3.3 (<https://arxiv.org/abs/2212.13345>); hard negatives
    /// as in his program: the class is *sampled* from the head's softmax with the true class left out.
    pub struct Label {
        /// How the wrong label of a negative view is chosen; it is never the true one, but with `any`.
        negatives: Negatives = Negatives::Hard;
        /// The value of a label's entry, where pixels are in 0 to 1.
        strength: f64 = 1., in f64::MIN_POSITIVE..;
    }
}

struct Sampler {
    settings: Label,
    classes: usize,
    overlay: bool,
}

impl Sampler {
    fn new(settings: Label, context: &BuildContext, overlay: bool) -> Result<Self> {
        let (classes, width) = (context.classes, context.example.iter().product::<usize>());
        let problem = match classes {
            0 | 1 => format!("{classes} classes leave no wrong label; at least 2 are needed"),
            _ if overlay && width <= classes => {
                format!("examples of {width} numbers have no room for {classes} classes; use label_concat")
            }
            _ => {
                return Ok(Self {
                    settings,
                    classes,
                    overlay,
                })
            }
        };
        Err(Error::Mismatch {
            place: "label in the input".into(),
            problem,
        })
    }

    /// `views` views, their labels given.
    fn input(&self, batch: &Batch, label: Values, views: usize) -> Result<Input> {
        let pixels = batch.rows().clone();
        let width = pixels.dim(1)?;
        if self.overlay {
            let rest = Values::Dense {
                matrix: pixels,
                columns: self.classes..width,
            };
            return Input::new(vec![label, rest], batch.size(), views, batch.shape());
        }
        Input::new(
            vec![Values::dense(pixels)?, label],
            batch.size(),
            views,
            &[width + self.classes],
        )
    }

    fn one_hot(&self, labels: Vec<u32>, batch: &Batch) -> Result<Values> {
        let rows = labels.len();
        let index = Tensor::from_vec(labels, (rows, 1), batch.device())?;
        Ok(Values::OneHot {
            index,
            classes: self.classes,
            strength: self.settings.strength,
        })
    }
}

impl NegativeSampler for Sampler {
    fn views(
        &mut self,
        batch: &Batch,
        predict: &mut dyn FnMut() -> Result<Tensor>,
        step: &Step,
    ) -> Result<Views> {
        let labels = batch.labels()?;
        let wrong = match self.settings.negatives {
            Negatives::Uniform => {
                uniform_wrong(labels, self.classes, &mut step.stream("negatives"))
            }
            Negatives::Hard => predicted_wrong(labels, &predict()?, &mut step.stream("negatives"))?,
            Negatives::Any => {
                let mut rng = step.stream("negatives");
                labels
                    .iter()
                    .map(|_| below(&mut rng, self.classes) as u32)
                    .collect()
            }
        };
        let label = self.one_hot([labels, &wrong].concat(), batch)?;
        Views::new(
            self.input(batch, label, 2)?,
            vec![Role::Positive, Role::Negative],
            Some(labels.to_vec()),
        )
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        let share = self.settings.strength / self.classes as f64;
        // LastResult on the CPU: not every device has numbers of 64 bits.
        let label = Tensor::full(share, (batch.size(), self.classes), &Device::Cpu)?;
        let label = label
            .to_dtype(batch.rows().dtype())?
            .to_device(batch.device())?;
        self.input(batch, Values::dense(label)?, 1)
    }

    fn hypotheses(&self, batch: &Batch, candidates: &Tensor) -> Result<Option<Input>> {
        let labels = candidates.flatten_all()?.to_vec1::<u32>()?;
        Ok(Some(self.input(
            batch,
            self.one_hot(labels, batch)?,
            candidates.dim(0)?,
        )?))
    }
}

onward_core::register! {
    dyn NegativeSampler, "label_overlay", "label over the first pixels, wrong labels as negatives (Hinton 2022, arXiv 2212.13345)",
    |settings: Label, context| Ok(Box::new(Sampler::new(settings, context, true)?))
}

onward_core::register! {
    dyn NegativeSampler, "label_concat", "label behind the pixels, wrong labels as negatives (nebuly-ai forward_forward; arXiv 2212.13345)",
    |settings: Label, context| Ok(Box::new(Sampler::new(settings, context, false)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_core::candle_core::DType;
    use onward_core::contract::sampler::every_class;

    fn step(index: u64) -> Step {
        Step {
            seed: 1,
            index,
            epoch: 0,
            epochs: 1,
            train: true,
            pass: 0,
        }
    }

    fn sampler(negatives: Negatives, overlay: bool) -> Sampler {
        Sampler {
            settings: Label {
                negatives,
                strength: 1.,
            },
            classes: 3,
            overlay,
        }
    }

    fn batch() -> Result<Batch> {
        Batch::new(
            Tensor::new(&[[9f32, 9., 9., 4.], [9., 9., 9., 5.]], &Device::Cpu)?,
            vec![2, 0],
        )
    }

    fn never() -> Result<Tensor> {
        panic!("uniform negatives need no prediction")
    }

    #[test]
    fn the_overlay_replaces_the_first_pixels() -> Result<()> {
        let sampler = sampler(Negatives::Uniform, true);
        let neutral = sampler.neutral(&batch()?)?.join()?.to_vec2::<f32>()?;
        assert!(neutral[0]
            .iter()
            .zip([1. / 3., 1. / 3., 1. / 3., 4.])
            .all(|(a, b)| (a - b).abs() < 1e-6));
        let hypotheses = sampler
            .hypotheses(&batch()?, &every_class(3, &batch()?)?)?
            .expect("a label is in the input")
            .join()?
            .to_vec2::<f32>()?;
        assert_eq!(hypotheses[3], [0., 1., 0., 5.]); // class 1, example 1
        Ok(())
    }

    #[test]
    fn the_concatenated_label_leaves_the_pixels_alone() -> Result<()> {
        let views = sampler(Negatives::Uniform, false).views(&batch()?, &mut never, &step(0))?;
        assert_eq!(
            views.input.join()?.to_vec2::<f32>()?[1],
            [9., 9., 9., 5., 1., 0., 0.]
        );
        Ok(())
    }

    #[test]
    fn a_wrong_label_is_never_the_true_one_and_every_other_occurs() -> Result<()> {
        for negatives in [Negatives::Uniform, Negatives::Hard] {
            let mut seen = [[0; 3]; 2];
            for index in 0..300 {
                let mut predict = || {
                    Ok(Tensor::new(
                        &[[-2f32, -2., -0.3], [-0.1, -2.6, -4.]],
                        &Device::Cpu,
                    )?)
                };
                let views =
                    sampler(negatives, true).views(&batch()?, &mut predict, &step(index))?;
                let rows = views.input.join()?.to_vec2::<f32>()?;
                for example in 0..2 {
                    let class = (0..3)
                        .find(|&class| rows[2 + example][class] == 1.)
                        .expect("one-hot");
                    seen[example][class] += 1;
                }
            }
            assert_eq!((seen[0][2], seen[1][0]), (0, 0), "{negatives:?}");
            assert!(
                seen[0][0] > 100 && seen[0][1] > 100,
                "{negatives:?} {seen:?}"
            );
            let expected = if negatives == Negatives::Hard {
                180..280
            } else {
                120..180
            };
            assert!(expected.contains(&seen[1][1]), "{negatives:?} {seen:?}"); // e^−2.6 against e^−4: 241 of 300
        }
        Ok(())
    }

    #[test]
    fn any_class_may_be_the_true_one() -> Result<()> {
        let mut seen = [0; 3];
        for index in 0..300 {
            let views = sampler(Negatives::Any, true).views(&batch()?, &mut never, &step(index))?;
            let rows = views.input.join()?.to_vec2::<f32>()?;
            seen[(0..3).find(|&class| rows[2][class] == 1.).expect("one-hot")] += 1;
        }
        assert!(
            seen.iter().all(|count| (70..130).contains(count)),
            "{seen:?}"
        ); // a third each
        Ok(())
    }

    #[test]
    fn a_certain_prediction_still_leaves_a_wrong_label() -> Result<()> {
        let mut predict = || {
            Ok(Tensor::new(
                &[[-1e4f32, -2e4, 0.], [0., -1e5, -1e5]],
                &Device::Cpu,
            )?)
        };
        let views = sampler(Negatives::Hard, true).views(&batch()?, &mut predict, &step(0))?;
        assert_eq!(
            views.input.join()?.to_dtype(DType::F32)?.to_vec2::<f32>()?[2],
            [1., 0., 0., 4.]
        );
        Ok(())
    }
}
