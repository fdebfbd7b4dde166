//! Residual models with projections and cosines: what stands beside their codebooks.

use crate::cli::exit::{Exit, Failure, OrExit, Result};
use crate::cli::input;
use crate::cli::model::Model;
use crate::cli::report::{Clock, shape_text};
use codeword::io::npy::Reader;
use codeword::{Device, Error, MatrixView, ResidualQuantizer, Stages};

/// Beginnings of the names of tensors of projections, and what they are followed by.
const WAYS: [&str; 2] = ["in", "out"];
const WEIGHT: &str = "_weight";
const BIAS: &str = "_bias";
/// Names of entries in the metadata.
const STAGES: &str = "stages";
const COSINE: &str = "cosine";
const ON_VECTORS: &str = "on_vectors";

/// What there is around the codebooks of a model, not loaded yet.
pub struct Around {
    /// How many stages share their projections, one number for each projection.
    runs: Vec<usize>,
    cosine: bool,
    on_vectors: bool,
    into: Option<Projections>,
    out: Option<Projections>,
    /// Dimensions of a vector.
    pub d: usize,
}

/// One for each run: weights of shape (runs, to, from), biases of shape (runs, to).
struct Projections {
    weight: Reader,
    bias: Option<Reader>,
}

impl Around {
    /// Refuses it beside codebooks that are not those of a residual quantizer: without it codes would be others than were meant.
    pub fn check_none(codebooks: &Reader) -> Result<()> {
        let Some(what) = what_is_said(codebooks) else { return Ok(()) };
        let expected = format!("no {what}, which only residual quantizers have");
        let way_out = format!("say --quantizer rvq of codebooks of shape (m, k, width), or take the {what} out");
        Err(bad(codebooks, &expected, "one", &way_out))
    }

    /// Looks for it beside codebooks of shape (m, k, width).
    pub fn find(codebooks: &Reader, m: usize, width: usize) -> Result<Option<Around>> {
        if what_is_said(codebooks).is_none() {
            return Ok(None);
        }
        let known: Vec<String> =
            WAYS.iter().flat_map(|way| [WEIGHT, BIAS].map(|kind| format!("{way}{kind}"))).collect();
        // What is not understood would make other codes than were meant.
        if let Some(name) = codebooks.tensors().iter().find(|name| is_way(name) && !known.contains(name)) {
            let expected = format!("projections called {}", known.join(", "));
            return Err(bad(codebooks, &expected, &format!("a tensor {name}"), "rename it"));
        }
        let runs = runs(codebooks, m)?;
        let (cosine, on_vectors) = (flag(codebooks, COSINE)?, flag(codebooks, ON_VECTORS)?);
        let (into, out) = (Projections::find(codebooks, WAYS[0])?, Projections::find(codebooks, WAYS[1])?);
        let d = match &into {
            Some(into) => into.check(WAYS[0], runs.len(), [Some(width), None])?[1],
            None => width,
        };
        match &out {
            Some(out) => out.check(WAYS[1], runs.len(), [Some(d), Some(width)]).map(|_| ())?,
            None if d == width => {}
            None => {
                let (expected, got) =
                    (format!("projections {}{WEIGHT} back to the {d} dimensions of a vector", WAYS[1]), "none");
                return Err(bad(codebooks, &expected, got, "add them"));
            }
        }
        // Said to be what every residual quantizer is.
        let is_plain =
            into.is_none() && out.is_none() && !cosine && !on_vectors && runs.iter().all(|&count| count == 1);
        Ok((!is_plain).then_some(Around { runs, cosine, on_vectors, into, out, d }))
    }

    /// Multiplications of a vector in all projections, there and, to take it off, back.
    pub fn work(&self, width: usize) -> u64 {
        let one = (self.d as u64).saturating_mul(width as u64);
        let ways = u64::from(self.into.is_some()) + u64::from(self.out.is_some());
        one.saturating_mul(ways).saturating_mul(self.runs.len() as u64)
    }

    /// Makes the quantizer of `model` with its codewords, stage after stage.
    pub fn load(
        &self,
        model: &Model,
        codewords: &[f32],
        device: &Device,
        clock: &mut Clock,
    ) -> Result<ResidualQuantizer> {
        let (k, width) = (model.k, model.width);
        let read = |projections: &Option<Projections>| projections.as_ref().map(Projections::read).transpose();
        let (into, out) = clock.load(|| Ok::<_, Failure>((read(&self.into)?, read(&self.out)?)))?;
        let of_run = |i: usize, first: usize, count: usize| {
            let own = MatrixView::new(&codewords[first * k * width..][..count * k * width], count * k, width)?;
            let mut stages = Stages::new(own, count, device)?;
            if self.cosine {
                stages = stages.cosine()?;
            }
            if let Some(into) = &into {
                let (weight, bias) = into.of_run(i, width, self.d)?;
                stages = stages.project_in(weight, bias)?;
            }
            if let Some(out) = &out {
                let (weight, bias) = out.of_run(i, self.d, width)?;
                stages = stages.project_out(weight, bias)?;
            }
            Ok(if self.on_vectors { stages.on_vectors() } else { stages })
        };
        let (mut first, mut all) = (0, Vec::with_capacity(self.runs.len()));
        for (i, &count) in self.runs.iter().enumerate() {
            let explain = |error: Error| match error {
                Error::NonFinite { op, what: "codeword", row, col, got, way_out } => {
                    model.explain(Error::NonFinite { op, what: "codeword", row: first * k + row, col, got, way_out })
                }
                error => {
                    let which = if count == 1 { "stage".into() } else { format!("{count} stages from") };
                    let name = format!("{}: {which} {first}", model.reader.file().display());
                    Failure { exit: Exit::of(&error), error: anyhow::Error::new(error).context(name) }
                }
            };
            all.push(clock.prepare(|| of_run(i, first, count)).map_err(explain)?);
            first += count;
        }
        ResidualQuantizer::from_stages(all).map_err(|error| model.explain(error))
    }
}

