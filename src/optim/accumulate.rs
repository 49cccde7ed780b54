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
                        self.begin()?;
                        self.form_product(row, &done, [1., share])?;
                    }
                    if let Some(packed) = packed {
                        self.begin()?;
                        self.form_packed(row, packed, width, [1., share])?;
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
        self.form_all(share)?;
        // If all rows were zero, nothing has overwritten the sum of the last step.
        self.begin()?;
        self.is_zero = true;
        Ok(&self.sum)
    }

    /// Whether the products that wait write every number of the sum.
    fn is_covered(&self) -> bool {
        let has_form = self.form.is_some();
        let writes = |part: &Part| match &part.pending {
            Some(product) => has_form || matches!(product.values, Values::Dense { .. }),
            None => !part.packed.is_empty(),
        };
        let is_fast = has_form || kernels::has_fast_form(&self.sum);
        is_fast && !self.parts.is_empty() && self.parts.iter().all(writes)
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

    /// Adds all pending and packed products to the sum. If they write all of an empty sum, it
    /// is overwritten, which saves the pass that would fill it with zeros.
    fn form_all(&mut self, share: f64) -> Result<()> {
        self.pack_all()?;
        let overwrites = self.is_zero && self.is_covered();
        if overwrites {
            self.is_zero = false;
        } else if !self.parts.is_empty() {
            self.begin()?;
        }
        let mut row = 0;
        for part in std::mem::take(&mut self.parts) {
            let mut keep = if overwrites { 0. } else { 1. };
            if let Some(product) = part.pending {
                self.form_product(row, &product, [keep, share])?;
                keep = 1.;
            }
            self.form_packed(row, part.packed, part.width, [keep, share])?;
            row += part.width;
        }
        Ok(())
    }

    /// Computes `sum[row..] ← keep·sum[row..] + share·valuesᵀ·delta` for a product and
    /// `[keep, share]`. Only what [`is_covered`](Self::is_covered) says may have another
    /// `keep` than 1.
    fn form_product(
        &mut self,
        row: usize,
        product: &Product,
        [keep, share]: [f64; 2],
    ) -> Result<()> {
        if let Some(form) = &self.form {
            let factors = [keep, share].map(|factor| factor as f32);
            return kernels::with_values_mut(&self.sum, |sum| {
                form.add_to([sum, &mut []], row, product, factors, &|_, _| ())
            })?;
        }
        let is_dense = matches!(product.values, Values::Dense { .. });
        debug_assert!(keep == 1. || (is_dense && kernels::has_fast_form(&self.sum)));
        if kernels::has_fast_form(&self.sum) {
            return update::add(&self.sum, row, product, [keep, share]);
        }
        let (above, here) = (self.sum.narrow(0, 0, row)?, product.values.width()?);
        let below = self
            .sum
            .narrow(0, row + here, self.sum.dim(0)? - row - here)?;
        let here = (self.sum.narrow(0, row, here)? + (product.whole(self.sum.dtype())? * share)?)?;
        self.sum = Tensor::cat(&[above, here, below], 0)?.detach();
        Ok(())
    }

    fn form_packed(
        &mut self,
        row: usize,
        packed: Packed,
        width: usize,
        [keep, share]: [f64; 2],
    ) -> Result<()> {
        if packed.is_empty() {
            return Ok(());
        }
        if self.form.is_some() {
            let units = packed.units();
            return self.form_product(row, &packed.into_product(width, units)?, [keep, share]);
        }
        update::add_packed(&self.sum, row, &packed, width, [keep, share])
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::Init;

    use super::*;
    use crate::flow::random::normals;
    use crate::flow::vars::Vars;

    const ROWS: usize = 40;
    const UNITS: usize = 5;

    /// A product of which every `nth` row counts; none for 0.
    fn product(values: Values, nth: usize) -> Result<Product> {
        let counts = |row: usize| f32::from(nth > 0 && row.is_multiple_of(nth));
        let counts: Vec<f32> = (0..ROWS).map(counts).collect();
        let counts = Tensor::from_vec(counts, (ROWS, 1), &Device::Cpu)?;
        let delta = normals(&[ROWS, UNITS], 2)?.broadcast_mul(&counts)?;
        Ok(Product {
            values,
            delta: delta.into(),
        })
    }

    fn dense() -> Result<Values> {
        Values::dense(normals(&[ROWS, 7], 1)?)
    }

    fn classes() -> Result<Values> {
        let index: Vec<u32> = (0..ROWS as u32).map(|row| row % 3).collect();
        Ok(Values::OneHot {
            index: Tensor::from_vec(index, (ROWS, 1), &Device::Cpu)?,
            classes: 3,
            strength: 1.,
        })
    }

    fn nothing() -> Values {
        Values::Zeros {
            rows: ROWS,
            width: 2,
        }
    }

    #[test]
    fn a_sum_has_nothing_of_what_was_there_before() -> Result<()> {
        let kinds = [
            vec![dense()?],
            vec![dense()?, dense()?],
            vec![dense()?, classes()?],
            vec![dense()?, nothing()],
        ];
        // Of each lesson, the rows that count: many are multiplied at once, few are packed.
        for lessons in [&[1][..], &[10], &[0], &[1, 1], &[1, 10], &[10, 1]] {
            for values in &kinds {
                let of_lesson = |nth: usize| -> Result<Vec<Product>> {
                    // Products of the same tensor would be computed as one.
                    let own = |product: Product| product.map(&|x| Ok(x.copy()?));
                    let values = values.iter().cloned();
                    values.map(|values| own(product(values, nth)?)).collect()
                };
                let rows = values.iter().map(Values::width).sum::<Result<usize>>()?;
                let vars = Vars::new(1, DType::F32, &Device::Cpu);
                let var = vars.get("w", (rows, UNITS), Init::Const(0.))?;
                let mut sum = Accumulator::new(&var)?;
                kernels::with_values_mut(&sum.sum, |sum| sum.fill(f32::NAN))?;
                // The second step begins with the sum of the first one.
                for step in 0..2 {
                    let mut wanted = var.zeros_like()?;
                    for &nth in lessons {
                        let products = of_lesson(nth)?;
                        let whole = products.iter().map(|product| product.whole(DType::F32));
                        let whole = Tensor::cat(&whole.collect::<Result<Vec<_>>>()?, 0)?;
                        wanted = (wanted + (whole * 0.5)?)?;
                        sum.add(Gradient::Products(&products), 0.5)?;
                    }
                    let error = (sum.whole(0.5)? - wanted)?.abs()?.sum_all()?;
                    let error = error.to_scalar::<f32>()?;
                    let what = format!("step {step}, {} parts, {lessons:?}", values.len());
                    assert!(error < 1e-4, "{what}: {error}");
                }
            }
        }
        Ok(())
    }
}
