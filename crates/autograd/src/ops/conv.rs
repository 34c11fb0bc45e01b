//! Two-dimensional convolution, as a matrix product: each image's windows are laid out as the columns of a matrix
//! (im2col), which the kernels multiply. The columns are made again in the backward pass, not kept.

use bertha_tensor::Tensor;

use super::broadcast::with_float;
use super::matmul::{Matrix, multiply};
use super::real::Real;
use super::reduce::sum_axes;
use super::window::Axis;
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const CONV2D: OpInfo = differentiable("conv2d");

/// How a kernel moves over an image: `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Steps of the kernel.
    pub stride: [usize; 2],
    /// Zeros before and behind the image.
    pub padding: [usize; 2],
    /// Distance of the kernel's values.
    pub dilation: [usize; 2],
    /// Groups that input and output channels are divided into; each sees its own.
    pub groups: usize,
}

impl Default for Conv2d {
    /// Steps of 1, no padding, one group.
    fn default() -> Self {
        Self {
            stride: [1, 1],
            padding: [0, 0],
            dilation: [1, 1],
            groups: 1,
        }
    }
}

/// The convolution (cross-correlation, as PyTorch's) of images `x[N,C,H,W]` with kernels `weight[O,C/groups,Kh,Kw]` and
/// `bias[O]`, as `[N,O,H',W']` with `H' = (H + 2·padding − dilation·(Kh − 1) − 1)/stride + 1`, and `W'` likewise; f32 or
/// f64.
///
/// # Errors
/// When shapes disagree, the kernel does not fit into the padded image, the groups do not divide the channels, or dtypes
/// differ.
pub fn conv2d(
    session: &Session,
    x: &Var,
    weight: &Var,
    bias: Option<&Var>,
    options: Conv2d,
) -> Result<Var, AutogradError> {
    let inputs: Vec<&Var> = [x, weight].into_iter().chain(bias).collect();
    let (tracked, float) = (CONV2D.admit(session, &inputs)?, CONV2D.float(&inputs)?);
    let plan = Plan::new(x, weight, bias, options)?;
    let (images, kernels) = (x.tensor().contiguous(), weight.tensor().contiguous());
    let mut y = Tensor::scratch_in(session.pool(), x.dtype(), &plan.output())?;
    with_float!(float, T => {
        let bias = bias.map(|bias| bias.tensor().contiguous());
        let bias = bias.as_ref().map(Tensor::as_slice::<T>).transpose()?;
        let (images, kernels) = (images.as_slice()?, kernels.as_slice()?);
        plan.forward(session, images, kernels, bias, y.as_mut_slice()?)?;
    });
    if !tracked {
        return Ok(Var::constant(y));
    }
    let (to_x, to_weight, to_bias) = (
        x.target(),
        weight.target(),
        bias.and_then(|bias| bias.target()),
    );
    let images = to_weight.is_some().then_some(images);
    let kernels = to_x.is_some().then_some(kernels);
    Ok(CONV2D.record(y, move |flow, dy| {
        let session = flow.session();
        let dy = dy.contiguous();
        if let Some(to) = to_bias {
            let db = with_float!(float, T => sum_axes::<T>(session, &dy, &[0, 2, 3])?);
            flow.add(&to.source, db.reshape(&to.shape)?)?;
        }
        if let (Some(to), Some(images)) = (to_weight, images) {
            let mut dw = Tensor::zeros_in(session.pool(), dy.dtype(), &to.shape)?;
            with_float!(float, T => {
                let (images, dy) = (images.as_slice::<T>()?, dy.as_slice()?);
                plan.backward_weight(session, images, dy, dw.as_mut_slice()?)?;
            });
            flow.add(&to.source, dw)?;
        }
        if let (Some(to), Some(kernels)) = (to_x, kernels) {
            let mut dx = Tensor::zeros_in(session.pool(), dy.dtype(), &to.shape)?;
            with_float!(float, T => {
                let (kernels, dy) = (kernels.as_slice::<T>()?, dy.as_slice()?);
                plan.backward_input(session, kernels, dy, dx.as_mut_slice()?)?;
            });
            flow.add(&to.source, dx)?;
        }
        Ok(())
    }))
}

