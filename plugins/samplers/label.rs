//! Samplers `label_overlay`, `label_concat` and `label_planes`: the label is in the
//! input, and a wrong label makes a negative view.

use onward_core::candle_core::Tensor;
use onward_core::contract::negatives::{uniform_wrong, with_predicted_wrong, with_wrong};
use onward_core::flow::input::LABEL;
use onward_core::flow::random::below;
use onward_core::kernels::filled;
use onward_core::settings::Positive;
use onward_core::{
    Batch, BuildContext, Error, Input, NegativeSampler, Prediction, Result, Role, Step, Values,
    Views,
};

onward_core::choices! {
    /// How the wrong label of a negative view is drawn.
    pub enum Negatives {
        /// In proportion to the network's own probability of each wrong class.
        Hard = "hard",
        /// All wrong classes equally likely.
        Uniform = "uniform",
        /// All classes equally likely, including the true one: a fault of several
        /// programs, to measure its cost.
        Any = "any",
    }
}

onward_core::settings! {
    /// A label in the input: the true label makes the positive view, a wrong label the
    /// negative view, and `strength / C` for each of the `C` classes the neutral view.
    ///
    /// `label_overlay` writes it over the first `C` pixels of an example of `D` numbers,
    /// so that an input is `[label (C) | pixels C..D]`, as wide as the example;
    /// `label_concat` appends it, `[pixels (D) | label (C)]`; `label_planes` adds `C`
    /// channels to an image, `(channels + C, H, W)`, and fills that of the label, for
    /// convolutions.
    ///
    /// The pixels are one part for all views and hypotheses, so a layer multiplies them
    /// once.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 3.3
    /// (<https://arxiv.org/abs/2212.13345>); hard negatives as in his program: the class
    /// is *sampled* from the head's softmax with the true class left out.
    pub struct Label {
        /// How the wrong label of a negative view is drawn. It is never the true one,
        /// except with `any`.
        negatives: Negatives = Negatives::Hard;
        /// The value of the label's entry; pixels are between 0 and 1.
        strength: f64 = 1., in Positive.up_to(1e6);
    }
}

/// Where the label is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Over the first pixels.
    Overlay,
    /// After the pixels.
    After,
    /// In channels of images of this shape.
    Planes([usize; 3]),
}

/// The shape of the examples as images.
fn image(context: &BuildContext) -> Result<[usize; 3]> {
    refuse_text(context)?;
    context.example[..].try_into().map_err(|_| {
        let problem = format!(
            "label_planes: expected images (channels, height, width), found shape {:?}; use \
             label_concat",
            context.example
        );
        refused(problem)
    })
}

fn refuse_text(context: &BuildContext) -> Result<()> {
    match context.tokenizer {
        None => Ok(()),
        Some(_) => Err(refused(
            "expected images, found text; choose a sampler for text, or the architecture nlp",
        )),
    }
}

fn refused(problem: impl Into<String>) -> Error {
    Error::unfit("label in the input", problem)
}

struct Sampler {
    settings: Label,
    classes: usize,
    place: Place,
}

impl Sampler {
    fn new(settings: Label, context: &BuildContext, place: Place) -> Result<Self> {
        refuse_text(context)?;
        let (classes, width) = (context.classes, context.example.iter().product::<usize>());
        let problem = match classes {
            _ if context.positions > 1 => {
                let positions = context.positions;
                format!("expected one label per example, found {positions}; choose another sampler")
            }
            0 | 1 => format!("expected at least 2 classes, found {classes}"),
            _ if place == Place::Overlay && width <= classes => format!(
                "expected examples of more than {classes} numbers, one per class, found \
                 {width}; use label_concat"
            ),
            _ => {
                return Ok(Self {
                    settings,
                    classes,
                    place,
                })
            }
        };
        Err(refused(problem))
    }

