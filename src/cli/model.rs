//! Models: what a file holds, whatever it quantizes with. The one place that decides which quantizer that is.

use crate::cli::args::{self, Global};
use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input::{self, Vectors};
use crate::cli::report::{Clock, shape_text, size_text};
use crate::cli::stages::Around;
use crate::cli::values::Quantizer;
use codeword::io::npy::Reader;
use codeword::{Codebook, Device, Error, MatrixView, Precision};

/// Most codewords of a sub-quantizer: its numbers have 16 bits at most.
pub const MOST_OF_PART: usize = 1 << 16;

/// A model that is open but not loaded yet.
pub struct Model {
    pub reader: Reader,
    pub quantizer: Quantizer,
    /// Numbers in the code of a vector: 1 of a codebook, one for each sub-quantizer or stage.
    pub m: usize,
    /// Codewords that each of them chooses from.
    pub k: usize,
    /// Dimensions of a codeword.
    pub width: usize,
    /// Dimensions of a vector.
    pub d: usize,
    /// Of a residual quantizer: projections and cosines, where it has some.
    pub around: Option<Around>,
}

impl Model {
    /// Opens a model of any kind.
    pub fn open(args: &args::Model) -> Result<Model> {
        let reader = input::open(&args.codebook, args.codebook_dtype)?;
        let quantizer = quantizer(&reader, args.quantizer)?;
        Model::of(reader, quantizer)
    }

    /// Opens a codebook, for what only makes sense with one.
    pub fn open_codebook(args: &args::Codebook, verb: &str) -> Result<Model> {
        let reader = input::open(&args.codebook, args.codebook_dtype)?;
        match quantizer(&reader, None)? {
            Quantizer::Vq => Model::of(reader, Quantizer::Vq),
            other => Err(bad(
                &reader,
                &format!("a codebook of shape (k, d), which is what {verb} takes"),
                &format!("a model of the quantizer {}", other.name()),
                "cut out one codebook",
            )),
        }
    }

    fn of(reader: Reader, quantizer: Quantizer) -> Result<Model> {
        let shape = reader.header().shape.clone();
        let (wanted, m, k, width) = match (quantizer, &shape[..]) {
            (Quantizer::Vq, &[k, d]) => ("a codebook of shape (k, d)", 1, k, d),
            (Quantizer::Pq | Quantizer::Opq, &[m, k, width]) => ("codebooks of shape (m, k, d/m)", m, k, width),
            (Quantizer::Rvq, &[m, k, width]) => ("codebooks of shape (m, k, d)", m, k, width),
            (Quantizer::Vq, &[_, _, _]) => {
                let way_out = "say --quantizer pq where it is a product quantizer of shape (m, k, d/m), rvq where it is a \
                               residual one of shape (m, k, d)";
                return Err(bad(&reader, "a codebook of shape (k, d)", &shape_text(&shape), way_out));
            }
            (Quantizer::Vq, _) => {
                return Err(bad(&reader, "a codebook of shape (k, d)", &shape_text(&shape), "reshape it"));
            }
            (Quantizer::Pq | Quantizer::Opq | Quantizer::Rvq, _) => {
                let of = if quantizer == Quantizer::Rvq { "d" } else { "d/m" };
                let wanted = format!("codebooks of shape (m, k, {of}), as the quantizer {} has", quantizer.name());
                let way_out = "reshape them; a codebook of shape (k, d) is the quantizer vq";
                return Err(bad(&reader, &wanted, &shape_text(&shape), way_out));
            }
        };
        let most = if quantizer == Quantizer::Vq { u32::MAX as usize - 1 } else { MOST_OF_PART };
        if m == 0 || k == 0 || width == 0 {
            let way_out = "at least one codeword and one dimension are needed";
            return Err(bad(&reader, wanted, &shape_text(&shape), way_out));
        }
        if k > most {
            let way_out = format!("{most} codewords are the most that codes have numbers for");
            return Err(bad(&reader, wanted, &shape_text(&shape), &way_out));
        }
        let around = match quantizer {
            Quantizer::Rvq => Around::find(&reader, m, width)?,
            _ => Around::check_none(&reader).map(|()| None)?,
        };
        let d = match (quantizer, &around) {
            (Quantizer::Rvq, around) => around.as_ref().map_or(width, |around| around.d),
            // Cannot overflow: the elements of the file were counted.
            _ => m * width,
        };
        Ok(Model { reader, quantizer, m, k, width, d, around })
    }

    /// Bits of the code of a vector, as information: numbers below k need not fill their bits.
    pub fn rate(&self) -> f64 {
        self.m as f64 * (self.k as f64).log2()
    }

    /// Bytes of the packed code of a vector, as of the library.
    pub fn code_size(&self) -> usize {
        let bits = (self.k - 1).checked_ilog2().map_or(1, |log| log as usize + 1);
        (self.m * bits).div_ceil(8)
    }