/// The sizes of a convolution.
#[derive(Clone, Copy)]
struct Plan {
    images: usize,
    groups: usize,
    /// Channels in and out of each group.
    channels: usize,
    kernels: usize,
    rows: Axis,
    columns: Axis,
}

impl Plan {
    fn new(
        x: &Var,
        weight: &Var,
        bias: Option<&Var>,
        options: Conv2d,
    ) -> Result<Self, AutogradError> {
        let &[images, channels, h, w] = x.shape() else {
            let expected = "[N, C, H, W]".into();
            return Err(CONV2D.shape_error("the input", x.shape(), expected));
        };
        let &[kernels, in_group, kh, kw] = weight.shape() else {
            let expected = "[O, C/groups, Kh, Kw]".into();
            return Err(CONV2D.shape_error("the weight", weight.shape(), expected));
        };
        let Conv2d {
            stride,
            padding,
            dilation,
            groups,
        } = options;
        let divides = groups > 0 && kernels.is_multiple_of(groups);
        if !divides || in_group.checked_mul(groups) != Some(channels) {
            let expected =
                format!("[O, C/groups, Kh, Kw] for C = {channels} and groups = {groups}");
            return Err(CONV2D.shape_error("the weight", weight.shape(), expected));
        }
        if let Some(bias) = bias.filter(|bias| bias.shape() != [kernels]) {
            return Err(CONV2D.shape_error("the bias", bias.shape(), format!("[{kernels}]")));
        }
        let axes = (
            Axis::new(h, kh, stride[0], padding[0], dilation[0]),
            Axis::new(w, kw, stride[1], padding[1], dilation[1]),
        );
        let (Some(rows), Some(columns)) = axes else {
            let expected = format!("an image that kernels of {kh}×{kw} with {options:?} fit into");
            return Err(CONV2D.shape_error("the input", x.shape(), expected));
        };
        Ok(Self {
            images,
            groups,
            channels: in_group,
            kernels: kernels / groups,
            rows,
            columns,
        })
    }

    fn output(&self) -> [usize; 4] {
        let Self { rows, columns, .. } = self;
        [
            self.images,
            self.groups * self.kernels,
            rows.places,
            columns.places,
        ]
    }

    /// Places of the kernel in an image.
    fn places(&self) -> usize {
        self.rows.places * self.columns.places
    }

    /// Values of a kernel.
    fn depth(&self) -> usize {
        self.channels * self.rows.kernel * self.columns.kernel
    }

    /// Values of the channels of a group in an image.
    fn pixels(&self) -> usize {
        self.channels * self.rows.size * self.columns.size
    }

    /// Memory for the windows of a group of an image: `[depth, places]`.
    fn buffer(
        &self,
        session: &Session,
        dtype: bertha_tensor::DType,
    ) -> Result<Tensor, AutogradError> {
        let shape = [self.depth(), self.places()];
        Ok(Tensor::scratch_in(session.pool(), dtype, &shape)?)
    }

    fn forward<T: Real>(
        &self,
        session: &Session,
        images: &[T],
        kernels: &[T],
        bias: Option<&[T]>,
        y: &mut [T],
    ) -> Result<(), AutogradError> {
        let (depth, places) = (self.depth(), self.places());
        let mut buffer = self.buffer(session, T::DTYPE)?;
        let windows = buffer.as_mut_slice::<T>()?;
        for image in 0..self.images {
            for group in 0..self.groups {
                let part = image * self.groups + group;
                let pixels = &images[part * self.pixels()..][..self.pixels()];
                let y = &mut y[part * self.kernels * places..][..self.kernels * places];
                let kernels = &kernels[group * self.kernels * depth..][..self.kernels * depth];
                self.lay_out(pixels, windows);
                if let Some(bias) = bias {
                    let bias = &bias[group * self.kernels..][..self.kernels];
                    for (y, &bias) in y.chunks_exact_mut(places).zip(bias) {
                        y.fill(bias);
                    }
                }
                multiply(
                    session,
                    [self.kernels, depth, places],
                    Matrix::row_major(kernels, depth),
                    Matrix::row_major(windows, places),
                    bias.is_some(),
                    y,
                );
            }
        }
        Ok(())
    }

