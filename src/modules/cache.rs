//! One-slot caches keyed by tensor identity.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{Tensor, TensorId};

use crate::error::Result;

/// The last result that was computed from a tensor, or together with it, for reuse in the
/// same lesson.
///
/// It only saves work: on a cache miss the caller computes the result again.
pub struct LastResult<T>(Mutex<Option<(TensorId, T)>>);

impl<T> Default for LastResult<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> LastResult<T> {
    /// Stores the result for exactly this tensor, and replaces the previous one.
    pub fn put(&self, of: &Tensor, made: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((of.id(), made));
    }

    /// Takes the result for exactly this tensor; the cache is empty afterwards.
    pub fn take(&self, of: &Tensor) -> Option<T> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        made.filter(|(id, _)| *id == of.id()).map(|(_, made)| made)
    }
}

impl<T: Clone> LastResult<T> {
    /// The result for exactly this tensor; it stays in the cache.
    pub fn get(&self, of: &Tensor) -> Option<T> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.as_ref()
            .filter(|(id, _)| *id == of.id())
            .map(|(_, made)| made.clone())
    }
}

/// The last result for each part of an input. The key is the matrix, its columns and the
/// version of the variables.
pub(crate) struct PartCache<T>(Mutex<Entries<T>>);

type Key = (TensorId, Range<usize>, u64);

/// Entries by first column; `None` if a result was computed but not stored.
type Entries<T> = BTreeMap<usize, (Key, Option<Arc<T>>)>;

impl<T> Default for PartCache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> PartCache<T> {
    /// The result for the part that begins at column `first`, from the cache if the key
    /// is equal.
    ///
    /// A new result is stored immediately if `at_once` is set, else from the second
    /// request with the same key on: most parts are used only once.
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
    fn results_of_another_tensor_are_not_found() -> Result<()> {
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
    fn a_result_belongs_to_one_part_and_one_version() -> Result<()> {
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
        // Stored only from the second request on.
        assert_eq!(
            [5, 6, 6],
            [0, 1, 2].map(|_| get(0, &other, 0..1, 8, false).unwrap_or_default())
        );
        assert_eq!(get(3, &other, 0..2, 7, true)?, 2);
        Ok(())
    }
}
