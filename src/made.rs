//! What was made of a tensor, kept for whoever asks for it again.

use std::sync::{Mutex, PoisonError};

use candle_core::{Tensor, TensorId};

/// Something that was made of a tensor, or on the way to it, and is needed again in the same lesson: the last one alone.
///
/// It only saves work: whoever does not find it makes it anew.
pub struct Made<T>(Mutex<Option<(TensorId, T)>>);

impl<T> Default for Made<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Made<T> {
    /// Keeps what belongs to this very tensor, and nothing else.
    pub fn put(&self, of: &Tensor, made: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((of.id(), made));
    }

    /// What was kept for this very tensor; nothing is kept any longer.
    pub fn take(&self, of: &Tensor) -> Option<T> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        made.filter(|(id, _)| *id == of.id()).map(|(_, made)| made)
    }
}

impl<T: Clone> Made<T> {
    /// What was kept for this very tensor, which may be asked for again.
    pub fn get(&self, of: &Tensor) -> Option<T> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.as_ref().filter(|(id, _)| *id == of.id()).map(|(_, made)| made.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;
    use candle_core::{DType, Device};

    #[test]
    fn what_was_made_of_another_tensor_is_not_found() -> Result<()> {
        let (one, other) = (Tensor::zeros(2, DType::F32, &Device::Cpu)?, Tensor::zeros(2, DType::F32, &Device::Cpu)?);
        let made = Made::default();
        made.put(&one, 1);
        assert_eq!((made.get(&other), made.get(&one), made.get(&one.clone())), (None, Some(1), Some(1)));
        assert_eq!((made.take(&other), made.get(&one)), (None, None));
        made.put(&one, 2);
        assert_eq!((made.take(&one), made.take(&one)), (Some(2), None));
        Ok(())
    }
}
