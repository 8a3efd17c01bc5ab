//! The fused CPU operations as a backend extension of burn: which tensors go
//! in, which come out, and how gradients flow.
//!
//! Implemented for burn's CPU backend (`Flex`) and for autodiff on top of it.
//! The arithmetic is in `cpu`; other devices never come here.

use super::{AdamStep, AttentionPlan, Heads, RopeTable, Slots, attention, cpu};
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};
use burn::tensor::{DType, Shape};
use burn_flex::FlexTensor;
use std::sync::Arc;

/// Rows of logits in one chunk of the cross entropy; bounds its memory.
const CHUNK: usize = 512;

/// Fewer rows than this may take another path through the matrix product, with
/// sums in another order. They are padded, so that a row's result never depends
/// on how many rows stand beside it.
const SAME_KERNEL: usize = 16;

/// A product of no more numbers than this takes such a path too.
const SAME_KERNEL_CELLS: usize = 256;

/// The extension. Functions are documented where the model calls them (`ops`).
#[allow(missing_docs, reason = "each is the twin of a documented function of `ops`")]
#[backend_extension(Flex, Autodiff)]
pub(super) trait FusedOps: Backend {
    fn rows(table: FloatTensor<Self>, ids: Arc<[u32]>) -> FloatTensor<Self>;
    fn linear(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self>;
    fn linear_step(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self>;
    fn rms_norm(x: FloatTensor<Self>, w: FloatTensor<Self>, eps: f32) -> FloatTensor<Self>;
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: AttentionPlan,
    ) -> FloatTensor<Self>;
    fn linear_cross_entropy(
        h: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: Arc<[u32]>,
        weights: Arc<[f32]>,
    ) -> FloatTensor<Self>;
    fn rope(
        x: FloatTensor<Self>,
        heads: usize,
        table: RopeTable,
        positions: Arc<[u32]>,
    ) -> FloatTensor<Self>;
    fn cache_write(
        cache: FloatTensor<Self>,
        x: FloatTensor<Self>,
        at: Arc<[u32]>,
    ) -> FloatTensor<Self>;
    fn attention_cached(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        heads: Heads,
        slots: Slots,
    ) -> FloatTensor<Self>;
    fn adamw(
        w: FloatTensor<Self>,
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The values of a contiguous f32 tensor.
fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice::<f32>().expect("BUG: fused operation on a strided or non-f32 tensor")
}

/// A contiguous version of a tensor; free for almost all we meet.
fn packed(x: FlexTensor) -> FlexTensor {
    if x.as_slice::<f32>().is_some() { x } else { x.to_contiguous() }
}

/// The numbers of a packed tensor, to be changed in place; it gets a storage of
/// its own where it is a part of a larger one's, which would be changed instead.
fn values_mut(x: &mut FlexTensor) -> &mut [f32] {
    if x.storage::<f32>().len() != values(x).len() {
        *x = tensor(values(x).to_vec(), x.layout().shape().clone());
    }
    x.storage_mut()
}

/// A tensor of these values.
fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(burn::tensor::TensorData::new(values, shape))
}

/// `[rows, columns]` of a matrix.
fn dims(x: &FlexTensor) -> [usize; 2] {
    x.layout().shape().dims()
}

fn matmul_nt(x: &FlexTensor, w: &FlexTensor) -> FlexTensor {
    Flex::float_matmul(x.clone(), Flex::float_transpose(w.clone()))
}

fn matmul_tn(x: &FlexTensor, y: &FlexTensor) -> FlexTensor {
    Flex::float_matmul(Flex::float_transpose(x.clone()), y.clone())
}

/// Rotated copies of q and k, the output and its log-sum-exp.
fn attend(
    q: FlexTensor,
    k: FlexTensor,
    v: &FlexTensor,
    plan: &AttentionPlan,
) -> (FlexTensor, FlexTensor, FlexTensor, Arc<[f32]>) {
    let Heads { query, kv, .. } = plan.heads;
    let (mut q, mut k) = (packed(q), packed(k));
    cpu::rope(values_mut(&mut q), query, &plan.rope, &plan.positions, 1.0);
    cpu::rope(values_mut(&mut k), kv, &plan.rope, &plan.positions, 1.0);
    let [n, width] = dims(&q);
    let (mut o, mut lse) = (vec![0.0; n * width], vec![0.0; n * query]);
    attention::attention(
        values(&q),
        values(&k),
        values(v),
        plan.heads,
        &plan.documents,
        &mut o,
        &mut lse,
    );
    (q, k, tensor(o, Shape::new([n, width])), lse.into())
}

/// The loss and the gradients of the wanted ones of both operands (`h`, `w`)
/// for a loss weight of 1, `chunk` rows at a time.
pub(super) fn cross_entropy(
    h: &FlexTensor,
    w: &FlexTensor,
    targets: &[u32],
    weights: &[f32],
    chunk: usize,
    wanted: [bool; 2],
) -> (f32, [Option<FlexTensor>; 2]) {
    let ([m, d], [vocabulary, _]) = (dims(h), dims(w));
    let mut loss = 0.0;
    let mut dh = Vec::with_capacity(if wanted[0] { m * d } else { 0 });
    let mut dw = wanted[1].then(|| FlexTensor::zeros(Shape::new([vocabulary, d]), DType::F32));
    let rows = values(h);
    for start in (0..m).step_by(chunk) {
        let end = (start + chunk).min(m);
        let hc = tensor(rows[start * d..end * d].to_vec(), Shape::new([end - start, d]));
        let mut z = packed(matmul_nt(&hc, w));
        loss += cpu::cross_entropy(values_mut(&mut z), &targets[start..end], &weights[start..end]);
        if wanted[0] {
            dh.extend_from_slice(values(&packed(Flex::float_matmul(z.clone(), w.clone()))));
        }
        dw = dw.map(|dw| Flex::float_add(dw, matmul_tn(&z, &hc)));
    }
    (loss, [wanted[0].then(|| tensor(dh, Shape::new([m, d]))), dw])
}

impl FusedOps for Flex {
    fn rows(table: FlexTensor, ids: Arc<[u32]>) -> FlexTensor {
        let table = packed(table);
        let [_, d] = dims(&table);
        let from = values(&table);
        let mut out = Vec::with_capacity(ids.len() * d);
        for &id in ids.iter() {
            out.extend_from_slice(&from[id as usize * d..(id as usize + 1) * d]);
        }
        tensor(out, Shape::new([ids.len(), d]))
    }

