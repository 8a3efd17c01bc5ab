//! Attention on the CPU: causal over packed documents, forward and backward, and
//! of one new token over a cache.
//!
//! A document and a head are a task of their own. Its keys and values are laid
//! out in panels of sixteen columns, so that four queries at a time meet them in
//! registers. Nothing holds the scores of more than a block of queries. Every
//! sum runs over its tokens or columns in their order: the bits depend neither
//! on the threads nor on the other documents. Tensors and tapes are `fused`'s.

use super::simd::{axpy, dot, dots, exp_minus, softmax, vectorized};
use super::{Documents, Heads, Slots};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

/// Columns of a panel: two registers of AVX2.
const WIDE: usize = 16;

/// Queries, or keys, that meet a panel together.
const TALL: usize = 4;

/// Queries whose probabilities the backward pass holds at a time.
const QUERIES: usize = 32;

type Panel = [f32; WIDE];

/// Some tokens of one head: rows of `dim` numbers inside wider ones.
#[derive(Clone, Copy)]
struct Head<'a> {
    values: &'a [f32],
    heads: usize,
    head: usize,
    dim: usize,
    /// The document's first token.
    start: usize,
}

impl<'a> Head<'a> {
    #[inline(always)]
    fn row(&self, token: usize) -> &'a [f32] {
        row(self.values, self.start + token, self.heads, self.head, self.dim)
    }

    /// Panels of columns, each with all `n` tokens: panel `p` is `[p * n..][..n]`.
    #[inline(always)]
    fn by_columns(&self, n: usize) -> Vec<Panel> {
        let mut panels = vec![[0.0; WIDE]; self.dim.div_ceil(WIDE) * n];
        for token in 0..n {
            for (p, part) in self.row(token).chunks(WIDE).enumerate() {
                panels[p * n + token][..part.len()].copy_from_slice(part);
            }
        }
        panels
    }

    /// Panels of tokens, each with all columns: panel `p` is `[p * dim..][..dim]`.
    #[inline(always)]
    fn by_tokens(&self, n: usize) -> Vec<Panel> {
        let mut panels = vec![[0.0; WIDE]; n.div_ceil(WIDE) * self.dim];
        for token in 0..n {
            let panel = &mut panels[token / WIDE * self.dim..][..self.dim];
            for (panel, &x) in panel.iter_mut().zip(self.row(token)) {
                panel[token % WIDE] = x;
            }
        }
        panels
    }
}

/// Products of rows with a panel: `sum over k of rows[m][k] * panel[k]`.
#[inline(always)]
fn tile<const M: usize>(rows: [&[f32]; M], panel: &[Panel]) -> [Panel; M] {
    let n = panel.len();
    let mut sums = [[0.0; WIDE]; M];
    // Written out, so that the sums stay in registers.
    if M == TALL {
        let (a, b, c, d) = (&rows[0][..n], &rows[1][..n], &rows[2][..n], &rows[3][..n]);
        let (mut p, mut q, mut r, mut s) = ([0.0; WIDE], [0.0; WIDE], [0.0; WIDE], [0.0; WIDE]);
        for (k, x) in panel.iter().enumerate() {
            for lane in 0..WIDE {
                p[lane] = a[k].mul_add(x[lane], p[lane]);
            }
            for lane in 0..WIDE {
                q[lane] = b[k].mul_add(x[lane], q[lane]);
            }
            for lane in 0..WIDE {
                r[lane] = c[k].mul_add(x[lane], r[lane]);
            }
            for lane in 0..WIDE {
                s[lane] = d[k].mul_add(x[lane], s[lane]);
            }
        }
        (sums[0], sums[1], sums[2], sums[3]) = (p, q, r, s);
        return sums;
    }
    for (m, row) in rows.iter().enumerate() {
        let row = &row[..n];
        let mut sum = [0.0; WIDE];
        for (k, x) in panel.iter().enumerate() {
            for lane in 0..WIDE {
                sum[lane] = row[k].mul_add(x[lane], sum[lane]);
            }
        }
        sums[m] = sum;
    }
    sums
}