    /// Adds the gradient of the weight to `dw`, image after image.
    fn backward_weight<T: Real>(
        &self,
        session: &Session,
        images: &[T],
        dy: &[T],
        dw: &mut [T],
    ) -> Result<(), AutogradError> {
        let (depth, places) = (self.depth(), self.places());
        let mut buffer = self.buffer(session, T::DTYPE)?;
        let windows = buffer.as_mut_slice::<T>()?;
        for image in 0..self.images {
            for group in 0..self.groups {
                let part = image * self.groups + group;
                let dy = &dy[part * self.kernels * places..][..self.kernels * places];
                self.lay_out(&images[part * self.pixels()..][..self.pixels()], windows);
                multiply(
                    session,
                    [self.kernels, places, depth],
                    Matrix::row_major(dy, places),
                    Matrix::row_major(windows, places).transposed(),
                    true,
                    &mut dw[group * self.kernels * depth..][..self.kernels * depth],
                );
            }
        }
        Ok(())
    }

    /// Adds the gradient of the images to `dx`.
    fn backward_input<T: Real>(
        &self,
        session: &Session,
        kernels: &[T],
        dy: &[T],
        dx: &mut [T],
    ) -> Result<(), AutogradError> {
        let (depth, places) = (self.depth(), self.places());
        let mut buffer = self.buffer(session, T::DTYPE)?;
        let windows = buffer.as_mut_slice::<T>()?;
        for image in 0..self.images {
            for group in 0..self.groups {
                let part = image * self.groups + group;
                let dy = &dy[part * self.kernels * places..][..self.kernels * places];
                let kernels = &kernels[group * self.kernels * depth..][..self.kernels * depth];
                multiply(
                    session,
                    [depth, self.kernels, places],
                    Matrix::row_major(kernels, depth).transposed(),
                    Matrix::row_major(dy, places),
                    false,
                    windows,
                );
                let pixels = &mut dx[part * self.pixels()..][..self.pixels()];
                self.runs(|at, from, len| {
                    let stride = self.columns.stride;
                    let values = windows[at..at + len].iter();
                    let pixels = pixels[from..].iter_mut().step_by(stride);
                    pixels
                        .zip(values)
                        .for_each(|(pixel, &value)| *pixel += value);
                });
            }
        }
        Ok(())
    }

    /// Writes the windows of a group of an image: value `d` of the kernel at place `p` to `windows[d, p]`.
    fn lay_out<T: Real>(&self, pixels: &[T], windows: &mut [T]) {
        // What is not inside the image is padding.
        windows.fill(T::ZERO);
        self.runs(|at, from, len| {
            let to = &mut windows[at..at + len];
            if self.columns.stride == 1 {
                to.copy_from_slice(&pixels[from..from + len]);
            } else {
                let pixels = pixels[from..].iter().step_by(self.columns.stride);
                to.iter_mut()
                    .zip(pixels)
                    .for_each(|(to, &pixel)| *to = pixel);
            }
        });
    }

