//! Accumulation of the gradients of several lessons before an update.

use std::sync::Arc;

use candle_core::{Tensor, Var};

use super::product::Packed;
use super::{update, Form, Gradient, Product};
use crate::error::Result;
use crate::flow::input::Values;
use crate::kernels;

/// The number of packed rows at which they are added to the sum: enough for a pass over
/// it to pay off.
const ENOUGH: usize = 256;

/// The sum of the gradients of one variable.
///
/// A product is not computed immediately. The next lesson may have the same values, such
/// as a still image at another time step. Then only the output gradients are added, and
/// one product serves all lessons. If few rows are non-zero, they are packed until one
/// product of all of them pays off. It may be part of the update itself.
pub(super) struct Accumulator {
    pub var: Var,
    sum: Tensor,
    is_zero: bool,
    parts: Vec<Part>,
    /// The form of the gradient, if products are not for rows of the variable.
    form: Option<Arc<dyn Form>>,
}

/// Products for some rows of the variable that are not in the sum yet.
#[derive(Default)]
struct Part {
    pending: Option<Product>,
    packed: Packed,
    width: usize,
}

impl Accumulator {
    pub fn new(var: &Var) -> Result<Self> {
        Ok(Self {
            var: var.clone(),
            sum: var.zeros_like()?.detach(),
            is_zero: true,
            parts: Vec::new(),
            form: None,
        })
    }

    /// Whether nothing was added since the sum was taken.
    pub fn is_empty(&self) -> bool {
        self.is_zero && self.parts.is_empty()
    }

    /// Adds `share·gradient`.
    pub fn add(&mut self, gradient: Gradient<'_>, share: f64) -> Result<()> {
        match gradient {
            Gradient::Whole(gradient) => self.add_whole(gradient, share),
            Gradient::ColumnSums(gradient) => self.add_whole(&gradient.column_sums()?, share),
            Gradient::Products(products) => self.collect(products, share),
            Gradient::Formed(form, products) => {
                self.form.get_or_insert_with(|| form.clone());
                self.collect(products, share)
            }
        }
    }

    fn add_whole(&mut self, gradient: &Tensor, share: f64) -> Result<()> {
        self.begin()?;
        if kernels::has_fast_form(&self.sum) {
            return update::add_whole(&self.sum, gradient, share);
        }
        self.sum = (&self.sum + (gradient * share)?)?.detach();
        Ok(())
    }

    fn collect(&mut self, products: &[Product], share: f64) -> Result<()> {
        let widths = products
            .iter()
            .map(|product| product.values.width())
            .collect::<Result<Vec<_>>>()?;
        let known = self.parts.iter().map(|part| part.width);
        if !known.eq(widths.iter().copied()) {
            self.form_all(share)?;
            self.parts = widths
                .into_iter()
                .map(|width| Part {
                    width,
                    ..Part::default()
                })
                .collect();
        }
        let mut row = 0;
        for (index, product) in products.iter().enumerate() {
            let part = &mut self.parts[index];
            match &mut part.pending {
                Some(pending) if is_same(&pending.values, &product.values) => {
                    pending.delta.add(&product.delta)?
                }
                pending => {
                    let done = pending.replace(product.clone());
                    let done = done.map_or_else(|| Ok(None), |done| part.pack(done))?;
                    let packed =
                        (part.packed.rows >= ENOUGH).then(|| std::mem::take(&mut part.packed));
                    let width = part.width;
                    if let Some(done) = done {
                        self.form_product(row, &done, share)?;
                    }
                    if let Some(packed) = packed {
                        self.form_packed(row, packed, width, share)?;
                    }
                }
            }
            row += self.parts[index].width;
        }
        Ok(())
    }

