//! The classes that a step compares, where there are too many to compare all.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use rand::Rng;

use super::random::below;
use crate::error::{Error, Result};
use crate::kernels;

/// Some of the classes, for a sampled softmax: those of the labels, the most frequent
/// ones, and some of the others, drawn at random.
///
/// With `π` the probability that a class is among them (1 but for those drawn), the sum
///
/// ```text
/// Σₖ e^zₖ / πₖ    over the classes among them
/// ```
///
/// has the expectation `Σ e^z` over all classes. So the softmax of `zₖ − log πₖ` stands
/// for that of all classes, and is the same if all are among them. Adam's steps hardly
/// depend on the size of a gradient, so that the factor `1/π` of rare classes has
/// little effect there.
///
/// # Reference
/// Bengio and Senécal, "Adaptive Importance Sampling to Accelerate Training of a Neural
/// Probabilistic Language Model", IEEE Transactions on Neural Networks 19, 2008, for the
/// sum; the strata are our own.
///
/// ```
/// use onward_core::flow::random::stream;
/// use onward_core::flow::sampled_classes::SampledClasses;
///
/// // Of 100 classes: 7 and 3 are labels, 0 and 1 are frequent, 4 of the other 96 are drawn.
/// let mut rng = stream(1, "samples", 0);
/// let sampled = SampledClasses::draw(&[7, 3, 7], &[0, 1], 4, 100, &mut rng)?;
/// assert_eq!(sampled.classes().len(), 8);
/// let places = sampled.places(&[7, 3, 7])?;
/// assert_eq!(sampled.classes()[places[0] as usize], 7);
/// # Ok::<(), onward_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SampledClasses {
    /// In ascending order.
    classes: Vec<u32>,
    /// `−log π` of each class, which its logit gets.
    corrections: Vec<f32>,
}

impl SampledClasses {
    /// The classes of `labels`, the `frequent` ones, and `drawn` of the others, without
    /// repetition and all equally likely. With none drawn, the others have no part in
    /// the sum.
    ///
    /// # Errors
    /// [`Error::Usage`] if a label or a frequent class is not below `classes`.
    pub fn draw(
        labels: &[u32],
        frequent: &[u32],
        drawn: usize,
        classes: usize,
        rng: &mut impl Rng,
    ) -> Result<Self> {
        let mut certain: Vec<u32> = labels.iter().chain(frequent).copied().collect();
        certain.sort_unstable();
        certain.dedup();
        if let Some(class) = certain.last().filter(|&&class| class as usize >= classes) {
            let problem = format!("expected classes below {classes}, found {class}");
            return Err(Error::usage("labels", problem));
        }
        let others = classes - certain.len();
        let drawn = drawn.min(others);
        let correction = (others as f64 / drawn.max(1) as f64).ln() as f32;
        let drawn = places(drawn, others, rng).into_iter();
        let drawn = drawn.map(|place| (other(&certain, place), correction));
        // `−log π` of the classes among them.
        let mut among: Vec<(u32, f32)> = certain.iter().map(|class| (*class, 0.)).collect();
        among.extend(drawn);
        among.sort_unstable_by_key(|(class, _)| *class);
        let (classes, corrections) = among.into_iter().unzip();
        Ok(Self {
            classes,
            corrections,
        })
    }

    /// The classes, in ascending order.
    pub fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// For each label its place among the classes.
    ///
    /// # Errors
    /// [`Error::Usage`] if a label is not among them.
    pub fn places(&self, labels: &[u32]) -> Result<Vec<u32>> {
        let place = |label: &u32| {
            let found = self.classes.binary_search(label);
            found.map(|place| place as u32).map_err(|_| {
                let problem = format!("{label} is not among the classes of this step");
                Error::usage("labels", problem)
            })
        };
        labels.iter().map(place).collect()
    }

    /// The classes as `(K, 1)` of `u32`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn index(&self, device: &Device) -> Result<Tensor> {
        let index = Tensor::from_slice(&self.classes, (self.classes.len(), 1), &Device::Cpu)?;
        Ok(index.to_device(device)?)
    }

    /// The log-probabilities `log softmax(z − log π)` of logits `z`, `(R, K)`, with a
    /// column for each of the classes.
    ///
    /// # Errors
    /// Errors of candle, if there is not one column for each class.
    pub fn log_softmax(&self, logits: &Tensor) -> Result<Tensor> {
        kernels::log_softmax(&self.corrected(logits)?)
    }

    fn corrected(&self, logits: &Tensor) -> Result<Tensor> {
        let corrections =
            Tensor::from_slice(&self.corrections, self.corrections.len(), &Device::Cpu)?;
        let corrections = corrections
            .to_dtype(logits.dtype())?
            .to_device(logits.device())?;
        Ok(logits.broadcast_add(&corrections)?)
    }
}