/// [`tile`] with columns `first..` of rows `width` wide in place of rows.
#[inline(always)]
fn turned_tile<const M: usize>(
    rows: &[f32],
    width: usize,
    first: usize,
    panel: &[Panel],
) -> [Panel; M] {
    let mut sums = [[0.0; WIDE]; M];
    if M == TALL {
        let (mut p, mut q, mut r, mut s) = ([0.0; WIDE], [0.0; WIDE], [0.0; WIDE], [0.0; WIDE]);
        for (row, x) in rows.chunks_exact(width).zip(panel) {
            let a = &row[first..first + TALL];
            for lane in 0..WIDE {
                p[lane] = a[0].mul_add(x[lane], p[lane]);
            }
            for lane in 0..WIDE {
                q[lane] = a[1].mul_add(x[lane], q[lane]);
            }
            for lane in 0..WIDE {
                r[lane] = a[2].mul_add(x[lane], r[lane]);
            }
            for lane in 0..WIDE {
                s[lane] = a[3].mul_add(x[lane], s[lane]);
            }
        }
        (sums[0], sums[1], sums[2], sums[3]) = (p, q, r, s);
        return sums;
    }
    for (m, to) in sums.iter_mut().enumerate() {
        let mut sum = [0.0; WIDE];
        for (row, x) in rows.chunks_exact(width).zip(panel) {
            let a = row[first + m];
            for lane in 0..WIDE {
                sum[lane] = a.mul_add(x[lane], sum[lane]);
            }
        }
        *to = sum;
    }
    sums
}

/// A scratch of rows of the same width.
struct Scratch {
    values: Vec<f32>,
    width: usize,
}

impl Scratch {
    fn new(rows: usize, width: usize) -> Scratch {
        Scratch { values: vec![0.0; rows * width], width }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..(row + 1) * self.width]
    }

    #[inline(always)]
    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.width..(row + 1) * self.width]
    }
}

/// One document of one key and value head, with the query heads it serves.
struct Task {
    start: usize,
    end: usize,
    kv_head: usize,
}

fn tasks(documents: &Documents, heads: Heads) -> Vec<Task> {
    let of = |(start, end)| (0..heads.kv).map(move |kv_head| Task { start, end, kv_head });
    documents.ranges().flat_map(of).collect()
}

impl Task {
    fn of<'a>(&self, values: &'a [f32], heads: usize, head: usize, dim: usize) -> Head<'a> {
        Head { values, heads, head, dim, start: self.start }
    }

    /// The query heads it serves.
    fn group(&self, heads: Heads) -> std::ops::Range<usize> {
        let size = heads.query / heads.kv;
        self.kv_head * size..(self.kv_head + 1) * size
    }

    fn tokens(&self) -> usize {
        self.end - self.start
    }
}

/// Causal attention within each document of a packed row of tokens.
///
/// # Shapes
/// q, o `[N, H * D]`; k, v `[N, Hkv * D]`; lse `[H, N]` log-sum-exp of the scores
pub(super) fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    heads: Heads,
    documents: &Documents,
    o: &mut [f32],
    lse: &mut [f32],
) {
    let Heads { query, kv, dim } = heads;
    let n = q.len() / (query * dim);
    let tasks = tasks(documents, heads);
    let done: Vec<(Vec<f32>, Vec<f32>)> = tasks
        .par_iter()
        .map(|task| {
            let (k, v) = (task.of(k, kv, task.kv_head, dim), task.of(v, kv, task.kv_head, dim));
            let q = task.group(heads).map(|head| task.of(q, query, head, dim)).collect::<Vec<_>>();
            vectorized(
                #[inline(always)]
                || forward(&q, k, v, task.tokens()),
            )
        })
        .collect();
    for (task, (rows, sums)) in tasks.iter().zip(done) {
        let of_head = task.tokens() * dim;
        let sums = sums.chunks_exact(task.tokens().max(1));
        for ((head, rows), sums) in
            task.group(heads).zip(rows.chunks_exact(of_head.max(1))).zip(sums)
        {
            scatter(rows, o, task.start, query, head, dim);
            lse[head * n + task.start..head * n + task.end].copy_from_slice(sums);
        }
    }
}

