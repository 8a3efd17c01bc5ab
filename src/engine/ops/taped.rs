//! Operations with a gradient of their own on every device: an operation says
//! in plain tensor operations what it computes, what it keeps for its gradient,
//! and the gradient; here it is put on burn's tape.
//!
//! A composition on burn's tape keeps every tensor on the way. An operation of
//! this kind keeps what it asks for. Knows no particular operation.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, DispatchKindConversion, DispatchTensor, Flex, backend_extension,
};
use burn::tensor::Tensor;
use std::fmt::Debug;
use std::sync::Arc;

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use burn::backend::Cube;

/// Operands of an operation; one that needs fewer is given constants.
pub(super) type Three<T> = [T; 3];

/// An operation on three matrices. No tensor that it sees is on a tape.
pub(super) trait Operation: Debug + Send + Sync {
    /// The result, and what [`Operation::backward`] needs where the gradient of
    /// any operand is wanted.
    fn forward(
        &self,
        operands: Three<Tensor<2>>,
        wanted: Three<bool>,
    ) -> (Tensor<2>, Vec<Tensor<2>>);

    /// The wanted gradients, each in its operand's shape, from that of the result.
    fn backward(
        &self,
        kept: Vec<Tensor<2>>,
        above: Tensor<2>,
        wanted: Three<bool>,
    ) -> Three<Option<Tensor<2>>>;
}

/// The result of an operation, on a tape where an operand is on one.
pub(super) fn apply(operation: Arc<dyn Operation>, operands: Three<Tensor<2>>) -> Tensor<2> {
    let [a, b, c] = operands.map(Tensor::into_dispatch);
    Tensor::from_dispatch(<burn::backend::Dispatch as Taped>::taped(a, b, c, operation))
}

/// The extension.
#[backend_extension(Flex, Cube: cfg(any(feature = "wgpu", feature = "cuda")), Autodiff)]
trait Taped: Backend {
    /// [`Operation::forward`], with its gradient on the tape.
    fn taped(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        operation: Arc<dyn Operation>,
    ) -> FloatTensor<Self>;
}

fn outside<B: Backend>(x: FloatTensor<B>) -> Tensor<2>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    Tensor::from_primitive::<B>(x)
}

fn inside<B: Backend>(x: Tensor<2>) -> FloatTensor<B>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    x.try_into_primitive::<B>().expect("BUG: an operation that changed the backend")
}

fn plainly<B: Backend>(operands: Three<FloatTensor<B>>, operation: &dyn Operation) -> FloatTensor<B>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    inside::<B>(operation.forward(operands.map(outside::<B>), [false; 3]).0)
}

impl Taped for Flex {
    fn taped(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        operation: Arc<dyn Operation>,
    ) -> FloatTensor<Self> {
        plainly::<Flex>([a, b, c], operation.as_ref())
    }
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl Taped for Cube {
    fn taped(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        operation: Arc<dyn Operation>,
    ) -> FloatTensor<Self> {
        plainly::<Cube>([a, b, c], operation.as_ref())
    }
}

/// What the tape keeps of an operation.
type Kept = (Vec<Tensor<2>>, Three<bool>, Arc<dyn Operation>);

#[derive(Debug)]
struct Node;

impl<B: Backend> Backward<B, 3> for Node
where
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = Kept;

    fn backward(self, ops: Ops<Kept, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let above = outside::<B>(grads.consume::<B>(&ops.node));
        let (kept, wanted, operation) = ops.state;
        let gradients = operation.backward(kept, above, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(node.id, inside::<B>(gradient));
            }
        }
    }
}

impl<B: Backend, C: CheckpointStrategy> Taped for Autodiff<B, C>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    fn taped(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        operation: Arc<dyn Operation>,
    ) -> FloatTensor<Self> {
        let operands = [a, b, c];
        let (guards, wanted) =
            (operands.each_ref().map(|x| x.node()), operands.each_ref().map(|x| x.is_tracked()));
        let operands = operands.map(|x| outside::<B>(x.into_primitive()));
        let (y, kept) = operation.forward(operands, wanted);
        let y = inside::<B>(y);
        match Backward::<B, 3>::prepare::<C>(Node, guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((kept, wanted, operation), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
