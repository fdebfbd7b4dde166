//! What is asked of [`assign`](super::assign) and [`top_k`](super::top_k), and what they give.

/// How labels are decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The nearest codeword of the real numbers, certified; ties to the lowest index. The same on every device.
    #[default]
    Exact,
    /// The best score of one rounded pass, the lowest index among equal scores. May differ from device to device. On the
    /// CPU that pass is f32, so that [`Precision::Exact`] is the faster of the two up to 16 dimensions, and where it multiplies
    /// integers or bf16 ([`Isa`](crate::Isa)); on a GPU that takes tensor cores it ranks products of f16,
    /// and is exact for up to 32 dimensions and 1024 codewords, which takes no longer there.
    Fast,
}

/// What happens to a row that holds a NaN or an infinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NonFinite {
    /// The call fails with [`Error::NonFinite`](crate::Error::NonFinite) naming the first such row.
    #[default]
    Error,
    /// The row's labels are [`SENTINEL`](crate::SENTINEL) and its distances NaN.
    Sentinel,
}

/// Options of [`assign`](crate::assign) and [`top_k`](crate::top_k).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssignOptions {
    /// How labels are decided.
    pub precision: Precision,
    /// What happens to a row that holds a NaN or an infinity.
    pub non_finite: NonFinite,
}

/// How many rows each tier settled: the price of exactness, seen. Unlike labels and distances, these counts may differ
/// from device to device, and those of [`top_k`](crate::top_k) with the number of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssignStats {
    /// Rows whose first-pass winner was certified (in [`Precision::Fast`]: whose winner was taken as it is, all rows
    /// that the pass can score without overflow). In [`KMeans`](crate::KMeans) also those whose label follows from bounds
    /// that passes before left, and from the sums that these still asked for.
    pub first: u64,
    /// Rows settled by the second look, direct f32 sums over the remaining candidates; after tensor cores, f64 sums come
    /// at once.
    pub second: u64,
    /// Rows settled by direct f64 sums.
    pub f64: u64,
    /// Rows that needed the exact sign, real-number ties among them.
    pub exact: u64,
}

impl std::ops::Add for AssignStats {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        AssignStats {
            first: self.first + other.first,
            second: self.second + other.second,
            f64: self.f64 + other.f64,
            exact: self.exact + other.exact,
        }
    }
}

impl std::ops::AddAssign for AssignStats {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// The nearest codeword of every row, and how far it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    /// Index of the nearest codeword, one per row.
    pub labels: Vec<u32>,
    /// Squared Euclidean distance to it: the real number rounded to the nearest f32. One per row.
    pub sq_distances: Vec<f32>,
    /// How many rows each tier settled.
    pub stats: AssignStats,
}

/// The r nearest codewords of every row, nearest first, equal distances by index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopK {
    /// Codewords per row.
    pub r: usize,
    /// `[n, r]` row-major.
    pub labels: Vec<u32>,
    /// `[n, r]` row-major; each the real squared distance rounded to the nearest f32.
    pub sq_distances: Vec<f32>,
    /// How many rows each tier settled.
    pub stats: AssignStats,
}