/// Outputs `[heads, n, D]` and log-sum-exps `[heads, n]` of one task.
#[inline(always)]
fn forward(q: &[Head<'_>], k: Head<'_>, v: Head<'_>, n: usize) -> (Vec<f32>, Vec<f32>) {
    let dim = k.dim;
    let (keys, values) = (k.by_tokens(n), v.by_columns(n));
    let mut scores = Scratch::new(TALL, n.next_multiple_of(WIDE));
    let (mut o, mut lse) = (vec![0.0; q.len() * n * dim], vec![0.0; q.len() * n]);
    let outputs = o.chunks_exact_mut((n * dim).max(1)).zip(lse.chunks_exact_mut(n.max(1)));
    for (q, (o, lse)) in q.iter().zip(outputs) {
        let fours = n / TALL * TALL;
        for i in (0..fours).step_by(TALL) {
            some_queries::<TALL>(*q, i, &keys, &values, n, &mut scores, o, lse);
        }
        for i in fours..n {
            some_queries::<1>(*q, i, &keys, &values, n, &mut scores, o, lse);
        }
    }
    (o, lse)
}

/// The outputs of queries `first..first + M` of one head.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the inside of a loop, by its number of queries")]
fn some_queries<const M: usize>(
    q: Head<'_>,
    first: usize,
    keys: &[Panel],
    values: &[Panel],
    n: usize,
    scores: &mut Scratch,
    o: &mut [f32],
    lse: &mut [f32],
) {
    let (dim, seen) = (q.dim, first + M);
    write_scores::<M>(q, first, keys, seen, 0, scores);
    let scale = 1.0 / (dim as f32).sqrt();
    for m in 0..M {
        let (visible, hidden) = scores.row_mut(m)[..seen].split_at_mut(first + m + 1);
        for score in visible.iter_mut() {
            *score *= scale;
        }
        lse[first + m] = softmax(visible);
        hidden.fill(0.0);
    }
    let rows: [&[f32]; M] = std::array::from_fn(|m| scores.row(m));
    for p in 0..dim.div_ceil(WIDE) {
        let sums = tile(rows, &values[p * n..p * n + seen]);
        for (m, sum) in sums.iter().enumerate() {
            let to = &mut o[(first + m) * dim..(first + m + 1) * dim];
            let to = &mut to[p * WIDE..((p + 1) * WIDE).min(dim)];
            to.copy_from_slice(&sum[..to.len()]);
        }
    }
}

/// Products of the rows of queries `first..first + M` with the first `seen`
/// tokens' panels, rounded up, to the rows of the scratch from `at` on.
#[inline(always)]
fn write_scores<const M: usize>(
    rows: Head<'_>,
    first: usize,
    tokens: &[Panel],
    seen: usize,
    at: usize,
    scores: &mut Scratch,
) {
    let dim = rows.dim;
    let rows: [&[f32]; M] = std::array::from_fn(|m| rows.row(first + m));
    for p in 0..seen.div_ceil(WIDE) {
        let sums = tile(rows, &tokens[p * dim..(p + 1) * dim]);
        for (m, sum) in sums.iter().enumerate() {
            scores.row_mut(at + m)[p * WIDE..(p + 1) * WIDE].copy_from_slice(sum);
        }
    }
}

/// What [`attention_backward`] needs of the forward pass.
pub(super) struct AttentionSaved<'a> {
    /// Rotated queries `[N, H * D]`.
    pub(super) q: &'a [f32],
    /// Rotated keys `[N, Hkv * D]`.
    pub(super) k: &'a [f32],
    /// Values `[N, Hkv * D]`.
    pub(super) v: &'a [f32],
    /// Output `[N, H * D]`.
    pub(super) o: &'a [f32],
    /// Log-sum-exp of the scores `[H, N]`.
    pub(super) lse: &'a [f32],
}

/// Gradients of [`attention`], written to `dq`, `dk`, `dv`.
///
/// Probabilities are computed again from `lse`, so memory stays linear in the
/// length (Dao et al., FlashAttention, 2022, appendix B.2).
pub(super) fn attention_backward(
    saved: &AttentionSaved<'_>,
    d_o: &[f32],
    heads: Heads,
    documents: &Documents,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let Heads { query, kv, dim } = heads;
    let n = saved.q.len() / (query * dim);
    let tasks = tasks(documents, heads);
    let done: Vec<OfTask> = tasks
        .par_iter()
        .map(|task| {
            let key = |x| task.of(x, kv, task.kv_head, dim);
            let of_head = |head| OfQueries {
                q: task.of(saved.q, query, head, dim),
                o: task.of(saved.o, query, head, dim),
                d_o: task.of(d_o, query, head, dim),
                lse: &saved.lse[head * n + task.start..head * n + task.end],
            };
            let queries: Vec<OfQueries<'_>> = task.group(heads).map(of_head).collect();
            vectorized(
                #[inline(always)]
                || backward(&queries, key(saved.k), key(saved.v), task.tokens()),
            )
        })
        .collect();
    for (task, done) in tasks.iter().zip(done) {
        let of_head = (task.tokens() * dim).max(1);
        for (head, rows) in task.group(heads).zip(done.dq.chunks_exact(of_head)) {
            scatter(rows, dq, task.start, query, head, dim);
        }
        scatter(&done.dk, dk, task.start, kv, task.kv_head, dim);
        scatter(&done.dv, dv, task.start, kv, task.kv_head, dim);
    }
}