    /// `views` views with these labels.
    fn input(&self, batch: &Batch, label: Values, views: usize) -> Result<Input> {
        let pixels = batch.rows().clone();
        let (width, label) = (pixels.dim(1)?, label.named(LABEL));
        let (parts, shape) = match self.place {
            Place::Overlay => {
                let rest = Values::Dense {
                    matrix: pixels,
                    columns: self.classes..width,
                };
                ([label, rest.into()], batch.shape().to_vec())
            }
            Place::After => {
                let shape = vec![width + self.classes];
                ([Values::dense(pixels)?.into(), label], shape)
            }
            Place::Planes([channels, height, width]) => {
                let of_class = label.values.to_matrix(pixels.dtype(), batch.device())?;
                let shape = (of_class.dim(0)?, self.classes, height * width);
                let planes = of_class
                    .unsqueeze(2)?
                    .broadcast_as(shape)?
                    .flatten_from(1)?;
                let planes = Values::dense(planes.contiguous()?)?.named(LABEL);
                let shape = vec![channels + self.classes, height, width];
                ([Values::dense(pixels)?.into(), planes], shape)
            }
        };
        Input::new(parts, batch.size(), views, &shape)
    }

    /// The label of each row, `(R, 1)`.
    fn one_hot(&self, index: Tensor) -> Values {
        Values::OneHot {
            index,
            classes: self.classes,
            strength: self.settings.strength,
        }
    }
}

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, prediction: &Prediction<'_>, step: &Step) -> Result<Views> {
        let (labels, mut rng) = (batch.labels()?, step.stream("negatives"));
        let beside = |wrong: Vec<u32>| with_wrong(labels, &wrong, batch.device());
        let both = match self.settings.negatives {
            Negatives::Uniform => beside(uniform_wrong(labels, self.classes, &mut rng))?,
            Negatives::Hard => {
                with_predicted_wrong(labels, prediction.log_probabilities()?, &mut rng)?
            }
            Negatives::Any => {
                let any = |_: &u32| below(&mut rng, self.classes) as u32;
                beside(labels.iter().map(any).collect())?
            }
        };
        Views::new(
            self.input(batch, self.one_hot(both), 2)?,
            vec![Role::Positive, Role::Negative],
        )
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        let share = self.settings.strength / self.classes as f64;
        let (shape, dtype) = ((batch.size(), self.classes), batch.rows().dtype());
        let label = filled(share, shape, dtype, batch.device())?;
        self.input(batch, Values::dense(label)?, 1)
    }

    fn hypotheses(&self, batch: &Batch, candidates: &Tensor) -> Result<Option<Input>> {
        let label = self.one_hot(candidates.flatten_all()?.unsqueeze(1)?);
        Ok(Some(self.input(batch, label, candidates.dim(0)?)?))
    }
}

onward_core::register! {
    dyn NegativeSampler, "label_overlay",
    "label over the first pixels, wrong labels as negatives \
     (Hinton 2022, arXiv 2212.13345)",
    |settings: Label, context| Ok(Box::new(Sampler::new(settings, context, Place::Overlay)?))
}

onward_core::register! {
    dyn NegativeSampler, "label_concat",
    "label after the pixels, wrong labels as negatives \
     (nebuly-ai forward_forward; arXiv 2212.13345)",
    |settings: Label, context| Ok(Box::new(Sampler::new(settings, context, Place::After)?))
}

