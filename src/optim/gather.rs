//! Gradients of several lessons, added up before anything changes.

use candle_core::{Tensor, Var};

use super::{fast, Gradient, Product};
use crate::error::Result;
use crate::input::Values;
use crate::ops;

/// The gradients of one variable so far.
///
/// A product is not formed at once: the next lesson may be about the same values, a still image under another time
/// step, say; then only the deltas are added, and there is one product for all lessons.
pub(super) struct Sum {
    pub var: Var,
    sum: Tensor,
    pending: Vec<Option<Product>>,
    is_zero: bool,
}

impl Sum {
    pub fn new(var: &Var) -> Result<Self> {
        Ok(Self { var: var.clone(), sum: var.zeros_like()?.detach(), pending: Vec::new(), is_zero: true })
    }

    /// Whether nothing was added since the sum was taken.
    pub fn is_empty(&self) -> bool {
        self.is_zero && self.pending.iter().all(Option::is_none)
    }

    /// Adds `share·gradient`.
    pub fn add(&mut self, gradient: Gradient<'_>, share: f64) -> Result<()> {
        let products = match gradient {
            Gradient::Whole(gradient) => {
                self.sum = if self.is_zero { (gradient * share)? } else { (&self.sum + (gradient * share)?)? }.detach();
                self.is_zero = false;
                return Ok(());
            }
            Gradient::Products(products) => products,
        };
        self.pending.resize(products.len(), None);
        let mut row = 0;
        for (index, product) in products.iter().enumerate() {
            match &mut self.pending[index] {
                Some(pending) if is_same(&pending.values, &product.values) => {
                    pending.delta = ops::sum(&pending.delta, &product.delta)?;
                }
                pending => {
                    if let Some(done) = pending.replace(product.clone()) {
                        self.form(row, &done, share)?;
                    }
                }
            }
            row += product.values.width()?;
        }
        Ok(())
    }

    /// What was added, all of it; the sum starts anew.
    pub fn take(&mut self, share: f64) -> Result<&Tensor> {
        let mut row = 0;
        for product in std::mem::take(&mut self.pending).into_iter().flatten() {
            self.form(row, &product, share)?;
            row += product.values.width()?;
        }
        self.is_zero = true;
        Ok(&self.sum)
    }

    /// Adds a product to the rows of the sum from `row` on.
    fn form(&mut self, row: usize, product: &Product, share: f64) -> Result<()> {
        if std::mem::take(&mut self.is_zero) {
            self.sum = self.sum.zeros_like()?;
        }
        if ops::is_fast(&self.sum) {
            return fast::add(&self.sum, row, product, share);
        }
        let (above, here) = (self.sum.narrow(0, 0, row)?, product.values.width()?);
        let below = self.sum.narrow(0, row + here, self.sum.dim(0)? - row - here)?;
        let here = (self.sum.narrow(0, row, here)? + (product.whole(self.sum.dtype())? * share)?)?;
        self.sum = Tensor::cat(&[above, here, below], 0)?.detach();
        Ok(())
    }
}

fn is_same(a: &Values, b: &Values) -> bool {
    match (a, b) {
        (Values::Dense { matrix: a, columns: of_a }, Values::Dense { matrix: b, columns: of_b }) => {
            a.id() == b.id() && of_a == of_b
        }
        (
            Values::OneHot { index: a, classes: of_a, strength },
            Values::OneHot { index: b, classes: of_b, strength: other },
        ) => a.id() == b.id() && of_a == of_b && strength == other,
        _ => false,
    }
}