    /// Visits what of the windows lies inside the image, in runs of places side by side: where a run starts in the
    /// windows, where its first pixel lies, and how long it is.
    fn runs(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let Self { rows, columns, .. } = self;
        for channel in 0..self.channels {
            for ky in 0..rows.kernel {
                for kx in 0..columns.kernel {
                    let d = (channel * rows.kernel + ky) * columns.kernel + kx;
                    let across = columns.inside(kx);
                    let Some(x) = columns.position(across.start, kx) else {
                        continue;
                    };
                    for place in rows.inside(ky) {
                        let Some(y) = rows.position(place, ky) else {
                            continue;
                        };
                        let at = (d * rows.places + place) * columns.places + across.start;
                        let from = (channel * rows.size + y) * columns.size + x;
                        visit(at, from, across.len());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(shape: &[usize]) -> Tensor {
        let len: usize = shape.iter().product();
        let values = (0..len).map(|i| (i * 37 % 19) as f32 - 9.0).collect();
        Tensor::from_vec(values, shape).unwrap()
    }

    /// The definition, sum by sum.
    fn definition(x: &Tensor, w: &Tensor, bias: &Tensor, options: Conv2d) -> Vec<f32> {
        let (n, h, wide) = (x.shape()[0], x.shape()[2], x.shape()[3]);
        let &[o, c, kh, kw] = w.shape() else { panic!() };
        let (x, w) = (x.view::<f32>().unwrap(), w.view::<f32>().unwrap());
        let bias = bias.as_slice::<f32>().unwrap();
        let places = |axis: usize, size: usize, k: usize| {
            (size + 2 * options.padding[axis] - options.dilation[axis] * (k - 1) - 1)
                / options.stride[axis]
                + 1
        };
        let mut y = Vec::new();
        for image in 0..n {
            for out in 0..o {
                let group = out / (o / options.groups);
                for row in 0..places(0, h, kh) {
                    for column in 0..places(1, wide, kw) {
                        let mut sum = bias[out];
                        for channel in 0..c {
                            for ky in 0..kh {
                                for kx in 0..kw {
                                    let at = |axis: usize, place: usize, k: usize| {
                                        (place * options.stride[axis] + k * options.dilation[axis])
                                            .wrapping_sub(options.padding[axis])
                                    };
                                    let (i, j) = (at(0, row, ky), at(1, column, kx));
                                    if i < h && j < wide {
                                        sum += x[[image, group * c + channel, i, j]]
                                            * w[[out, channel, ky, kx]];
                                    }
                                }
                            }
                        }
                        y.push(sum);
                    }
                }
            }
        }
        y
    }

    #[test]
    fn it_agrees_with_the_definition() {
        let session = Session::new(Some(1)).unwrap();
        let base = Conv2d::default();
        for options in [
            base,
            Conv2d {
                padding: [1, 2],
                ..base
            },
            Conv2d {
                stride: [2, 3],
                padding: [1, 1],
                ..base
            },
            Conv2d {
                dilation: [2, 1],
                padding: [3, 0],
                ..base
            },
            Conv2d {
                groups: 2,
                stride: [1, 2],
                ..base
            },
        ] {
            let x = numbers(&[2, 4, 6, 7]);
            let w = numbers(&[6, 4 / options.groups, 3, 2]);
            let bias = numbers(&[6]);
            let expected = definition(&x, &w, &bias, options);
            let [x, w, bias] = [x, w, bias].map(Var::constant);
            let y = conv2d(&session, &x, &w, Some(&bias), options).unwrap();
            assert_eq!(y.as_slice().unwrap(), expected, "{options:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let session = Session::new(Some(1)).unwrap();
        let x = Var::constant(numbers(&[1, 4, 2, 2]));
        for (shape, options) in [
            ([2, 4, 3, 3], Conv2d::default()),
            ([2, 3, 1, 1], Conv2d::default()),
            (
                [2, 4, 1, 1],
                Conv2d {
                    stride: [0, 1],
                    ..Conv2d::default()
                },
            ),
            (
                [3, 2, 1, 1],
                Conv2d {
                    groups: 2,
                    ..Conv2d::default()
                },
            ),
            (
                [2, 4, 1, 1],
                Conv2d {
                    groups: 0,
                    ..Conv2d::default()
                },
            ),
        ] {
            let w = Var::constant(numbers(&shape));
            let error = conv2d(&session, &x, &w, None, options).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("`conv2d`"), "{error}");
        }
    }
}
