//! Some examples of a part, drawn at random.

use std::sync::Arc;

use candle_core::Device;
use flate2::Crc;

use super::DataSet;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{Augment, Examples};
use crate::flow::random::{shuffle, stream};

/// The examples of a part at some places.
struct Drawn {
    all: Arc<dyn Examples>,
    places: Arc<Vec<usize>>,
}

impl Drawn {
    fn places_of(&self, indices: &[usize]) -> Vec<usize> {
        indices.iter().map(|&index| self.places[index]).collect()
    }
}

impl Examples for Drawn {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch> {
        self.all.batch(&self.places_of(indices), augment)
    }

    fn labels(&self, indices: &[usize]) -> Result<Vec<u32>> {
        self.all.labels(&self.places_of(indices))
    }

    fn on_device(&self, device: &Device) -> Result<Option<Arc<dyn Examples>>> {
        let all = self.all.on_device(device)?;
        let drawn = |all| -> Arc<dyn Examples> {
            let places = self.places.clone();
            Arc::new(Self { all, places })
        };
        Ok(all.map(drawn))
    }

    fn fingerprint(&self) -> Result<u32> {
        let mut crc = Crc::new();
        crc.update(&self.all.fingerprint()?.to_le_bytes());
        for &place in self.places.iter() {
            crc.update(&(place as u64).to_le_bytes());
        }
        Ok(crc.sum())
    }
}

impl DataSet {
    /// The same with `count` examples for training, drawn by the seed; of each class its
    /// share, as well as whole numbers allow.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are fewer, or if the data are text, whose examples
    /// overlap; errors of the examples.
    pub(crate) fn with_drawn(self, count: usize, seed: u64) -> Result<Self> {
        let all = self.train.len();
        if self.train.passages().is_some() {
            let expected = "0, since the examples of a text overlap; train on a shorter file";
            return Err(Error::refused("examples", count, expected));
        }
        if count > all {
            let expected = format!("at most {all}, the examples of the training part; 0 for all");
            return Err(Error::refused("examples", count, expected));
        }
        let indices: Vec<usize> = (0..all).collect();
        let mut labels = Vec::with_capacity(all);
        for indices in indices.chunks(1000) {
            labels.extend(self.train.labels(indices)?);
        }
        // Examples without a label, or with several, are alike.
        if labels.len() != all {
            labels = vec![0; all];
        }
        let places = draw(count, &labels, seed);
        Ok(Self {
            train: Arc::new(Drawn {
                all: self.train,
                places: places.into(),
            }),
            ..self
        })
    }
}

/// The places of `count` examples with these labels, in ascending order.
fn draw(count: usize, labels: &[u32], seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    shuffle(&mut stream(seed, "examples", 0), &mut order);
    let classes = labels.iter().max().map_or(0, |&last| last as usize + 1);
    let mut sizes = vec![0; classes];
    for &label in labels {
        sizes[label as usize] += 1;
    }
    let mut left = shares(count, &sizes);
    order.retain(|&place| {
        let left = &mut left[labels[place] as usize];
        let is_drawn = *left > 0;
        *left -= usize::from(is_drawn);
        is_drawn
    });
    order.sort_unstable();
    order
}

/// Divides `count` in proportion to the sizes, by the method of the largest remainder; of
/// equal remainders the first counts.
fn shares(count: usize, sizes: &[usize]) -> Vec<usize> {
    let all = sizes.iter().sum::<usize>().max(1) as u128;
    let exact = |size: usize| count as u128 * size as u128;
    let mut shares: Vec<usize> = sizes
        .iter()
        .map(|&size| (exact(size) / all) as usize)
        .collect();
    let missing = count - shares.iter().sum::<usize>();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(exact(sizes[class]) % all));
    for &class in order.iter().take(missing) {
        shares[class] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::images::Images;
    use crate::data::{Content, ExampleSpec, Framing, Split};

    fn data(labels: &[u8]) -> Result<DataSet> {
        let pixels = (0..labels.len()).map(|pixel| pixel as u8).collect();
        let images = Images::new(pixels, labels.to_vec(), [1, 1, 1])?;
        let classes = (0..3).map(|class| class.to_string()).collect();
        let content = Content::Picture(Framing::Whole);
        let spec = ExampleSpec::new(&[1, 1, 1], classes, content);
        let (train, test) = images.split_last(0);
        let validation = test.clone();
        Ok(DataSet {
            train: Arc::new(train),
            validation: Arc::new(validation),
            test: Arc::new(test),
            ..DataSet::empty(spec, None)
        })
    }

    #[test]
    fn every_class_has_its_share() -> Result<()> {
        let labels: Vec<u8> = (0..100).map(|place| [0, 0, 0, 1, 2][place % 5]).collect();
        let drawn = data(&labels)?.with_drawn(11, 1)?;
        // 6.6, 2.2, 2.2 of 11.
        assert_eq!(drawn.class_counts(Split::Train)?, [7, 2, 2]);
        let places: Vec<usize> = (0..11).collect();
        let batch = drawn.train.batch(&places, None)?;
        let pixels = batch.rows().flatten_all()?.to_vec1::<f32>()?;
        for (pixel, &label) in pixels.iter().zip(batch.labels()?) {
            let place = (pixel * 255.).round() as usize;
            assert_eq!(u32::from(labels[place]), label);
        }
        assert_eq!(drawn.train.labels(&places)?, batch.labels()?);
        Ok(())
    }

    #[test]
    fn the_seed_decides_which_examples_are_drawn() -> Result<()> {
        let drawn = |seed| data(&[0; 50])?.with_drawn(10, seed)?.train.fingerprint();
        assert_eq!(drawn(1)?, drawn(1)?);
        assert_ne!(drawn(1)?, drawn(2)?);
        Ok(())
    }

    #[test]
    fn all_can_be_drawn_but_not_more() -> Result<()> {
        assert_eq!(draw(5, &[0, 1, 0, 2, 1], 7), [0, 1, 2, 3, 4]);
        let error = data(&[0, 1, 2])?.with_drawn(4, 1).unwrap_err().to_string();
        assert!(error.contains("at most 3"), "{error}");
        Ok(())
    }
}