    fn linear(x: FlexTensor, w: FlexTensor) -> FlexTensor {
        let ([n, d], [out, _]) = (dims(&x), dims(&w));
        let least = SAME_KERNEL.max(SAME_KERNEL_CELLS / out + 1);
        if n >= least {
            return matmul_nt(&x, &w);
        }
        let mut rows = values(&packed(x)).to_vec();
        rows.resize(least * d, 0.0);
        let y = packed(matmul_nt(&tensor(rows, Shape::new([least, d])), &w));
        tensor(values(&y)[..n * out].to_vec(), Shape::new([n, out]))
    }

    fn linear_step(x: FlexTensor, w: FlexTensor) -> FlexTensor {
        let ([n, d], [out, _]) = (dims(&x), dims(&w));
        let (x, w) = (packed(x), packed(w));
        tensor(cpu::product_by_rows(values(&x), values(&w), d), Shape::new([n, out]))
    }

    fn rms_norm(x: FlexTensor, w: FlexTensor, eps: f32) -> FlexTensor {
        let (x, w) = (packed(x), packed(w));
        let mut y = vec![0.0; values(&x).len()];
        cpu::rms_norm(values(&x), values(&w), eps, &mut y);
        tensor(y, x.layout().shape().clone())
    }

    fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let (gate, up) = (packed(gate), packed(up));
        let mut y = vec![0.0; values(&gate).len()];
        cpu::swiglu(values(&gate), values(&up), &mut y);
        tensor(y, gate.layout().shape().clone())
    }

    fn attention(q: FlexTensor, k: FlexTensor, v: FlexTensor, plan: AttentionPlan) -> FlexTensor {
        attend(q, k, &packed(v), &plan).2
    }

    fn linear_cross_entropy(
        h: FlexTensor,
        w: FlexTensor,
        targets: Arc<[u32]>,
        weights: Arc<[f32]>,
    ) -> FlexTensor {
        let (h, w) = (packed(h), packed(w));
        let (loss, _) = cross_entropy(&h, &w, &targets, &weights, CHUNK, [false; 2]);
        tensor(vec![loss], Shape::new([1]))
    }

    fn rope(x: FlexTensor, heads: usize, table: RopeTable, positions: Arc<[u32]>) -> FlexTensor {
        let mut x = packed(x);
        cpu::rope(values_mut(&mut x), heads, &table, &positions, 1.0);
        x
    }

    fn cache_write(cache: FlexTensor, x: FlexTensor, at: Arc<[u32]>) -> FlexTensor {
        let (mut cache, x) = (packed(cache), packed(x));
        let [_, d] = dims(&x);
        let to = values_mut(&mut cache);
        for (row, &at) in values(&x).chunks_exact(d).zip(at.iter()) {
            to[at as usize * d..(at as usize + 1) * d].copy_from_slice(row);
        }
        cache
    }

