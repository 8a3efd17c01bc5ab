//! Loops over slices of f32 that the compiler turns into vector code.
//!
//! Sums run over sixteen lanes in a fixed order, so a result depends neither
//! on the thread count nor on where a slice lies in memory. [`vectorized`]
//! picks the widest instruction set of the processor at run time; everything
//! called inside it is `#[inline(always)]` so that it is compiled for that set.

/// Lanes of a running sum; two AVX2 registers.
const LANES: usize = 16;

/// Runs `work` compiled for the processor's vector instructions.
#[inline(always)]
pub(super) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Sum of `f(a, b)` over two slices of equal length.
#[inline(always)]
pub(super) fn fold2(a: &[f32], b: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_main, a_rest) = a.as_chunks::<LANES>();
    let (b_main, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_main.iter().zip(b_main) {
        for lane in 0..LANES {
            lanes[lane] = f(lanes[lane], x[lane], y[lane]);
        }
    }
    if !a_rest.is_empty() {
        let (x, y) = (filled(a_rest), filled(b_rest));
        for lane in 0..LANES {
            lanes[lane] = f(lanes[lane], x[lane], y[lane]);
        }
    }
    folded(lanes)
}

/// The last numbers of a slice with zeros behind them, which add nothing. The
/// lanes would leave their registers if one of them were asked for by number.
#[inline(always)]
fn filled(rest: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// The sum of all lanes, halves onto halves.
#[inline(always)]
fn folded(lanes: [f32; LANES]) -> f32 {
    // The compiler is not to see through: it would arrange the long loops before
    // this for the sake of these few additions.
    let mut lanes = std::hint::black_box(lanes);
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Inner product.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold2(a, b, |sum, x, y| x.mul_add(y, sum))
}

/// Inner products of several rows with one: the bits of [`dot`], with what they
/// share read once.
#[inline(always)]
pub(super) fn dots(rows: [&[f32]; 4], y: &[f32]) -> [f32; 4] {
    let (y, y_rest) = y.as_chunks::<LANES>();
    let n = y.len();
    let [(a, a_rest), (b, b_rest), (c, c_rest), (d, d_rest)] = [
        rows[0].as_chunks::<LANES>(),
        rows[1].as_chunks::<LANES>(),
        rows[2].as_chunks::<LANES>(),
        rows[3].as_chunks::<LANES>(),
    ];
    let (a, b, c, d) = (&a[..n], &b[..n], &c[..n], &d[..n]);
    // Written out, so that the sums stay in registers.
    let (mut p, mut q, mut r, mut s) = ([0.0; LANES], [0.0; LANES], [0.0; LANES], [0.0; LANES]);
    for i in 0..n {
        for lane in 0..LANES {
            p[lane] = a[i][lane].mul_add(y[i][lane], p[lane]);
        }
        for lane in 0..LANES {
            q[lane] = b[i][lane].mul_add(y[i][lane], q[lane]);
        }
        for lane in 0..LANES {
            r[lane] = c[i][lane].mul_add(y[i][lane], r[lane]);
        }
        for lane in 0..LANES {
            s[lane] = d[i][lane].mul_add(y[i][lane], s[lane]);
        }
    }
    if !y_rest.is_empty() {
        let (a, b, c, d) = (filled(a_rest), filled(b_rest), filled(c_rest), filled(d_rest));
        let y = filled(y_rest);
        for lane in 0..LANES {
            p[lane] = a[lane].mul_add(y[lane], p[lane]);
        }
        for lane in 0..LANES {
            q[lane] = b[lane].mul_add(y[lane], q[lane]);
        }
        for lane in 0..LANES {
            r[lane] = c[lane].mul_add(y[lane], r[lane]);
        }
        for lane in 0..LANES {
            s[lane] = d[lane].mul_add(y[lane], s[lane]);
        }
    }
    [folded(p), folded(q), folded(r), folded(s)]
}

/// `y += a x`.
#[inline(always)]
pub(super) fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = a.mul_add(x, *y);
    }
}

/// The largest value, -inf for an empty slice.
#[inline(always)]
pub(super) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (main, rest) = values.as_chunks::<LANES>();
    for chunk in main {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    rest.iter().chain(&lanes).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// `exp(x)` for `x <= 88`, within 2 units in the last place; 0 below -87.
///
/// # Source
/// Cody and Waite range reduction with the minimax polynomial of Cephes'
/// `expf` (S. Moshier). The power of two comes from adding 1.5 * 2^23, which
/// leaves the rounded exponent in the low bits.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-0.693_359_4, clamped);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let value = p.mul_add(r * r, r + 1.0);
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { value * scale }
}

/// The logistic function.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    let e = exp(if x > 0.0 { -x } else { x });
    let small = e / (1.0 + e);
    if x > 0.0 { 1.0 - small } else { small }
}

/// Replaces scores by `exp(score - log_sum)`; returns nothing else.
#[inline(always)]
pub(super) fn exp_minus(scores: &mut [f32], log_sum: f32) {
    for s in scores {
        *s = exp(*s - log_sum);
    }
}

/// Natural logarithm of the sum of exponentials; scores become their exponentials over it.
#[inline(always)]
pub(super) fn softmax(scores: &mut [f32]) -> f32 {
    let largest = max(scores);
    exp_minus(scores, largest);
    let total = fold2(scores, scores, |sum, x, _| sum + x);
    let inverse = 1.0 / total;
    for s in scores.iter_mut() {
        *s *= inverse;
    }
    largest + total.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_over_its_range() {
        vectorized(
            #[inline(always)]
            || {
                for i in -86_000..=88_000 {
                    let x = i as f32 * 1e-3;
                    let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
                    assert!(((got - want) / want).abs() < 3e-7, "exp({x}) = {got}, not {want}");
                }
            },
        );
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn sums_cover_every_element() {
        for n in 0..70 {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let want: f32 = a.iter().map(|x| x * x).sum();
            assert_eq!(vectorized(|| dot(&a, &a)), want);
            let largest = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(vectorized(|| max(&a)), largest);
        }
    }

    #[test]
    fn softmax_sums_to_one_and_returns_the_log_sum() {
        let mut scores = vec![1.0, -2.0, 3.0, 80.0, 79.0];
        let want = scores.iter().map(|&s: &f32| f64::from(s).exp()).sum::<f64>().ln();
        let got = softmax(&mut scores);
        assert!((f64::from(got) - want).abs() < 1e-5);
        assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
