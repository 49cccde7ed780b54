//! The sizes of a convolution with pools, for the CPU and a GPU.

/// The sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub rows: usize,
    pub inputs: usize,
    pub height: usize,
    pub width: usize,
    pub units: usize,
    pub field: usize,
    pub pool: usize,
}

impl Sizes {
    /// The size of a field, `C·K·K`.
    pub fn numbers(&self) -> usize {
        self.inputs * self.field * self.field
    }

    /// The height and width of the output.
    pub fn out(&self) -> (usize, usize) {
        (self.height / self.pool, self.width / self.pool)
    }

    /// The number of outputs of one image.
    pub fn out_image(&self) -> usize {
        let (height, width) = self.out();
        self.units * height * width
    }
}