    fn attention_cached(
        q: FlexTensor,
        keys: FlexTensor,
        cached: FlexTensor,
        heads: Heads,
        slots: Slots,
    ) -> FlexTensor {
        let q = packed(q);
        let mut o = vec![0.0; values(&q).len()];
        attention::attention_cached(
            values(&q),
            values(&keys),
            values(&cached),
            heads,
            &slots,
            &mut o,
        );
        tensor(o, q.layout().shape().clone())
    }

    fn adamw(
        w: FlexTensor,
        m: FlexTensor,
        v: FlexTensor,
        gradient: FlexTensor,
        step: AdamStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (mut w, mut m, mut v) = (packed(w), packed(m), packed(v));
        let gradient = packed(gradient);
        let learnt = [&mut w, &mut m, &mut v].map(values_mut);
        cpu::adamw(learnt, values(&gradient), &step);
        (w, m, v)
    }

    fn sum_of_squares(x: FlexTensor) -> FlexTensor {
        let sum = cpu::sum_of_squares(values(&packed(x)));
        tensor(vec![sum as f32], Shape::new([1]))
    }
}

/// The tensor inside an autodiff tensor is needed for its gradient.
type Tracked = FloatTensor<Flex>;

impl<C: CheckpointStrategy> FusedOps for Autodiff<Flex, C> {
    fn rows(table: FloatTensor<Self>, ids: Arc<[u32]>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Rows;
        impl Backward<Flex, 1> for Rows {
            type State = (Arc<[u32]>, Shape);
            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let dy = packed(grads.consume::<Flex>(&ops.node));
                let ([parent], (ids, shape)) = (ops.parents, ops.state);
                if let Some(node) = parent {
                    let [_, d] = shape.dims();
                    let mut dx = vec![0.0f32; shape.num_elements()];
                    for (row, &id) in values(&dy).chunks_exact(d).zip(ids.iter()) {
                        let to = &mut dx[id as usize * d..(id as usize + 1) * d];
                        to.iter_mut().zip(row).for_each(|(to, &from)| *to += from);
                    }
                    grads.register::<Flex>(node.id, tensor(dx, shape));
                }
            }
        }
        let guard = table.node();
        let table = table.into_primitive();
        let shape = table.layout().shape().clone();
        match Rows.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((ids.clone(), shape), Flex::rows(table, ids)),
            OpsKind::UnTracked(prep) => prep.finish(Flex::rows(table, ids)),
        }
    }

    fn linear(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Linear;
        impl Backward<Flex, 2> for Linear {
            /// `x` where `w` learns, and `w` where `x` does: a frozen weight
            /// holds no activations.
            type State = (Option<Tracked>, Option<Tracked>);
            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let dy = packed(grads.consume::<Flex>(&ops.node));
                let ([to_x, to_w], (x, w)) = (ops.parents, ops.state);
                if let (Some(node), Some(w)) = (to_x, w) {
                    grads.register::<Flex>(node.id, Flex::float_matmul(dy.clone(), w));
                }
                if let (Some(node), Some(x)) = (to_w, x) {
                    grads.register::<Flex>(node.id, matmul_tn(&dy, &x));
                }
            }
        }
        let (guards, learns) = ([x.node(), w.node()], [x.is_tracked(), w.is_tracked()]);
        let (x, w) = (x.into_primitive(), w.into_primitive());
        let y = Flex::linear(x.clone(), w.clone());
        let saved = (learns[1].then_some(x), learns[0].then_some(w));
        match Linear.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn rms_norm(x: FloatTensor<Self>, w: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct RmsNorm;
        impl Backward<Flex, 2> for RmsNorm {
            type State = (Tracked, Tracked, f32);
            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let dy = packed(grads.consume::<Flex>(&ops.node));
                let ([to_x, to_w], (x, w, eps)) = (ops.parents, ops.state);
                let (mut dx, mut dw) = (vec![0.0; values(&x).len()], vec![0.0; values(&w).len()]);
                cpu::rms_norm_backward(values(&x), values(&w), eps, values(&dy), &mut dx, &mut dw);
                if let Some(node) = to_x {
                    grads.register::<Flex>(node.id, tensor(dx, x.layout().shape().clone()));
                }
                if let Some(node) = to_w {
                    grads.register::<Flex>(node.id, tensor(dw, w.layout().shape().clone()));
                }
            }
        }
        let guards = [x.node(), w.node()];
        let (x, w) = (packed(x.into_primitive()), packed(w.into_primitive()));
        let y = Flex::rms_norm(x.clone(), w.clone(), eps);
        match RmsNorm.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, w, eps), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Swiglu;
        impl Backward<Flex, 2> for Swiglu {
            type State = (Tracked, Tracked);
            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let dy = packed(grads.consume::<Flex>(&ops.node));
                let ([to_gate, to_up], (gate, up)) = (ops.parents, ops.state);
                let shape = gate.layout().shape().clone();
                let (mut dg, mut du) = (vec![0.0; values(&dy).len()], vec![0.0; values(&dy).len()]);
                cpu::swiglu_backward(values(&gate), values(&up), values(&dy), &mut dg, &mut du);
                if let Some(node) = to_gate {
                    grads.register::<Flex>(node.id, tensor(dg, shape.clone()));
                }
                if let Some(node) = to_up {
                    grads.register::<Flex>(node.id, tensor(du, shape));
                }
            }
        }
        let guards = [gate.node(), up.node()];
        let (gate, up) = (packed(gate.into_primitive()), packed(up.into_primitive()));
        let y = Flex::swiglu(gate.clone(), up.clone());
        match Swiglu.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((gate, up), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: AttentionPlan,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Attention;
        impl Backward<Flex, 3> for Attention {
            /// Rotated q and k, v, the output, its log-sum-exp, the plan.
            type State = ([Tracked; 4], Arc<[f32]>, AttentionPlan);
            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_o = packed(grads.consume::<Flex>(&ops.node));
                let (parents, ([q, k, v, o], lse, plan)) = (ops.parents, ops.state);
                let zeros = |x: &FlexTensor| vec![0.0; values(x).len()];
                let mut d = [zeros(&q), zeros(&k), zeros(&v)];
                let [dq, dk, dv] = &mut d;
                let saved = attention::AttentionSaved {
                    q: values(&q),
                    k: values(&k),
                    v: values(&v),
                    o: values(&o),
                    lse: &lse,
                };
                attention::attention_backward(
                    &saved,
                    values(&d_o),
                    plan.heads,
                    &plan.documents,
                    dq,
                    dk,
                    dv,
                );
                cpu::rope(dq, plan.heads.query, &plan.rope, &plan.positions, -1.0);
                cpu::rope(dk, plan.heads.kv, &plan.rope, &plan.positions, -1.0);
                let shapes = [&q, &k, &v].map(|x| x.layout().shape().clone());
                for ((node, gradient), shape) in parents.into_iter().zip(d).zip(shapes) {
                    if let Some(node) = node {
                        grads.register::<Flex>(node.id, tensor(gradient, shape));
                    }
                }
            }
        }
        let guards = [q.node(), k.node(), v.node()];
        let v = packed(v.into_primitive());
        let (q, k, o, lse) = attend(q.into_primitive(), k.into_primitive(), &v, &plan);
        match Attention.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(([q, k, v, o.clone()], lse, plan), o),
            OpsKind::UnTracked(prep) => prep.finish(o),
        }
    }

    fn linear_cross_entropy(
        h: FloatTensor<Self>,
        w: FloatTensor<Self>,
        targets: Arc<[u32]>,
        weights: Arc<[f32]>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct CrossEntropy;
        impl Backward<Flex, 2> for CrossEntropy {
            /// The gradients for a loss weight of 1: they come with the forward pass.
            type State = [Option<Tracked>; 2];
            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let dy = packed(grads.consume::<Flex>(&ops.node));
                let factor = values(&dy)[0];
                for (node, gradient) in ops.parents.into_iter().zip(ops.state) {
                    if let (Some(node), Some(gradient)) = (node, gradient) {
                        let mut gradient = packed(gradient);
                        if factor != 1.0 {
                            values_mut(&mut gradient).iter_mut().for_each(|g| *g *= factor);
                        }
                        grads.register::<Flex>(node.id, gradient);
                    }
                }
            }
        }
        let (guards, wanted) = ([h.node(), w.node()], [h.is_tracked(), w.is_tracked()]);
        let (h, w) = (packed(h.into_primitive()), packed(w.into_primitive()));
        let (loss, gradients) = cross_entropy(&h, &w, &targets, &weights, CHUNK, wanted);
        let loss = tensor(vec![loss], Shape::new([1]));
        match CrossEntropy.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(gradients, loss),
            OpsKind::UnTracked(prep) => prep.finish(loss),
        }
    }

    fn linear_step(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        no_gradient("linear_step")
    }

    fn rope(_: FloatTensor<Self>, _: usize, _: RopeTable, _: Arc<[u32]>) -> FloatTensor<Self> {
        no_gradient("rope")
    }

    fn cache_write(_: FloatTensor<Self>, _: FloatTensor<Self>, _: Arc<[u32]>) -> FloatTensor<Self> {
        no_gradient("cache_write")
    }

    fn attention_cached(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Heads,
        _: Slots,
    ) -> FloatTensor<Self> {
        no_gradient("attention_cached")
    }

    fn adamw(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        no_gradient("adamw")
    }

    fn sum_of_squares(_: FloatTensor<Self>) -> FloatTensor<Self> {
        no_gradient("sum_of_squares")
    }
}

fn no_gradient(name: &str) -> ! {
    panic!("BUG: `{name}` is for tensors without a tape")
}
