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

/// Opens the library that cudarc would open, which panics where there is none or where it lacks a symbol.
#[cfg(feature = "cuda")]
fn look_up() -> std::result::Result<String, Missing> {
    for name in cudarc::get_lib_name_candidates("cublas") {
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
