//! A large batch of texts in parts: what runs between the layers then stays near the processor.

use bertha_autograd::{Session, Var};
use bertha_nn::Batch;
use bertha_tensor::{DType, Tensor};

use super::Encoder;
use crate::ModelError;

/// Values of a layer's output in a part: 1,024 tokens of BERT-base. Each part reads all weights once.
const VALUES: usize = 1024 * 768;

impl Encoder {
    /// The last layer's output `[T,N]` of whole sequences at a time; nothing where the batch is small, or somebody wants more of a
    /// pass than this. A sequence's values do not depend on its company, so they are the same bits.
    pub(crate) fn forward_in_parts(
        &self,
        session: &Session,
        batch: &Batch,
    ) -> Result<Option<Var>, ModelError> {
        let most = (VALUES / self.hidden_size.max(1)).max(256);
        let learns = session.is_training() || session.checkpoints() || session.is_observed();
        let whole = self.relative_bias.is_some() || self.distances.is_some();
        if learns || whole || batch.len() < 2 || 2 * batch.tokens() <= 3 * most {
            return Ok(None);
        }
        // What is too long is named by its place in the batch.
        self.positions(batch)?;
        let shape = [batch.tokens(), self.hidden_size];
        let mut all = Tensor::scratch_in(session.pool(), DType::F32, &shape)?;
        let mut first = 0;
        while first < batch.len() {
            let start = batch.range(first).start;
            let fits = |&last: &usize| batch.range(last).end - start <= most;
            let end = (first + 1..batch.len()).take_while(fits).last();
            let end = end.map_or(first + 1, |last| last + 1);
            let rows = start..batch.range(end - 1).end;
            let x = self.forward(session, &batch.sequences(first..end), None, |_| {})?;
            if x.is_tracked() || x.tensor().dtype() != DType::F32 {
                return Ok(None);
            }
            let values = all.as_mut_slice::<f32>()?;
            values[rows.start * self.hidden_size..rows.end * self.hidden_size]
                .copy_from_slice(x.as_slice()?);
            first = end;
        }
        Ok(Some(Var::constant(all)))
    }
}
