//! What a training writes: the codebook, codes, a plot.

use super::plot;
use crate::cli::args::{Global, Train};
use crate::cli::composed;
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::Vectors;
use crate::cli::output::{self, Output, Target};
use crate::cli::plan::Blocks;
use crate::cli::stream::{Block, Stream};
use crate::cli::tensors::{self, Tensor, Values};
use crate::cli::values::{CodeDtype, Quantizer};
use codeword::io::npy::{Reader, Scalar};
use codeword::{AssignOptions, Codebook, Matrix, assign_into};
use std::path::Path;

/// The arrays to write, the codebook first.
pub fn targets(args: &Train, vectors: &Vectors) -> Result<Vec<Target>> {
    let (reader, k, m) = (&vectors.reader, args.k as usize, args.m.map_or(1, |m| m as usize));
    let shape = match args.quantizer {
        Quantizer::Vq => vec![k, vectors.d],
        Quantizer::Pq | Quantizer::Opq => vec![m, k, vectors.d / m],
        Quantizer::Rvq => vec![m, k, vectors.d],
    };
    let mut targets = vec![Target::new("codebook", &args.output, Scalar::F32, &shape, reader)?.in_c_order()];
    if let Some(path) = &args.codes {
        targets.push(Target::new("codes", path, CodeDtype::smallest(k).scalar(), reader.leading(), reader)?);
    }
    Ok(targets)
}

/// The files to write that are no arrays.
pub fn also(args: &Train) -> Vec<(&'static str, &Path)> {
    let files = [("plot", args.plot.as_deref()), ("checkpoint", args.checkpoint.as_deref())];
    files.into_iter().filter_map(|(role, path)| Some((role, path?))).collect()
}

/// Refuses files that cannot be written. The checkpoint that is gone on from is an input until it is replaced.
pub fn check(args: &Train, targets: &[Target], inputs: &[(&str, &Reader)], global: &Global) -> Result<()> {
    let mut files: Vec<(&str, &Path)> = targets.iter().map(|target| (target.role, &*target.path)).collect();
    files.extend(args.plot.as_deref().map(|path| ("plot", path)));
    if args.quantizer == Quantizer::Opq && !is_safetensors(&args.output) {
        let message = format!(
            "{}: an optimised product quantizer has a rotation beside its codebooks, for which .npy has no room; name a \
             .safetensors file",
            args.output.display()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut inputs: Vec<&Path> = inputs.iter().map(|(_, reader)| reader.file()).collect();
    if let Some(path) = args.checkpoint.as_deref() {
        if !is_safetensors(path) {
            let message = format!("{}: checkpoints are .safetensors files; name one", path.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        match args.resume {
            true => inputs.push(path),
            false => files.push(("checkpoint", path)),
        }
    }
    output::check_files(&files, &inputs, global)
}

fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|it| it.eq_ignore_ascii_case("safetensors"))
}

/// The files being written.
pub struct Outputs {
    model: Output,
    in_tensors: bool,
    pub codes: Option<Output>,
    plot: Option<Output>,
}

impl Outputs {
    pub fn create(args: &Train, targets: &[Target]) -> Result<Outputs> {
        let in_tensors = is_safetensors(&args.output);
        let model = if in_tensors { Output::whole(&args.output)? } else { Output::create(targets[0].clone())? };
        let codes = targets.get(1).cloned().map(Output::create).transpose()?;
        Ok(Outputs { model, in_tensors, codes, plot: args.plot.as_deref().map(Output::whole).transpose()? })
    }

    /// Writes the codewords, of several codebooks one after the other, and the rotation that goes with them.
    pub fn write_model(
        &mut self,
        quantizer: Quantizer,
        codebooks: &[&Codebook],
        rotation: Option<&Matrix<f32>>,
    ) -> Result<()> {
        let mut values: Vec<f32> = Vec::new();
        let (m, mut k, mut width) = (codebooks.len(), 0, 0);
        for codebook in codebooks {
            let codewords = codebook.codewords().or_exit(Exit::Failed)?;
            (k, width) = (codewords.rows(), codewords.cols());
            (0..k).for_each(|j| values.extend(codewords.row(j)));
        }
        if !self.in_tensors {
            return self.model.write_rows(0, &values);
        }
        let (name, shape) = match quantizer {
            Quantizer::Vq => ("codebook", vec![k, width]),
            _ => (composed::CODEBOOKS, vec![m, k, width]),
        };
        let mut tensors = vec![Tensor { name, shape, values: Values::F32(&values) }];
        tensors.extend(rotation.map(|rotation| Tensor {
            name: composed::ROTATION,
            shape: vec![rotation.rows(), rotation.cols()],
            values: Values::F32(rotation.as_slice()),
        }));
        let d = if quantizer == Quantizer::Rvq { width } else { m * width };
        let metadata = tensors::metadata("codeword", quantizer, m, k, d);
        self.model.write_whole(&tensors::file(&tensors, &metadata))
    }

    /// Writes the plot, where one is wanted.
    pub fn write_plot(&mut self, curve: &[f64], counts: &[u64]) -> Result<()> {
        match &mut self.plot {
            Some(output) => output.write_whole(plot::training(curve, counts)?.as_bytes()),
            None => Ok(()),
        }
    }

    pub fn into_all(self) -> Vec<Output> {
        [Some(self.model), self.codes, self.plot].into_iter().flatten().collect()
    }
}

/// Bytes of the rows that are labelled at a time for the codes.
const CODES_BYTES: usize = 8 << 20;

/// Labels all vectors, in one more pass over the file.
pub fn write_codes(
    output: &mut Output,
    vectors: &Vectors,
    codebook: &Codebook,
    at: Blocks,
    global: &Global,
) -> Result<()> {
    let (n, d, unit) = (vectors.n, vectors.d, "vectors");
    // A small part of the memory of training, whose rows may still be there.
    let rows = at.rows.min(CODES_BYTES / (4 * d).max(1)).clamp(1, 1 << 14);
    let blocks = Blocks { rows, buffers: 2, memory: at.memory };
    let stream = Stream { verb: "train", n, unit, blocks, global };
    let compute = |block: &mut Block| {
        let (mut codes, mut sq_distances) = (std::mem::take(&mut block.codes), std::mem::take(&mut block.sq_distances));
        codes.resize(block.rows, 0);
        sq_distances.resize(block.rows, 0.0);
        let labelled = block
            .view(d)
            .and_then(|x| assign_into(x, codebook, AssignOptions::default(), &mut codes, &mut sq_distances));
        labelled.map_err(|error| vectors.explain(error, block.first, "remove or repair it"))?;
        (block.codes, block.sq_distances) = (codes, sq_distances);
        Ok(())
    };
    stream.run_vectors(vectors, compute, |block| output.write_codes(block.first, &block.codes))?;
    Ok(())
}
