//! What was made of a tensor, kept for whoever asks for it again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{Tensor, TensorId};

use crate::error::Result;

/// Something that was made of a tensor, or on the way to it, and is needed again in the same lesson: the last one alone.
///
/// It only saves work: whoever does not find it makes it anew.
pub struct LastResult<T>(Mutex<Option<(TensorId, T)>>);

impl<T> Default for LastResult<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> LastResult<T> {
    /// Keeps what header to this very tensor, and nothing else.
    pub fn put(&self, of: &Tensor, made: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((of.id(), made));
    }

    /// What was kept for this very tensor; nothing is kept any longer.
    pub fn take(&self, of: &Tensor) -> Option<T> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        made.filter(|(id, _)| *id == of.id()).map(|(_, made)| made)
    }
}

impl<T: Clone> LastResult<T> {
    /// What was kept for this very tensor, which may be asked for again.
    pub fn get(&self, of: &Tensor) -> Option<T> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.as_ref()
            .filter(|(id, _)| *id == of.id())
            .map(|(_, made)| made.clone())
    }
}

/// What was last made of each part of an input and of variables: of which columns of which matrix, at which version of
/// the variables.
pub(crate) struct PartCache<T>(Mutex<Entries<T>>);

type Key = (TensorId, Range<usize>, u64);

/// By the first column; without a value where something was made and not kept.
type Entries<T> = BTreeMap<usize, (Key, Option<Arc<T>>)>;

impl<T> Default for PartCache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> PartCache<T> {
    /// That of the part that begins at column `first`, from memory if it is still the same. What is made is kept `at_once`,
    /// or else from the second time on that the same is asked for: most parts never come again.
    pub fn get(
        &self,
        first: usize,
        (matrix, columns): (&Tensor, &Range<usize>),
        version: u64,
        at_once: bool,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        let key = (matrix.id(), columns.clone(), version);
        let known = self
            .entries()
            .get(&first)
            .filter(|(of, _)| *of == key)
            .map(|(_, kept)| kept.clone());
        if let Some(Some(kept)) = known {
            return Ok(kept);
        }
        let made = Arc::new(make()?);
        let kept = (at_once || known.is_some()).then(|| made.clone());
        self.entries().insert(first, (key, kept));
        Ok(made)
    }

    fn entries(&self) -> MutexGuard<'_, Entries<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn what_was_made_of_another_tensor_is_not_found() -> Result<()> {
        let (one, other) = (
            Tensor::zeros(2, DType::F32, &Device::Cpu)?,
            Tensor::zeros(2, DType::F32, &Device::Cpu)?,
        );
        let made = LastResult::default();
        made.put(&one, 1);
        assert_eq!(
            (made.get(&other), made.get(&one), made.get(&one.clone())),
            (None, Some(1), Some(1))
        );
        assert_eq!((made.take(&other), made.get(&one)), (None, None));
        made.put(&one, 2);
        assert_eq!((made.take(&one), made.take(&one)), (Some(2), None));
        Ok(())
    }

    #[test]
    fn what_is_kept_is_of_this_part_at_this_version() -> Result<()> {
        let (one, other) = (
            Tensor::zeros(2, DType::F32, &Device::Cpu)?,
            Tensor::zeros(2, DType::F32, &Device::Cpu)?,
        );
        let (kept, mut made) = (PartCache::default(), 0);
        let mut get = |first, matrix, columns, version, at_once| -> Result<i32> {
            Ok(*kept.get(first, (matrix, &columns), version, at_once, || {
                made += 1;
                Ok(made)
            })?)
        };
        assert_eq!(
            (get(0, &one, 0..2, 7, true)?, get(3, &other, 0..2, 7, true)?),
            (1, 2)
        );
        assert_eq!(
            (get(0, &one, 0..2, 7, true)?, get(3, &other, 0..2, 7, true)?),
            (1, 2)
        );
        assert_eq!(
            (get(0, &one, 0..1, 7, true)?, get(0, &one, 0..1, 8, true)?),
            (3, 4)
        );
        // Only what comes again is kept.
        assert_eq!(
            [5, 6, 6],
            [0, 1, 2].map(|_| get(0, &other, 0..1, 8, false).unwrap_or_default())
        );
        assert_eq!(get(3, &other, 0..2, 7, true)?, 2);
        Ok(())
    }
}
