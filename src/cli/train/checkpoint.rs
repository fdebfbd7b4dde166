//! The state of a training, written after every iteration, from which `--resume` goes on.

use crate::cli::args::Train;
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::Vectors;
use crate::cli::output::{self, Output};
use crate::cli::report::shape_text;
use crate::cli::tensors::{self, Tensor, Values};
use codeword::{KMeansState, Matrix};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use std::cell::Cell;
use std::path::{Path, PathBuf};

const FORMAT: &str = "codeword-checkpoint";
const VECTORS: &str = "vectors_xxh3";
const WEIGHTS: &str = "weights_xxh3";

/// Where it is, and what its bytes depend on.
pub struct Checkpoint {
    path: PathBuf,
    metadata: Vec<(&'static str, String)>,
    /// What the file that is gone on from says of itself.
    found: Option<Metadata>,
    /// Whether the file is of this training: written by it, or what it goes on from.
    is_ours: Cell<bool>,
}

impl Checkpoint {
    pub fn new(path: &Path, args: &Train, vectors: &Vectors) -> Checkpoint {
        let mut metadata = tensors::metadata(FORMAT, args.quantizer, 1, args.k as usize, vectors.d);
        let or_all = |count: Option<u32>| count.map_or("all".to_string(), |count| count.to_string());
        metadata.extend([
            ("vectors", vectors.n.to_string()),
            ("seed", args.seed.to_string()),
            ("tolerance", args.tolerance.to_string()),
            ("minibatch", or_all(args.minibatch)),
            ("sample", or_all(args.sample.filter(|&sample| (sample as usize) < vectors.n))),
        ]);
        Checkpoint { path: path.into(), metadata, found: None, is_ours: Cell::new(false) }
    }

    /// Adds the values that are learned from. Those of the file that is gone on from must be the same.
    pub fn bind(&mut self, vectors: String, weights: Option<String>) -> Result<()> {
        let weights = weights.unwrap_or_else(|| "none".into());
        for (key, what, value) in [(VECTORS, "vectors", vectors), (WEIGHTS, "weights", weights)] {
            let found = self.found.as_ref().map(|it| it.metadata().as_ref().and_then(|entries| entries.get(key)));
            match found {
                Some(None) => {
                    let name = self.path.display();
                    let message = format!(
                        "{name}: does not say of which {what} it is, as an earlier version wrote it; leave out --resume"
                    );
                    return Err(Failure::new(Exit::BadInput, message));
                }
                Some(Some(found)) if *found != value => {
                    let name = self.path.display();
                    let message = format!(
                        "{name}: is a checkpoint of other {what} (XXH3 {found}, got {value}); resume with what it was made with, \
                         or leave out --resume"
                    );
                    return Err(Failure::new(Exit::BadInput, message));
                }
                _ => self.metadata.push((key, value)),
            }
        }
        Ok(())
    }

    /// The file that this training can go on from, if there is one. Before its first iteration an earlier one's may lie there.
    pub fn left(&self) -> Option<&Path> {
        self.is_ours.get().then_some(&self.path)
    }

    /// Puts the state in place of the one before, in one step.
    pub fn write(&self, state: &KMeansState) -> Result<()> {
        let (k, d) = (state.codewords.rows(), state.codewords.cols());
        let tensors = [
            Tensor { name: "codewords", shape: vec![k, d], values: Values::F32(state.codewords.as_slice()) },
            Tensor { name: "curve", shape: vec![state.curve.len()], values: Values::F64(&state.curve) },
            Tensor { name: "weights", shape: vec![state.weights.len()], values: Values::F64(&state.weights) },
        ];
        let mut output = Output::whole(&self.path)?;
        output.write_whole(&tensors::file(&tensors, &self.metadata))?;
        // What was there before was replaced by the user's leave: the first time that was checked.
        output::commit(vec![output], true)?;
        self.is_ours.set(true);
        Ok(())
    }

    /// Reads a state, which must be of the same training as far as can be said before its vectors are read, and of no more
    /// than so many iterations.
    pub fn read(&mut self, iterations: u32) -> Result<KMeansState> {
        let name = self.path.display();
        let bad = |message: String| Failure::new(Exit::BadInput, format!("{name}: {message}"));
        let bytes = match std::fs::read(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(bad("no such file; leave out --resume to start from the beginning".into()));
            }
            bytes => bytes.map_err(|error| bad(format!("cannot be read: {error}")))?,
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| bad(format!("no checkpoint: {error}")))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| bad(format!("no checkpoint: {error}")))?;
        for (key, expected) in self.metadata.iter().filter(|(key, _)| *key != "version") {
            let got = header.metadata().as_ref().and_then(|entries| entries.get(*key));
            if got != Some(expected) {
                let got = got.map_or("nothing", String::as_str);
                let way_out = "resume with what it was made with, or leave out --resume";
                return Err(bad(format!("expected a checkpoint with {key} {expected}, got {got}; {way_out}")));
            }
        }
        let tensor = |name: &str, dtype: Dtype, rank: usize| {
            let tensor = file.tensor(name).ok().filter(|it| it.dtype() == dtype && it.shape().len() == rank);
            tensor.ok_or_else(|| bad(format!("expected a tensor '{name}' of {rank} axes and type {dtype}")))
        };
        let codewords = tensor("codewords", Dtype::F32, 2)?;
        let (k, d) = (codewords.shape()[0], codewords.shape()[1]);
        let values = codewords.data().chunks_exact(4).map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]]));
        let wide = |name: &str| -> Result<Vec<f64>> {
            let tensor = tensor(name, Dtype::F64, 1)?;
            let values = tensor.data().as_chunks::<8>().0;
            Ok(values.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect())
        };
        let sizes = [("k", k.to_string()), ("d", d.to_string())];
        if self.metadata.iter().any(|(key, value)| sizes.iter().any(|(name, got)| key == name && value != got)) {
            return Err(bad(format!("holds codewords of shape {}", shape_text(codewords.shape()))));
        }
        let codewords = Matrix::new(values.collect(), k, d).or_exit(Exit::BadInput)?;
        let state = KMeansState { codewords, curve: wide("curve")?, weights: wide("weights")? };
        if let Some(i) = state.codewords.as_slice().iter().position(|value| !value.is_finite()) {
            let got = state.codewords.as_slice()[i];
            return Err(bad(format!("codeword {} holds {got} in column {}; leave out --resume", i / d, i % d)));
        }
        if state.curve.len() > iterations as usize {
            let moved = state.curve.len();
            let message =
                format!("--iterations {iterations}: {name} has moved its codewords {moved} times; allow at least that");
            return Err(Failure::new(Exit::Usage, message));
        }
        self.found = Some(header);
        self.is_ours.set(true);
        Ok(state)
    }
}
