//! Small data sets and helpers of the trials.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::contract::build_context::BuildContext;
use crate::data::images::Images;
use crate::data::text::tokenizer::Tokenizer;
use crate::data::text::{self, Parts, Reach, Text};
use crate::data::{Content, DataSet, ExampleSpec, Framing, Room};
use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::examples::{Augment, Examples};
use crate::flow::input::{Input, Values};
use crate::flow::random::{below, stream, unit};
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::optim::{Optimiser, OptimiserSpec, Span};

/// Random images of 4×4 pixels in four classes, the class being the brightest row: 60 to
/// train, 20 to validate, 20 to test.
///
/// # Errors
/// No known errors.
pub fn images() -> Result<DataSet> {
    labelled(|class| class)
}

/// The same images with every label changed.
pub(super) fn mislabelled() -> Result<DataSet> {
    labelled(|class| (class + 1) % 4)
}

fn labelled(label: impl Fn(usize) -> usize) -> Result<DataSet> {
    let part = |first: usize, count: usize| {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for index in first..first + count {
            let mut rng = stream(7, "toy", index as u64);
            let class = below(&mut rng, 4);
            labels.push(label(class) as u8);
            pixels.extend((0..16).map(|pixel| {
                let bright = if pixel / 4 == class { 120. } else { 0. };
                (bright + 100. * unit(&mut rng)) as u8
            }));
        }
        Images::new(pixels, labels, [1, 4, 4])
    };
    Ok(DataSet {
        spec: spec(),
        train: Arc::new(part(0, 60)?),
        validation: Arc::new(part(10_000, 20)?),
        test: Arc::new(part(20_000, 20)?),
        text: None,
    })
}

fn spec() -> ExampleSpec {
    let classes = ["a", "b", "c", "d"].map(String::from).to_vec();
    ExampleSpec::new(&[1, 4, 4], classes, Content::Picture(Framing::Whole))
}

/// Random images of 4×4 pixels with a class for each row: the brightest pixel of the row.
///
/// # Errors
/// None that is known.
pub fn sequences() -> Result<DataSet> {
    Ok(DataSet {
        spec: ExampleSpec {
            positions: 4,
            ..spec()
        },
        train: Arc::new(Rows {
            first: 0,
            count: 60,
        }),
        validation: Arc::new(Rows {
            first: 10_000,
            count: 20,
        }),
        test: Arc::new(Rows {
            first: 20_000,
            count: 20,
        }),
        text: None,
    })
}

struct Rows {
    first: usize,
    count: usize,
}

impl Examples for Rows {
    fn len(&self) -> usize {
        self.count
    }

    fn batch(&self, indices: &[usize], _: Option<&Augment<'_>>) -> Result<Batch> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for index in indices {
            let mut rng = stream(7, "rows", (self.first + index) as u64);
            for _ in 0..4 {
                let class = below(&mut rng, 4);
                let bright = |pixel: usize| if pixel == class { 0.5f32 } else { 0. };
                pixels.extend((0..4).map(|pixel| bright(pixel) + unit(&mut rng) as f32 / 2.));
                labels.push(class as u32);
            }
        }
        let pixels = Tensor::from_vec(pixels, (indices.len(), 1, 4, 4), &Device::Cpu)?;
        Batch::new(pixels, labels)
    }
}

/// A text of four letters in windows of three. Each letter determines the next one.
///
/// # Errors
/// No known errors.
pub fn text() -> Result<DataSet> {
    let tokenizer = Arc::new(Tokenizer::characters("abcd")?);
    let part = |count: usize| vec!["abcd".repeat(count).into()];
    let parts = Parts {
        train: part(15),
        validation: part(6),
        test: part(6),
    };
    text::data_set(
        &parts,
        Text {
            tokenizer,
            ngram: 2,
            least: 1,
        },
        Reach {
            window: 3,
            before: 2,
        },
        &Room::default(),
    )
}

/// A step of training.
pub(super) fn step(seed: u64, index: u64) -> Step {
    Step {
        index,
        train: true,
        ..Step::evaluation(seed)
    }
}

/// Numbers from 0 to 1.
pub(super) fn random(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut rng = stream(seed, "trial", 0);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| unit(&mut rng) as f32).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// The bits of a tensor's numbers, as `f32`.
pub(super) fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    let values = tensor
        .flatten_all()?
        .to_dtype(DType::F32)?
        .to_vec1::<f32>()?;
    Ok(values.into_iter().map(f32::to_bits).collect())
}

pub(super) fn all_finite(tensor: &Tensor) -> Result<bool> {
    Ok(bits(tensor)?
        .into_iter()
        .all(|bits| f32::from_bits(bits).is_finite()))
}

/// The bits of all variables, by name.
pub(super) fn values(vars: &Vars) -> Result<BTreeMap<String, Vec<u32>>> {
    vars.all()
        .into_iter()
        .map(|(name, var)| Ok((name, bits(&var)?)))
        .collect()
}

/// An optimiser of the variables in the scope `place`.
pub(super) fn optimiser(context: &BuildContext, place: &str) -> Optimiser {
    Optimiser::new(
        context.vars.scope(place),
        OptimiserSpec::sgd(0.1),
        Span::Epochs(0..1),
    )
}

/// The examples of a trial: images of this size, windows of three letters, or images
/// with a label for each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Toy {
    Images(usize),
    Text,
    Sequences,
}

impl Toy {
    pub(super) const ALL: [Self; 3] = [Self::Images(4), Self::Text, Self::Sequences];

    /// The context of a plugin with `units` units.
    pub(super) fn context(self, seed: u64, units: usize) -> Result<BuildContext> {
        let vars = Vars::new(seed, DType::F32, &Device::Cpu);
        let mut context = BuildContext::new(vars, seed).with_units(units);
        (context.classes, context.hypotheses) = (4, true);
        match self {
            Self::Images(size) => {
                let image = vec![1, size, size];
                (context.example, context.input) = (image.clone(), image);
            }
            Self::Sequences => {
                (context.example, context.input) = (vec![1, 4, 4], vec![1, 4, 4]);
                context.positions = 4;
            }
            Self::Text => {
                (context.example, context.input) = (vec![3], vec![12]);
                context.tokenizer = Some(Arc::new(Tokenizer::characters("abcd")?));
            }
        }
        Ok(context)
    }

    /// A number of examples.
    pub(super) fn rows(self, rows: usize) -> Result<Tensor> {
        match self {
            Self::Images(size) => random(&[rows, 1, size, size], 4),
            Self::Sequences => random(&[rows, 1, 4, 4], 4),
            Self::Text => {
                let letters = (0..3 * rows as u32).map(|index| index % 4);
                Ok(Tensor::from_iter(letters, &Device::Cpu)?.reshape((rows, 3))?)
            }
        }
    }

    /// Examples as the input of a layer: numbers as they are, letters as one-hot slots.
    pub(super) fn input(self, rows: &Tensor, views: usize) -> Result<Input> {
        if self != Self::Text {
            return Input::stacked(rows.clone(), views);
        }
        let slots = Values::OneHot {
            index: rows.clone(),
            classes: 4,
            strength: 1.,
        };
        Input::new([slots], rows.dim(0)? / views, views, &[12])
    }
}