    /// Calls `f` with the sum, then empties it.
    pub fn take(&mut self, share: f64, f: impl FnOnce(Gradient<'_>) -> Result<()>) -> Result<()> {
        self.pack_all()?;
        let is_one = |part: &Part| part.pending.is_none() || part.packed.is_empty();
        if self.is_zero && self.form.is_none() && self.parts.iter().all(is_one) {
            let parts = std::mem::take(&mut self.parts).into_iter();
            let products = parts
                .map(|part| part.into_product(&self.var, share))
                .collect::<Result<Vec<_>>>()?;
            return f(Gradient::Products(&products));
        }
        f(Gradient::Whole(self.whole(share)?))
    }

    /// The sum as one tensor; the next addition overwrites it.
    pub fn whole(&mut self, share: f64) -> Result<&Tensor> {
        self.pack_all()?;
        // Also if all packed rows are zero: the sum of the last step must not be reused.
        self.begin()?;
        self.form_all(share)?;
        self.is_zero = true;
        Ok(&self.sum)
    }

    fn pack_all(&mut self) -> Result<()> {
        for part in &mut self.parts {
            if let Some(product) = part.pending.take() {
                part.pending = part.pack(product)?;
            }
        }
        Ok(())
    }

    /// Discards all gradients.
    pub fn reset(&mut self) {
        self.parts.clear();
        self.is_zero = true;
    }

    /// Adds all pending and packed products to the sum.
    fn form_all(&mut self, share: f64) -> Result<()> {
        let mut row = 0;
        for part in std::mem::take(&mut self.parts) {
            if let Some(product) = part.pending {
                self.form_product(row, &product, share)?;
            }
            self.form_packed(row, part.packed, part.width, share)?;
            row += part.width;
        }
        Ok(())
    }

    /// Adds a product to the rows of the sum from `row` on.
    fn form_product(&mut self, row: usize, product: &Product, share: f64) -> Result<()> {
        self.begin()?;
        if let Some(form) = &self.form {
            return kernels::with_values_mut(&self.sum, |sum| {
                form.add_to(sum, row, product, share as f32)
            })?;
        }
        if kernels::has_fast_form(&self.sum) {
            return update::add(&self.sum, row, product, share);
        }
        let (above, here) = (self.sum.narrow(0, 0, row)?, product.values.width()?);
        let below = self
            .sum
            .narrow(0, row + here, self.sum.dim(0)? - row - here)?;
        let here = (self.sum.narrow(0, row, here)? + (product.whole(self.sum.dtype())? * share)?)?;
        self.sum = Tensor::cat(&[above, here, below], 0)?.detach();
        Ok(())
    }

    fn form_packed(&mut self, row: usize, packed: Packed, width: usize, share: f64) -> Result<()> {
        if packed.is_empty() {
            return Ok(());
        }
        if self.form.is_some() {
            let units = packed.units();
            return self.form_product(row, &packed.into_product(width, units)?, share);
        }
        self.begin()?;
        update::add_packed(&self.sum, row, &packed, width, share)
    }

    fn begin(&mut self) -> Result<()> {
        match std::mem::take(&mut self.is_zero) {
            true if kernels::is_fast(&self.sum) => {
                kernels::with_values_mut(&self.sum, |sum| sum.fill(0.))?
            }
            true => self.sum = self.sum.zeros_like()?,
            false => (),
        }
        Ok(())
    }
}

impl Part {
    /// Packs a product, or returns it if too many of its rows are non-zero.
    fn pack(&mut self, product: Product) -> Result<Option<Product>> {
        let is_packed = product.is_fast() && self.packed.push(&product)?;
        Ok((!is_packed).then_some(product))
    }

    /// `share` times the pending or the packed product; one of them is empty.
    fn into_product(self, var: &Var, share: f64) -> Result<Product> {
        if let Some(Product { values, delta }) = self.pending {
            return Ok(Product {
                values,
                delta: delta.times(share)?,
            });
        }
        let mut packed = self.packed;
        packed
            .delta
            .iter_mut()
            .for_each(|delta| *delta *= share as f32);
        packed.into_product(self.width, var.dim(1)?)
    }
}

fn is_same(a: &Values, b: &Values) -> bool {
    match (a, b) {
        (
            Values::Dense {
                matrix: a,
                columns: of_a,
            },
            Values::Dense {
                matrix: b,
                columns: of_b,
            },
        ) => a.id() == b.id() && of_a == of_b,
        (
            Values::OneHot {
                index: a,
                classes: of_a,
                strength,
            },
            Values::OneHot {
                index: b,
                classes: of_b,
                strength: other,
            },
        ) => a.id() == b.id() && of_a == of_b && strength == other,
        (
            Values::Sparse {
                index,
                entries,
                width,
            },
            Values::Sparse {
                index: other,
                entries: of_other,
                width: wide,
            },
        ) => index.id() == other.id() && entries.id() == of_other.id() && width == wide,
        (Values::Zeros { rows, width }, Values::Zeros { rows: r, width: w }) => {
            (rows, width) == (r, w)
        }
        _ => false,
    }
}
