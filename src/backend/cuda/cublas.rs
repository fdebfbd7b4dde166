//! Whether this machine has cuBLAS. It is optional: without it the filter pass is our own kernel throughout.

use super::probe::Missing;

/// Name of the library that was found, or what is missing. Looked up once per process; where it is missing, that is
/// logged once.
#[cfg(feature = "cuda")]
pub fn library() -> &'static std::result::Result<String, Missing> {
    static LIBRARY: std::sync::OnceLock<std::result::Result<String, Missing>> = std::sync::OnceLock::new();
    LIBRARY.get_or_init(|| {
        let found = look_up();
        if let Err(Missing { got, way_out }) = &found {
            log::info!("scoring with the built-in kernel alone: {got}; {way_out}");
        }
        found
    })
}

/// A build without CUDA support has no use for it.
#[cfg(not(feature = "cuda"))]
pub fn library() -> &'static std::result::Result<String, Missing> {
    static LIBRARY: std::sync::OnceLock<std::result::Result<String, Missing>> = std::sync::OnceLock::new();
    LIBRARY.get_or_init(|| {
        Err(Missing { got: "built without CUDA support".into(), way_out: "build it with the feature `cuda`".into() })
    })
}

/// What `gemm` calls.
#[cfg(feature = "cuda")]
const SYMBOLS: [&str; 5] =
    ["cublasCreate_v2", "cublasDestroy_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasGemmEx"];

/// File names of the library, in the order in which cudarc tries them, but for names that nobody ships. Its own list is
/// not there in a build where another crate makes it link CUDA.
#[cfg(feature = "cuda")]
fn names() -> [String; 4] {
    let major = cudarc::driver::sys::CUDA_VERSION / 1000;
    if cfg!(windows) {
        ["cublas.dll".into(), format!("cublas64_{major}.dll"), "cublas64_12.dll".into(), "cublas64_11.dll".into()]
    } else {
        ["libcublas.so".into(), format!("libcublas.so.{major}"), "libcublas.so.12".into(), "libcublas.so.11".into()]
    }
}

/// Opens the library that cudarc would open, which panics where there is none or where it lacks a symbol.
#[cfg(feature = "cuda")]
fn look_up() -> std::result::Result<String, Missing> {
    for name in names() {
        // SAFETY: loading runs the initialisers of cuBLAS, which every program that uses it runs; no symbol is called
        // through this handle.
        let Ok(library) = (unsafe { libloading::Library::new(&name) }) else { continue };
        // SAFETY: the address is only looked up, never called or read through.
        let has = |symbol: &&str| unsafe { library.get::<*const ()>(symbol.as_bytes()).is_ok() };
        let absent: Vec<&str> = SYMBOLS.into_iter().filter(|symbol| !has(symbol)).collect();
        return match absent.first() {
            None => Ok(name),
            Some(first) => Err(Missing {
                got: format!("{name} lacks {} of {} symbols, {first} first", absent.len(), SYMBOLS.len()),
                way_out: "it is a stub or too old: install the cuBLAS of CUDA 12 or newer".into(),
            }),
        };
    }
    Err(Missing {
        got: "no cuBLAS library was found".into(),
        way_out: "to use it, install cuBLAS (the CUDA toolkit or the wheel nvidia-cublas-cu12 brings it) and put its \
                  folder into LD_LIBRARY_PATH"
            .into(),
    })
}
