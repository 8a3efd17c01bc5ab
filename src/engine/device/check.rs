//! Whether a device keeps its word, and how fast: it has to compute a small
//! product, and a panic on the way is only an answer. It knows no backend.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

#[cfg(any(feature = "cuda", feature = "wgpu", test))]
use burn::tensor::{Device, Tensor, TensorData};

/// Runs `work`; an error or a panic becomes a message of one line.
pub(in crate::engine) fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let answer = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("it panicked")
            .to_string())
    });
    answer.map_err(|text| brief(&text))
}

/// Runs `work`; `None` when a device ran out of memory on the way, which the
/// libraries below tell by a panic. Any other panic goes on.
pub fn within_memory<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        match text.or_else(|| panic.downcast_ref::<&str>().copied()) {
            Some(text) if tells_of_memory(text) => Err(brief(text)),
            _ => resume_unwind(panic),
        }
    })
}

/// Whether a message says that there is no memory left, in the words of the
/// allocators of burn's backends and of the drivers below them.
fn tells_of_memory(text: &str) -> bool {
    let text = text.to_lowercase();
    let words =
        ["out of memory", "outofmemory", "out_of_memory", "buffertoobig", "memory allocation"];
    words.iter().any(|word| text.contains(word))
}

/// The beginning of a message of the libraries below, which may go on for
/// pages and end in a backtrace.
fn brief(text: &str) -> String {
    const LONGEST: usize = 300;
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Backtrace"));
    let line = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

/// One small product on `device`. The numbers are small whole ones, so the
/// answer is exact in every floating-point format a device may round to; the
/// inner length is one that broke kernels of earlier releases.
///
/// # Source
/// tracel-ai/burn#5237 for the length: no multiple of 64, but one of 8.
#[cfg(any(feature = "cuda", feature = "wgpu", test))]
pub(super) fn calculates(device: &Device) -> Result<(), String> {
    const ROWS: usize = 7;
    const INNER: usize = 40;
    const COLUMNS: usize = 16;
    let whole = |index: usize, step: usize| ((index * step) % 5) as f32 - 2.0;
    let left: Vec<f32> = (0..ROWS * INNER).map(|index| whole(index, 3)).collect();
    let right: Vec<f32> = (0..INNER * COLUMNS).map(|index| whole(index, 7)).collect();
    let mut wanted = vec![0.0; ROWS * COLUMNS];
    for (cell, value) in wanted.iter_mut().enumerate() {
        let (row, column) = (cell / COLUMNS, cell % COLUMNS);
        *value = (0..INNER).map(|k| left[row * INNER + k] * right[k * COLUMNS + column]).sum();
    }
    let got = guarded(|| {
        let left = Tensor::<2>::from_data(TensorData::new(left, [ROWS, INNER]), device);
        let right = Tensor::<2>::from_data(TensorData::new(right, [INNER, COLUMNS]), device);
        let product = left.matmul(right).try_into_data().map_err(|error| error.to_string())?;
        product.try_to_vec::<f32>().map_err(|error| format!("{error:?}"))
    })
    .map_err(|reason| format!("it cannot compute a matrix product: {reason}"))?;
    if got == wanted { Ok(()) } else { Err("it computes wrong matrix products".to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_calculates() {
        assert_eq!(calculates(&Device::flex()), Ok(()));
    }

    #[test]
    fn a_panic_for_want_of_memory_is_told_from_others() {
        for text in [
            "called `Result::unwrap()` on an `Err` value: OutOfMemory { requested: 5 }",
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
            "Can't allocate buffer of size: BufferTooBig { size: 7 }",
        ] {
            assert_eq!(within_memory(|| panic!("{text}")).map(|()| 1), Err(text.to_owned()));
        }
        assert_eq!(within_memory(|| 3), Ok(3));
        let other = || within_memory::<()>(|| panic!("index out of bounds"));
        let goes_on = guarded(|| {
            other()?;
            Ok(())
        });
        assert_eq!(goes_on, Err("index out of bounds".to_owned()));
    }

    #[test]
    fn panic_becomes_one_short_line() {
        let message =
            guarded::<()>(|| panic!("no adapter\n  found\nBacktrace:\n0: main")).unwrap_err();
        assert_eq!(message, "no adapter found");
        let message = guarded::<()>(|| Err("x".repeat(1000))).unwrap_err();
        assert_eq!(message.len(), 304);
    }
}