impl Projections {
    fn find(codebooks: &Reader, way: &str) -> Result<Option<Projections>> {
        let open = |kind: &str| {
            let name = format!("{way}{kind}");
            let exists = codebooks.tensors().contains(&name);
            exists.then(|| Reader::open_tensor(codebooks.file(), Some(&name), None).or_exit(Exit::BadInput)).transpose()
        };
        match (open(WEIGHT)?, open(BIAS)?) {
            (Some(weight), bias) => Ok(Some(Projections { weight, bias })),
            (None, None) => Ok(None),
            (None, Some(bias)) => {
                let (expected, got) = (format!("a tensor {way}{WEIGHT} beside {way}{BIAS}"), "none");
                Err(bad(&bias, &expected, got, "add it"))
            }
        }
    }

    /// Refuses shapes that do not fit; the sizes to and from which it projects.
    fn check(&self, way: &str, runs: usize, [to, from]: [Option<usize>; 2]) -> Result<[usize; 2]> {
        let shape = &self.weight.header().shape;
        let fits = |size: usize, wanted: Option<usize>| size > 0 && wanted.is_none_or(|wanted| wanted == size);
        let sizes = match shape[..] {
            [count, a, b] if count == runs && fits(a, to) && fits(b, from) => [a, b],
            _ => {
                let or_d = |size: Option<usize>| size.map_or("d".into(), |size| size.to_string());
                let expected = format!("{way}{WEIGHT} of shape ({runs}, {}, {})", or_d(to), or_d(from));
                let way_out = "one projection for each stage, or for as many stages as the entry stages says";
                return Err(bad(&self.weight, &expected, &shape_text(shape), way_out));
            }
        };
        if let Some(bias) = self.bias.as_ref().filter(|bias| bias.header().shape[..] != [runs, sizes[0]]) {
            let expected = format!("{way}{BIAS} of shape ({runs}, {}), as {way}{WEIGHT} has", sizes[0]);
            return Err(bad(bias, &expected, &shape_text(&bias.header().shape), "reshape it"));
        }
        Ok(sizes)
    }

    fn read(&self) -> Result<Loaded> {
        let (weight, mut rounded) = input::read_all(&self.weight)?;
        let bias = match &self.bias {
            Some(reader) => {
                let (bias, more) = input::read_all(reader)?;
                rounded += more;
                Some(bias)
            }
            None => None,
        };
        if rounded > 0 {
            log::warn!("{}: {rounded} rows of projections were rounded to f32", self.weight.file().display());
        }
        Ok(Loaded { weight, bias })
    }
}

/// The values of [`Projections`].
struct Loaded {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Loaded {
    fn of_run(
        &self,
        i: usize,
        to: usize,
        from: usize,
    ) -> std::result::Result<(MatrixView<'_, f32>, Option<&[f32]>), Error> {
        let weight = MatrixView::new(&self.weight[i * to * from..][..to * from], to, from)?;
        Ok((weight, self.bias.as_ref().map(|bias| &bias[i * to..][..to])))
    }
}

/// The first tensor or entry of projections and cosines.
fn what_is_said(codebooks: &Reader) -> Option<String> {
    let said = |name: &&str| codebooks.metadata().contains_key(*name);
    let entry = [STAGES, COSINE, ON_VECTORS].into_iter().find(said).map(|name| format!("entry {name}"));
    let tensor = || codebooks.tensors().iter().find(|name| is_way(name)).map(|name| format!("tensor {name}"));
    entry.or_else(tensor)
}

/// Whether a tensor is one of projections.
fn is_way(name: &str) -> bool {
    WAYS.iter().any(|way| name.strip_prefix(way).is_some_and(|rest| rest.starts_with('_')))
}

/// How many stages share their projections: what the file says, else each has its own.
fn runs(codebooks: &Reader, m: usize) -> Result<Vec<usize>> {
    let Some(said) = codebooks.metadata().get(STAGES) else { return Ok(vec![1; m]) };
    let counts: Option<Vec<usize>> =
        said.split_whitespace().map(|word| word.parse().ok().filter(|&count| count > 0)).collect();
    let total = |counts: &Vec<usize>| counts.iter().try_fold(0usize, |sum, &count| sum.checked_add(count));
    counts.filter(|counts| total(counts) == Some(m)).ok_or_else(|| {
        let expected =
            format!("an entry {STAGES} of numbers above 0 that make up the {m} stages, such as '1 {}'", m.max(2) - 1);
        bad(codebooks, &expected, &format!("'{}'", said.escape_debug()), "write how many stages share each projection")
    })
}

fn flag(codebooks: &Reader, name: &str) -> Result<bool> {
    match codebooks.metadata().get(name).map(String::as_str) {
        Some("true") => Ok(true),
        Some("false") | None => Ok(false),
        Some(other) => {
            let (expected, got) = (format!("an entry {name} of true or false"), format!("'{}'", other.escape_debug()));
            Err(bad(codebooks, &expected, &got, "write one of them"))
        }
    }
}

fn bad(reader: &Reader, expected: &str, got: &str, way_out: &str) -> Failure {
    Failure::new(Exit::BadInput, format!("{}: expected {expected}, got {got}; {way_out}", reader.file().display()))
}