onward_core::register! {
    dyn NegativeSampler, "label_planes",
    "label in channels beside those of an image, wrong labels as negatives, for convolutions \
     (Hinton 2022, arXiv 2212.13345)",
    |settings: Label, context| {
        let place = Place::Planes(image(context)?);
        Ok(Box::new(Sampler::new(settings, context, place)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_core::candle_core::{DType, Device};
    use onward_core::contract::negatives::every_class;

    fn step(index: u64) -> Step {
        Step {
            index,
            ..Step::first(1)
        }
    }

    fn sampler(negatives: Negatives, place: Place) -> Sampler {
        Sampler {
            settings: Label {
                negatives,
                strength: 1.,
            },
            classes: 3,
            place,
        }
    }

    fn batch() -> Result<Batch> {
        Batch::new(
            Tensor::new(&[[9f32, 9., 9., 4.], [9., 9., 9., 5.]], &Device::Cpu)?,
            vec![2, 0],
        )
    }

    fn never() -> Prediction<'static> {
        Prediction::new(|| panic!("uniform negatives need no prediction"))
    }

    #[test]
    fn the_overlay_replaces_the_first_pixels() -> Result<()> {
        let sampler = sampler(Negatives::Uniform, Place::Overlay);
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
        let views =
            sampler(Negatives::Uniform, Place::After).views(&batch()?, &never(), &step(0))?;
        assert_eq!(
            views.input.join()?.to_vec2::<f32>()?[1],
            [9., 9., 9., 5., 1., 0., 0.]
        );
        Ok(())
    }

    #[test]
    fn planes_are_of_images() {
        let vars = onward_core::Vars::new(1, DType::F32, &Device::Cpu);
        let mut context = BuildContext::new(vars, 1);
        context.example = vec![12];
        let error = image(&context).unwrap_err().to_string();
        let is_said = error.contains("shape [12]; use label_concat");
        assert!(is_said && !error.contains("layer"), "{error}");
    }

    #[test]
    fn the_label_fills_its_plane() -> Result<()> {
        let batch = Batch::new(
            Tensor::new(&[[[[9f32, 8.], [7., 6.]]]], &Device::Cpu)?,
            vec![2],
        )?;
        let sampler = sampler(Negatives::Uniform, Place::Planes([1, 2, 2]));
        let views = sampler.views(&batch, &never(), &step(0))?;
        assert_eq!(views.input.shape(), [4, 2, 2]);
        let rows = views.input.join()?.flatten_from(1)?.to_vec2::<f32>()?;
        let planes = |on: usize| {
            let plane = |class: usize| [if class == on { 1. } else { 0. }; 4];
            [vec![9., 8., 7., 6.], (0..3).flat_map(plane).collect()].concat()
        };
        assert_eq!(rows[0], planes(2)); // the true label
        assert!(rows[1] == planes(0) || rows[1] == planes(1), "{rows:?}");
        let neutral = sampler.neutral(&batch)?.join()?.flatten_from(1)?;
        assert_eq!(neutral.to_vec2::<f32>()?[0][4..], [1f32 / 3.; 12]);
        Ok(())
    }

    #[test]
    fn a_wrong_label_is_never_the_true_one_and_every_other_occurs() -> Result<()> {
        for negatives in [Negatives::Uniform, Negatives::Hard] {
            let mut seen = [[0; 3]; 2];
            for index in 0..300 {
                let predict = Prediction::new(|| {
                    Ok(Tensor::new(
                        &[[-2f32, -2., -0.3], [-0.1, -2.6, -4.]],
                        &Device::Cpu,
                    )?)
                });
                let views =
                    sampler(negatives, Place::Overlay).views(&batch()?, &predict, &step(index))?;
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
            // e^−2.6 against e^−4: 241 of 300
            assert!(expected.contains(&seen[1][1]), "{negatives:?} {seen:?}");
        }
        Ok(())
    }

    #[test]
    fn any_class_may_be_the_true_one() -> Result<()> {
        let mut seen = [0; 3];
        for index in 0..300 {
            let views =
                sampler(Negatives::Any, Place::Overlay).views(&batch()?, &never(), &step(index))?;
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
        let predict = Prediction::new(|| {
            Ok(Tensor::new(
                &[[-1e4f32, -2e4, 0.], [0., -1e5, -1e5]],
                &Device::Cpu,
            )?)
        });
        let views =
            sampler(Negatives::Hard, Place::Overlay).views(&batch()?, &predict, &step(0))?;
        assert_eq!(
            views.input.join()?.to_dtype(DType::F32)?.to_vec2::<f32>()?[2],
            [1., 0., 0., 4.]
        );
        Ok(())
    }
}
