//! What a model expects behind every token of a text that is already there.
//!
//! Knows tokens only; writes none.

use super::model::Llama;
use super::ops::{self, Documents};
use crate::base::failure::{Doing, Outcome};
use std::sync::Arc;

/// Rows whose logits are in memory at once.
const ROWS: usize = 64;

/// Reads a text once and tells, for each token but the last, its position and
/// the logits behind it.
///
/// # Errors
/// When the device fails, and what `heard` returns.
///
/// # Shapes
/// ids `[N]`, at least one; heard: logits `[V]` for the positions `0..N - 1`
pub fn each(
    model: &Llama,
    ids: &Arc<[u32]>,
    heard: &mut dyn FnMut(usize, &[f32]) -> Outcome<()>,
) -> Outcome<()> {
    let hidden = model.hidden(ids, &model.plan(Documents::of_lengths([ids.len()]))); // [N, d]
    let positions: Vec<u32> = (0..ids.len() as u32 - 1).collect();
    for some in positions.chunks(ROWS) {
        let rows = model.last_norm(ops::rows(hidden.clone(), &some.into())); // [M, d]
        let logits = model.to_logits(rows).into_data();
        let logits = logits.try_to_vec::<f32>().doing(|| "reading logits".into())?;
        let vocabulary = logits.len() / some.len();
        for (&at, logits) in some.iter().zip(logits.chunks_exact(vocabulary)) {
            heard(at as usize, logits)?;
        }
    }
    Ok(())
}