    /// Refuses vectors of another dimension.
    pub fn check_fits(&self, vectors: &Vectors) -> Result<()> {
        if self.d == vectors.d {
            return Ok(());
        }
        let as_what = if self.around.is_some() { "as those of" } else { "as the codewords of" };
        let message = format!(
            "{}: expected vectors of {} columns, {as_what} {} have, got {} of shape {}; name the codebook that \
             was made for these vectors, or move their components to the last axis",
            vectors.reader.file().display(),
            self.d,
            self.reader.file().display(),
            vectors.d,
            shape_text(&vectors.reader.header().shape)
        );
        Err(Failure::new(Exit::BadInput, message))
    }

    /// Reads the codewords of a codebook.
    pub fn load(&self, device: &Device, clock: &mut Clock) -> Result<Codebook> {
        let codewords = self.codewords(clock)?;
        let view = MatrixView::new(&codewords, self.k, self.d).or_exit(Exit::BadInput)?;
        clock.prepare(|| Codebook::new(view, device)).map_err(|error| self.explain(error))
    }

    /// All codewords in the order of the file. How many of them f32 could not hold exactly is told as a warning.
    pub fn codewords(&self, clock: &mut Clock) -> Result<Vec<f32>> {
        let name = self.reader.file().display();
        let mut codewords: Vec<f32> = Vec::new();
        // The file is as large as its shape says, but it may be sparse, and memory is not.
        let len = (self.m * self.k).checked_mul(self.width).filter(|&len| codewords.try_reserve_exact(len).is_ok());
        let Some(len) = len else {
            let bytes = 4.0 * self.reader.elements() as f64;
            let message =
                format!("{name}: its codewords need {} of memory, and there is not that much", size_text(bytes as u64));
            return Err(Failure::new(Exit::Failed, message));
        };
        codewords.resize(len, 0.0);
        let rounded =
            clock.load(|| self.reader.read_rows(0, &mut codewords, &mut Vec::new())).or_exit(Exit::BadInput)?;
        if rounded > 0 {
            log::warn!("{name}: {rounded} of {} codewords were rounded to f32", self.reader.rows());
        }
        Ok(codewords)
    }

    /// Puts an error of preparing the codewords in terms of the file.
    pub fn explain(&self, error: Error) -> Failure {
        let name = self.reader.file().display();
        match error {
            Error::NonFinite { what: "codeword", row, col, got, .. } => {
                let of_part = match self.quantizer {
                    Quantizer::Vq => format!("codeword {row}"),
                    other => format!("codeword {} of {} {}", row % self.k, other.part(), row / self.k),
                };
                let message =
                    format!("{name}: {of_part} holds {got} in column {col}; remove it or retrain the codebook");
                Failure::new(Exit::BadInput, message)
            }
            Error::NonFinite { what: "row of the rotation", row, col, got, .. } => {
                let message =
                    format!("{name}: the rotation holds {got} in row {row}, column {col}; train the model again");
                Failure::new(Exit::BadInput, message)
            }
            Error::InvalidParameter { name: "rotation", expected, got, .. } => {
                let message =
                    format!("{name}: expected a rotation that is {expected}, got {got}; train the model again");
                Failure::new(Exit::BadInput, message)
            }
            error => Failure { exit: Exit::of(&error), error: anyhow::Error::new(error).context(name.to_string()) },
        }
    }
}

/// Which quantizer it is: what the file says of itself, else what the command line says, else a codebook.
fn quantizer(reader: &Reader, asked: Option<Quantizer>) -> Result<Quantizer> {
    let Some(named) = reader.metadata().get("quantizer") else { return Ok(asked.unwrap_or(Quantizer::Vq)) };
    let Some(found) = Quantizer::of_name(named) else {
        let got = format!("a model of the quantizer {named}, which this version cannot use");
        return Err(bad(reader, "a model of vq, pq, opq or rvq", &got, "use the version that wrote it"));
    };
    match asked.filter(|&asked| asked != found) {
        Some(asked) => {
            let message = format!(
                "--quantizer {}: {} is a model of the quantizer {named}, as it says itself; leave out the flag",
                asked.name(),
                reader.file().display()
            );
            Err(Failure::new(Exit::Usage, message))
        }
        None => Ok(found),
    }
}

/// Refuses the precision that codes of several numbers do not have.
pub fn check_exact(global: &Global) -> Result<()> {
    if global.precision_or(Precision::Exact) == Precision::Fast {
        let message = "--precision fast: a codebook alone has it, other quantizers are exact only; leave it out";
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(())
}

fn bad(reader: &Reader, expected: &str, got: &str, way_out: &str) -> Failure {
    Failure::new(Exit::BadInput, format!("{}: expected {expected}, got {got}; {way_out}", reader.file().display()))
}
