//! Output files: written beside their target under another name, and renamed only when every byte of every output is
//! safe. Whatever goes wrong before that leaves no file behind.

use crate::cli::args::Global;
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::report::size_text;
use crate::cli::signals::STOP;
use codeword::Error;
use codeword::io::npy::{Header, Reader, Scalar, Writer};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// What will be written where.
#[derive(Clone, Debug)]
pub struct Target {
    /// codebook, codes, distances, reconstruction, vectors: for plans and reports.
    pub role: &'static str,
    /// The path as the user gave it.
    pub path: PathBuf,
    pub header: Header,
}

/// Names of files in the formats of vector search benchmarks, which are read and not written.
const ONLY_READ: [&str; 7] = ["fvecs", "ivecs", "bvecs", "fbin", "ibin", "u8bin", "i8bin"];

impl Target {
    /// An array in the storage order of `like`, as far as its rank leaves a choice.
    pub fn new(role: &'static str, path: &Path, scalar: Scalar, shape: &[usize], like: &Reader) -> Result<Target> {
        if let Some(extension) =
            path.extension().and_then(|it| ONLY_READ.iter().find(|only| it.eq_ignore_ascii_case(only)))
        {
            let message = format!("{}: .{extension} files are read, not written; name a .npy file", path.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        let fortran_order = like.header().fortran_order && shape.len() >= 2;
        let header = Header::new(scalar, shape, fortran_order).map_err(|error| Failure {
            exit: Exit::BadInput,
            error: anyhow::Error::new(error).context(format!("{}: too large to write", path.display())),
        })?;
        Ok(Target { role, path: path.into(), header })
    }

    /// The same in C order.
    pub fn in_c_order(mut self) -> Target {
        self.header.fortran_order = false;
        self
    }

    /// Bytes of the elements.
    pub fn bytes(&self) -> u64 {
        // Cannot overflow: the header was checked when it was made.
        (self.header.elements() * self.header.scalar.size()) as u64
    }
}

/// Refuses targets that exist, that are inputs, or that are one file, before any work is done.
pub fn check(targets: &[Target], inputs: &[&Reader], global: &Global) -> Result<()> {
    let files: Vec<_> = targets.iter().map(|target| (target.role, &*target.path)).collect();
    let inputs: Vec<_> = inputs.iter().map(|input| input.file()).collect();
    check_files(&files, &inputs, global)
}

/// As [`check`], of files of any kind with their roles.
pub fn check_files(files: &[(&str, &Path)], inputs: &[&Path], global: &Global) -> Result<()> {
    let usage = |message: String| Err(Failure::new(Exit::Usage, message));
    for (i, &(role, path)) in files.iter().enumerate() {
        let name = path.display();
        for input in inputs {
            if is_same(path, input) {
                return usage(format!(
                    "{name}: is an input, and would be replaced while it is read; name another output"
                ));
            }
        }
        if let Some(twin) = files[..i].iter().find(|(_, twin)| is_same(twin, path)) {
            return usage(format!("{name}: is named for both {} and {role}; name two files", twin.0));
        }
        if path.as_os_str() == "-" {
            return usage(format!(
                "-: {role} cannot go to standard output, for outputs are renamed into place when all are whole; name a file"
            ));
        }
        let parent = parent(path);
        if path.is_dir() || name.to_string().ends_with(std::path::is_separator) {
            return usage(format!("{name}: is a folder; name a file in it"));
        }
        if !parent.is_dir() {
            let parent = parent.display();
            return usage(format!("{name}: there is no folder {parent}; create it or name another output"));
        }
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return usage(format!("{name}: cannot be written: {error}; name another output")),
            Ok(_) if std::fs::metadata(path).is_ok_and(|it| !it.is_file()) => {
                return usage(format!(
                    "{name}: is not a regular file, and outputs are renamed into place; name a file"
                ));
            }
            Ok(_) if !global.force => {
                return usage(format!("{name}: exists already; name another output, or replace it with --force"));
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

/// A file being written.
pub struct Output {
    /// The path as the user gave it, and the bytes to come, as far as they are known.
    path: PathBuf,
    bytes: u64,
    /// Where it is renamed to: the target, behind symbolic links.
    to: PathBuf,
    content: Content,
    temporary: tempfile::TempPath,
}

enum Content {
    Array(Writer),
    Whole(File),
}

impl Output {
    /// Starts an array beside its target.
    pub fn create(target: Target) -> Result<Output> {
        let bytes = target.bytes();
        let (path, header) = (target.path, target.header);
        let array = |file| Writer::new(file, &path, header).map_err(|error| explain(error, &path, bytes));
        let (to, file, temporary) = beside(&path)?;
        Ok(Output { bytes, to, content: Content::Array(array(file)?), temporary, path })
    }

    /// Starts a file of any kind beside its target.
    pub fn whole(path: &Path) -> Result<Output> {
        let (to, file, temporary) = beside(path)?;
        Ok(Output { path: path.into(), bytes: 0, to, content: Content::Whole(file), temporary })
    }

    /// Writes rows of f32.
    pub fn write_rows(&mut self, first: usize, rows: &[f32]) -> Result<()> {
        self.write(|writer| writer.write_rows(first, rows))
    }

    /// Writes codes at a position in storage order.
    pub fn write_codes(&mut self, first: usize, codes: &[u32]) -> Result<()> {
        self.write(|writer| writer.write_codes(first, codes))
    }

    /// Writes f32 values at a position in storage order.
    pub fn write_values(&mut self, first: usize, values: &[f32]) -> Result<()> {
        self.write(|writer| writer.write_values(first, values))
    }

    fn write(&mut self, work: impl FnOnce(&mut Writer) -> codeword::Result<()>) -> Result<()> {
        match &mut self.content {
            Content::Array(writer) => work(writer).map_err(|error| explain(error, &self.path, self.bytes)),
            Content::Whole(_) => Err(Failure::new(Exit::Failed, format!("{}: is no array", self.path.display()))),
        }
    }

    /// Writes a file that is no `.npy` array, after what was written before.
    pub fn write_whole(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.content {
            Content::Whole(file) => {
                file.write_all(bytes).map_err(|source| failed(&self.path, "write", source, bytes.len() as u64))
            }
            Content::Array(_) => Err(Failure::new(Exit::Failed, format!("{}: is an array", self.path.display()))),
        }
    }
}

/// A new file beside the one that `path` names, behind symbolic links, and where that is.
fn beside(path: &Path) -> Result<(PathBuf, File, tempfile::TempPath)> {
    let to = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".codeword-").suffix(".partial");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any other new file: the umask is taken off. The default of temporary files is "the owner only".
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(parent(&to)).map_err(|source| failed(path, "create a file beside it", source, 0))?;
    let (file, temporary) = file.into_parts();
    Ok((to, file, temporary))
}

/// Finishes all files, then renames all of them into place. Where a rename fails, files that were not there before
/// are taken back; what `--force` replaced stays replaced.
pub fn commit(outputs: Vec<Output>, force: bool) -> Result<()> {
    let mut finished = Vec::new();
    for Output { path, bytes, to, content, temporary } in outputs {
        match content {
            Content::Array(writer) => drop(writer.finish().map_err(|error| explain(error, &path, bytes))?),
            Content::Whole(file) => file.sync_all().map_err(|source| failed(&path, "store", source, bytes))?,
        }
        finished.push((path, to, temporary));
    }
    if STOP.load(Ordering::Relaxed) {
        return Err(Failure::interrupted());
    }
    let mut made: Vec<PathBuf> = Vec::new();
    for (path, to, temporary) in finished {
        let is_new = !to.exists();
        let renamed = if force { temporary.persist(&to) } else { temporary.persist_noclobber(&to) };
        if let Err(refused) = renamed {
            for file in made {
                // Whatever keeps it from being removed, the failure that counts is the one below.
                let _ = std::fs::remove_file(file);
            }
            return Err(match refused.error.kind() {
                ErrorKind::AlreadyExists => {
                    let why = "was created by someone else meanwhile; name another output";
                    Failure::new(Exit::Failed, format!("{}: {why}", path.display()))
                }
                _ => failed(&path, "rename the finished file", refused.error, 0),
            });
        }
        // Makes the new name as safe as the data. Not every file system can; the file itself is complete either way.
        if let Ok(folder) = File::open(parent(&to)) {
            let _ = folder.sync_all();
        }
        made.extend(is_new.then_some(to));
    }
    Ok(())
}

/// The folder of a file named by `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether two paths name one file, through links of either kind, or would if it existed.
fn is_same(a: &Path, b: &Path) -> bool {
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(of_a), Ok(of_b)) => is_same_file(&of_a, &of_b) || canonical(a).is_some_and(|a| Some(a) == canonical(b)),
        _ => canonical(a).is_some_and(|a| Some(a) == canonical(b)),
    }
}

#[cfg(unix)]
fn is_same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same_file(_: &Metadata, _: &Metadata) -> bool {
    false
}

/// The path without links and dots. Of a file that does not exist yet, its folder's and its name.
fn canonical(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok().or_else(|| Some(std::fs::canonicalize(parent(path)).ok()?.join(path.file_name()?)))
}

fn explain(error: Error, path: &Path, bytes: u64) -> Failure {
    match error {
        Error::Io { doing, source, .. } => failed(path, doing, source, bytes),
        error => Failure { exit: Exit::Failed, error: error.into() },
    }
}

fn failed(path: &Path, doing: &str, source: std::io::Error, bytes: u64) -> Failure {
    let way_out = match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space or name an output elsewhere",
        ErrorKind::FileTooLarge => "raise the limit on file sizes (ulimit -f) or name an output elsewhere",
        ErrorKind::PermissionDenied => "name an output in a folder you may write to",
        ErrorKind::ReadOnlyFilesystem => "name an output elsewhere",
        _ => "name an output elsewhere, or try again",
    };
    let needed = if bytes > 0 { format!("it needs {}: ", size_text(bytes)) } else { String::new() };
    Failure::new(Exit::Failed, format!("{}: cannot {doing}: {source}; {needed}{way_out}", path.display()))
}