/// Some of `0..of` without repetition: as many steps of a Fisher–Yates shuffle, which keeps
/// those places alone whose number is no longer their own.
fn places(count: usize, of: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut moved: HashMap<usize, usize> = HashMap::with_capacity(2 * count);
    let steps = (0..count).map(|next| {
        let chosen = next + below(rng, of - next);
        let here = moved.remove(&next).unwrap_or(next);
        match chosen == next {
            true => here,
            false => moved.insert(chosen, here).unwrap_or(chosen),
        }
    });
    steps.collect()
}

/// The class at a place among those that are not `certain`, which are sorted.
fn other(certain: &[u32], place: usize) -> u32 {
    // So many others come before each of the certain ones.
    let before = |index: usize| certain[index] as usize - index;
    let (mut first, mut last) = (0, certain.len());
    while first < last {
        let middle = (first + last) / 2;
        match before(middle) <= place {
            true => first = middle + 1,
            false => last = middle,
        }
    }
    (place + first) as u32
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::flow::random::stream;

    #[test]
    fn the_sum_over_drawn_classes_has_the_expectation_of_the_whole_sum() -> Result<()> {
        let classes = 50;
        let logit = |class: u32| f64::from(class * 7 % 11) / 4.;
        let whole: f64 = (0..classes).map(|class| logit(class).exp()).sum();
        let mut mean = 0.;
        for index in 0..2000 {
            let mut rng = stream(3, "samples", index);
            let sampled = SampledClasses::draw(&[4, 9], &[0, 1, 2], 5, classes as usize, &mut rng)?;
            assert_eq!(sampled.classes().len(), 10);
            assert!(sampled.classes().is_sorted());
            let logits: Vec<f64> = sampled
                .classes()
                .iter()
                .map(|&class| logit(class))
                .collect();
            let logits = Tensor::from_vec(logits, (1, 10), &Device::Cpu)?;
            let sum: f64 = sampled.corrected(&logits)?.exp()?.sum_all()?.to_scalar()?;
            mean += sum / 2000.;
        }
        assert!((mean / whole - 1.).abs() < 0.01, "{mean} {whole}");
        Ok(())
    }

    /// The same draws as those of a list of all other classes.
    #[test]
    fn classes_are_those_of_a_shuffle_of_all_others() -> Result<()> {
        for (classes, drawn) in [(9, 3), (40, 39), (500, 60), (7, 0)] {
            for seed in 0..20 {
                let (labels, frequent) = ([6, 2, 6], [0, 1]);
                let mut rng = stream(seed, "samples", 0);
                let mut others: Vec<usize> = [3, 4, 5].into_iter().chain(7..classes).collect();
                let mut expected = vec![0, 1, 2, 6];
                for next in 0..drawn.min(others.len()) {
                    let chosen = next + below(&mut rng, others.len() - next);
                    others.swap(next, chosen);
                    expected.push(others[next] as u32);
                }
                expected.sort_unstable();
                let mut rng = stream(seed, "samples", 0);
                let found = SampledClasses::draw(&labels, &frequent, drawn, classes, &mut rng)?;
                assert_eq!(found.classes(), expected, "{classes} {drawn} {seed}");
            }
        }
        Ok(())
    }

    #[test]
    fn every_class_may_be_among_them() -> Result<()> {
        let sampled = SampledClasses::draw(&[2, 0], &[1], 100, 6, &mut stream(1, "samples", 0))?;
        assert_eq!(sampled.classes(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(sampled.places(&[2, 0])?, [2, 0]);
        let logits = Tensor::ones((1, 6), DType::F32, &Device::Cpu)?;
        let corrected = sampled.corrected(&logits)?.to_vec2::<f32>()?;
        assert_eq!(corrected, [[1.; 6]]); // all are certain
        Ok(())
    }

    #[test]
    fn a_label_without_a_class_is_an_error() {
        let draw =
            |label: u32| SampledClasses::draw(&[label], &[], 0, 6, &mut stream(1, "samples", 0));
        assert!(draw(6).unwrap_err().to_string().contains("below 6"));
        let places = draw(5).unwrap().places(&[4]);
        assert!(places.unwrap_err().to_string().contains("4 is not among"));
    }
}