/// One query head of a task.
struct OfQueries<'a> {
    q: Head<'a>,
    o: Head<'a>,
    d_o: Head<'a>,
    lse: &'a [f32],
}

/// Gradients of one task: dq `[heads, n, D]`; dk, dv `[n, D]`.
struct OfTask {
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

#[inline(always)]
fn backward(queries: &[OfQueries<'_>], k: Head<'_>, v: Head<'_>, n: usize) -> OfTask {
    let dim = k.dim;
    let mut done = OfTask {
        dq: vec![0.0; queries.len() * n * dim],
        dk: vec![0.0; n * dim],
        dv: vec![0.0; n * dim],
    };
    let (k_tokens, v_tokens, k_columns) = (k.by_tokens(n), v.by_tokens(n), k.by_columns(n));
    let width = n.next_multiple_of(WIDE);
    let (mut p, mut ds) = (Scratch::new(QUERIES, width), Scratch::new(QUERIES, width));
    for (of, dq) in queries.iter().zip(done.dq.chunks_exact_mut((n * dim).max(1))) {
        let (q_columns, d_o_columns) = (of.q.by_columns(n), of.d_o.by_columns(n));
        for first in (0..n).step_by(QUERIES) {
            let m = QUERIES.min(n - first);
            let fours = m / TALL * TALL;
            for at in (0..fours).step_by(TALL) {
                some_gradients::<TALL>(of, first, at, m, &k_tokens, &v_tokens, &mut p, &mut ds);
            }
            for at in fours..m {
                some_gradients::<1>(of, first, at, m, &k_tokens, &v_tokens, &mut p, &mut ds);
            }
            let seen = first + m;
            let to = &mut dq[first * dim..seen * dim];
            add_products(&ds, m, &k_columns, n, 0..seen, dim, to);
            add_turned(&p, &d_o_columns, n, first..seen, dim, &mut done.dv);
            add_turned(&ds, &q_columns, n, first..seen, dim, &mut done.dk);
        }
    }
    done
}

/// Probabilities and the gradients of scores of queries `first + at..` (M of
/// them) of a block of `m`, to the rows from `at` on.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the inside of a loop, by its number of queries")]
fn some_gradients<const M: usize>(
    of: &OfQueries<'_>,
    first: usize,
    at: usize,
    m: usize,
    k_tokens: &[Panel],
    v_tokens: &[Panel],
    p: &mut Scratch,
    ds: &mut Scratch,
) {
    let (i, seen) = (first + at, first + at + M);
    write_scores::<M>(of.q, i, k_tokens, seen, at, p);
    write_scores::<M>(of.d_o, i, v_tokens, seen, at, ds);
    let scale = 1.0 / (of.q.dim as f32).sqrt();
    for row in 0..M {
        let i = i + row;
        let inner = dot(of.d_o.row(i), of.o.row(i));
        let (p, hidden) = p.row_mut(at + row)[..first + m].split_at_mut(i + 1);
        let (ds, hidden_ds) = ds.row_mut(at + row)[..first + m].split_at_mut(i + 1);
        hidden.fill(0.0);
        hidden_ds.fill(0.0);
        for p in p.iter_mut() {
            *p *= scale;
        }
        exp_minus(p, of.lse[i]);
        for (ds, &p) in ds.iter_mut().zip(p.iter()) {
            *ds = p * (*ds - inner) * scale;
        }
    }
}

/// Adds the products of the first `m` rows of `a` with the rows `range` of the
/// panels, `n` rows each, to `to` `[m, dim]`.
#[inline(always)]
fn add_products(
    a: &Scratch,
    m: usize,
    panels: &[Panel],
    n: usize,
    range: std::ops::Range<usize>,
    dim: usize,
    to: &mut [f32],
) {
    let fours = m / TALL * TALL;
    for p in 0..dim.div_ceil(WIDE) {
        let panel = &panels[p * n + range.start..p * n + range.end];
        for i in (0..fours).step_by(TALL) {
            let sums = tile([a.row(i), a.row(i + 1), a.row(i + 2), a.row(i + 3)], panel);
            add(&sums, i, p, dim, to);
        }
        for i in fours..m {
            add(&tile([a.row(i)], panel), i, p, dim, to);
        }
    }
}

/// Adds the products of the columns of `a`, whose rows are queries `range`, with
/// these rows of the panels to the tokens that these queries see.
#[inline(always)]
fn add_turned(
    a: &Scratch,
    panels: &[Panel],
    n: usize,
    range: std::ops::Range<usize>,
    dim: usize,
    to: &mut [f32],
) {
    let fours = range.end / TALL * TALL;
    for p in 0..dim.div_ceil(WIDE) {
        let panel = &panels[p * n + range.start..p * n + range.end];
        for j in (0..fours).step_by(TALL) {
            add(&turned_tile::<TALL>(&a.values, a.width, j, panel), j, p, dim, to);
        }
        for j in fours..range.end {
            add(&turned_tile::<1>(&a.values, a.width, j, panel), j, p, dim, to);
        }
    }
}

/// Adds sums to columns of panel `p` of the rows from `first` on.
#[inline(always)]
fn add(sums: &[Panel], first: usize, p: usize, dim: usize, to: &mut [f32]) {
    for (row, sum) in sums.iter().enumerate() {
        let to = &mut to[(first + row) * dim..(first + row + 1) * dim];
        for (to, &x) in to[p * WIDE..((p + 1) * WIDE).min(dim)].iter_mut().zip(sum) {
            *to += x;
        }
    }
}

/// Attention of one new token per sequence over its cached keys and values.
///
/// # Shapes
/// q, o `[B, H * D]`; keys, values `[slots, capacity, Hkv * D]`
pub(super) fn attention_cached(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    heads: Heads,
    slots: &Slots,
    o: &mut [f32],
) {
    let Heads { query, kv, dim } = heads;
    let of_row = slots.of_row.par_iter().zip(slots.lengths.par_iter());
    let rows = o.par_chunks_mut(query * dim).zip(of_row).enumerate();
    rows.for_each(|(b, (o, (&slot, &length)))| {
        let first = slot as usize * slots.capacity;
        let mut scores = vec![0.0; length as usize];
        vectorized(
            #[inline(always)]
            || {
                for head in 0..query {
                    let kv_head = head * kv / query;
                    let q = row(q, b, query, head, dim);
                    let o = row_mut(o, 0, query, head, dim);
                    let of = |x, head| Head { values: x, heads: kv, head, dim, start: first };
                    one_query(q, of(keys, kv_head), of(values, kv_head), &mut scores, o);
                }
            },
        );
    });
}

/// The output of one query over all tokens that there are scores for.
#[inline(always)]
fn one_query(q: &[f32], k: Head<'_>, v: Head<'_>, scores: &mut [f32], o: &mut [f32]) {
    let scale = 1.0 / (q.len() as f32).sqrt();
    let (fours, rest) = scores.as_chunks_mut::<TALL>();
    for (four, scores) in fours.iter_mut().enumerate() {
        let j = four * TALL;
        *scores = dots([k.row(j), k.row(j + 1), k.row(j + 2), k.row(j + 3)], q).map(|s| s * scale);
    }
    for (score, j) in rest.iter_mut().zip(fours.len() * TALL..) {
        *score = dot(q, k.row(j)) * scale;
    }
    softmax(scores);
    let (whole, rest) = o.as_chunks_mut::<WIDE>();
    for (at, o) in whole.iter_mut().enumerate() {
        let mut sums = [0.0; WIDE];
        for (j, &p) in scores.iter().enumerate() {
            let x = &v.row(j)[at * WIDE..(at + 1) * WIDE];
            for lane in 0..WIDE {
                sums[lane] = p.mul_add(x[lane], sums[lane]);
            }
        }
        *o = sums;
    }
    rest.fill(0.0);
    for (j, &p) in scores.iter().enumerate() {
        axpy(p, &v.row(j)[whole.len() * WIDE..], rest);
    }
}

#[inline(always)]
fn row(x: &[f32], token: usize, heads: usize, head: usize, dim: usize) -> &[f32] {
    let start = (token * heads + head) * dim;
    &x[start..start + dim]
}

#[inline(always)]
fn row_mut(x: &mut [f32], token: usize, heads: usize, head: usize, dim: usize) -> &mut [f32] {
    let start = (token * heads + head) * dim;
    &mut x[start..start + dim]
}

/// Puts the rows of one head of a document where they belong.
fn scatter(rows: &[f32], to: &mut [f32], start: usize, heads: usize, head: usize, dim: usize) {
    for (i, from) in rows.chunks_exact(dim).enumerate() {
        row_mut(to, start + i, heads, head, dim).copy_from_slice(from);
    }
}
